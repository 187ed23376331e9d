package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"
)

// Artifact is a file that a task left behind, without its content.
type Artifact struct {
	TaskID      string    `json:"taskId" format:"uuid"`
	Name        string    `json:"name" doc:"1 to 200 printable characters, no slashes." example:"report.html"`
	Size        int64     `json:"size" doc:"In bytes."`
	SHA256      string    `json:"sha256" doc:"Of the content, in hexadecimal. Between quotes it is the ETag."`
	ContentType string    `json:"contentType" example:"text/html; charset=utf-8"`
	CreatedAt   time.Time `json:"createdAt"`
	CreatedBy   string    `json:"createdBy" doc:"The principal that put it there."`
}

// ArtifactList is all artifacts of a task, by name.
type ArtifactList struct {
	Items []Artifact `json:"items"`
}

// ArtifactOption changes how an artifact is put or deleted.
type ArtifactOption func(http.Header)

// WithContentType says what the content is; without it,
// application/octet-stream.
func WithContentType(mediaType string) ArtifactOption {
	return func(h http.Header) { h.Set("Content-Type", mediaType) }
}

// WithSHA256 has the server refuse a content that does not hash to sum (RFC
// 9530).
func WithSHA256(sum [32]byte) ArtifactOption {
	return func(h http.Header) {
		h.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
	}
}

// UnderLease acts by the right of a worker's lease of the task.
func UnderLease(token string) ArtifactOption {
	return func(h http.Header) { h.Set("Lease-Token", token) }
}

// IfArtifact lets the change happen only if the artifact's content has that
// SHA-256, in hexadecimal; "": only if there is no artifact of the name.
// Otherwise the change is an [*Error] with status 409.
func IfArtifact(sha256 string) ArtifactOption {
	return func(h http.Header) {
		if sha256 == "" {
			h.Set("If-None-Match", "*")
			return
		}
		h.Set("If-Match", `"`+sha256+`"`)
	}
}

func artifactPath(taskID, name string) (string, error) {
	of, err := item("/v1/tasks", taskID, "/artifacts")
	if err != nil {
		return "", err
	}
	return item(of, name, "")
}

func artifactHeader(opts []ArtifactOption) http.Header {
	h := http.Header{}
	for _, opt := range opts {
		opt(h)
	}
	return h
}

// Artifacts returns the artifacts of a task, by name.
func (c *Client) Artifacts(ctx context.Context, taskID string) ([]Artifact, error) {
	var out ArtifactList
	err := c.get(ctx, "/v1/tasks", taskID, "/artifacts", nil, &out)
	return out.Items, err
}

// PutArtifact keeps content, to its end, as an artifact of a task, in place of
// one of that name. It is read as it is sent, so it is sent again only if it is
// an io.Seeker, or if nothing of it has left yet.
func (c *Client) PutArtifact(ctx context.Context, taskID, name string, content io.Reader, opts ...ArtifactOption) (Artifact, error) {
	path, err := artifactPath(taskID, name)
	if err != nil {
		return Artifact{}, err
	}
	// What the server refuses at once need not be sent first.
	h := http.Header{"Content-Type": {"application/octet-stream"}, "Expect": {"100-continue"}}
	maps.Copy(h, artifactHeader(opts))
	body, err := newUpload(content)
	if err != nil {
		return Artifact{}, err
	}
	defer body.end()
	var out Artifact
	return out, c.do(ctx, call{method: http.MethodPut, path: path, header: h, content: body, out: &out, once: true})
}

// GetArtifact writes the content of an artifact to w as it comes. After an error
// w may have got a part of it, or something else than what was put: what comes
// is compared with the SHA-256 that the server states.
func (c *Client) GetArtifact(ctx context.Context, taskID, name string, w io.Writer) error {
	path, err := artifactPath(taskID, name)
	if err != nil {
		return err
	}
	sum := sha256.New()
	var answer http.Header
	err = c.do(ctx, call{method: http.MethodGet, path: path, header: http.Header{"Accept": {"*/*"}}, sink: io.MultiWriter(w, sum), answer: &answer})
	if err != nil {
		return err
	}
	if got := `"` + hex.EncodeToString(sum.Sum(nil)) + `"`; answer.Get("ETag") != got {
		return fmt.Errorf("artifact %q arrived with the SHA-256 %s instead of %s", name, got, answer.Get("ETag"))
	}
	return nil
}

// DeleteArtifact removes an artifact of a task.
func (c *Client) DeleteArtifact(ctx context.Context, taskID, name string, opts ...ArtifactOption) error {
	path, err := artifactPath(taskID, name)
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: http.MethodDelete, path: path, header: artifactHeader(opts), once: true})
}
