package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/google/uuid"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/coderclaw/runtime/internal/fault"
)

// partSize is the length of the parts in which a content is sent, of which two
// are in memory at a time. S3 takes none that is smaller, but for the last.
const partSize = 5 << 20

// BucketOptions say where a bucket is.
type BucketOptions struct {
	Endpoint  string // https://host[:port], or http
	Bucket    string
	Region    string // empty: asked for
	AccessKey string
	SecretKey string
	Prefix    string // of the keys of all objects
}

// Bucket keeps contents in a bucket of an S3-compatible service, each as an
// object whose key ends with its id.
type Bucket struct {
	client *minio.Client
	name   string
	prefix string
}

// NewBucket returns the store in a bucket. It does not connect.
func NewBucket(o BucketOptions) (*Bucket, error) {
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("read the address of the bucket: %w", err)
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: endpoint.Scheme == "https", Region: o.Region,
	})
	if err != nil {
		return nil, fmt.Errorf("use the bucket %s: %w", o.Bucket, err)
	}
	return &Bucket{client: client, name: o.Bucket, prefix: o.Prefix}, nil
}

// Name names the bucket and the prefix: in another one there are not the same
// contents.
func (b *Bucket) Name() string { return "s3:" + b.name + "/" + b.prefix }

// Exists reports whether there is such a bucket.
func (b *Bucket) Exists(ctx context.Context) (bool, error) {
	exists, err := b.client.BucketExists(ctx, b.name)
	if err != nil {
		return false, b.fault("look for the bucket", err)
	}
	return exists, nil
}

func (b *Bucket) key(id uuid.UUID) string { return b.prefix + id.String() }

// fault says that the service did not do what it should. Nothing that a caller
// does can help it.
func (b *Bucket) fault(what string, err error) error {
	return fault.Wrap(fmt.Errorf("%s in bucket %s: %w", what, b.name, err), fault.Unavailable, "the store of artifacts cannot be used now")
}

// Write keeps what r yields until its end. After an error parts of it may be
// there, for Remove.
func (b *Bucket) Write(ctx context.Context, id uuid.UUID, r io.Reader) error {
	// Most contents fit in one part, and go in one request.
	first := make([]byte, partSize)
	n, err := fill(r, first)
	size := int64(-1)
	switch {
	case err == io.EOF: //nolint:errorlint // a wrapped one is another's end
		r, size = bytes.NewReader(first[:n]), int64(n)
	case err != nil:
		return err
	default:
		r = io.MultiReader(bytes.NewReader(first), r)
	}
	_, err = b.client.PutObject(ctx, b.name, b.key(id), r, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partSize, NumThreads: 1,
		// A hash in a signed header is understood by every service, unlike
		// signatures within the body.
		SendContentMd5: true, DisableContentSha256: true,
	})
	if err != nil {
		return b.fault("write content "+id.String(), err)
	}
	return nil
}

// Open returns what is kept from an offset on.
func (b *Bucket) Open(ctx context.Context, id uuid.UUID, offset int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if offset > 0 {
		if err := o.SetRange(offset, 0); err != nil {
			return nil, fmt.Errorf("read content %s from %d: %w", id, offset, err)
		}
	}
	content, _, _, err := minio.Core{Client: b.client}.GetObject(ctx, b.name, b.key(id), o)
	if err != nil {
		return nil, b.fault("read content "+id.String(), err)
	}
	return content, nil
}

// Remove removes what is kept under an id, which may be nothing, and what there
// is of an upload that broke off.
func (b *Bucket) Remove(ctx context.Context, id uuid.UUID) error {
	if err := b.client.RemoveIncompleteUpload(ctx, b.name, b.key(id)); err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
		return b.fault("remove parts of content "+id.String(), err)
	}
	if err := b.client.RemoveObject(ctx, b.name, b.key(id), minio.RemoveObjectOptions{}); err != nil {
		return b.fault("remove content "+id.String(), err)
	}
	return nil
}
