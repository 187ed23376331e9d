// Package artifacts_test keeps artifacts in a bucket, of a server that speaks
// S3's protocol on a socket.
package artifacts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/coderclaw/runtime/internal/artifact"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// service is an S3 service with one bucket.
type service struct {
	*s3mem.Backend
	url string
}

func newService(t *testing.T) service {
	t.Helper()
	s := service{Backend: s3mem.New()}
	if err := s.CreateBucket("files"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(s.Backend).Server())
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s service) bucket(t *testing.T, name string) *artifact.Bucket {
	t.Helper()
	b, err := artifact.NewBucket(artifact.BucketOptions{Endpoint: s.url, Bucket: name, Region: "us-east-1", AccessKey: "id", SecretKey: "key", Prefix: "claw/"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keys are those of all objects.
func (s service) keys(t *testing.T) (keys []string) {
	t.Helper()
	list, err := s.ListBucket("files", nil, gofakes3.ListBucketPage{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list.Contents {
		keys = append(keys, o.Key)
	}
	return keys
}

// pattern is n bytes of which no two pieces are alike.
func pattern(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.Bytes()[:n]
}

func TestABucketKeepsContents(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, ctx := s.bucket(t, "files"), t.Context()
	for _, n := range []int{0, 1, 5 << 20, 5<<20 + 1, 12<<20 + 7} {
		id, want := uuid.New(), pattern(n)
		if err := b.Write(ctx, id, iotest.HalfReader(bytes.NewReader(want))); err != nil {
			t.Fatal(n, err)
		}
		if keys := s.keys(t); len(keys) != 1 || keys[0] != "claw/"+id.String() {
			t.Errorf("the objects are %q", keys)
		}
		for _, from := range []int{0, n / 2, n - 1} {
			if from < 0 || from >= n {
				continue
			}
			content, err := b.Open(ctx, id, int64(from))
			if err != nil {
				t.Fatal(n, err)
			}
			if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, want[from:]) {
				t.Errorf("%d bytes from %d on are %d, %v", n, from, len(got), err)
			}
			content.Close()
		}
		for range 2 { // the second time there is nothing
			if err := b.Remove(ctx, id); err != nil {
				t.Error(n, err)
			}
		}
		if keys := s.keys(t); len(keys) != 0 {
			t.Errorf("left are %q", keys)
		}
		if _, err := b.Open(ctx, id, 0); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("read after it was removed: %v", err)
		}
	}
}

func TestAnUploadToABucketThatBreaksOffIsNoObject(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, id := s.bucket(t, "files"), uuid.New()
	broken := errors.New("no such sector")
	err := b.Write(t.Context(), id, io.MultiReader(bytes.NewReader(pattern(11<<20)), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = b.Write(ctx, id, io.MultiReader(bytes.NewReader(pattern(11<<20)), reader(func() error { cancel(); return broken })))
	if err == nil {
		t.Error("it went on")
	}
	if keys := s.keys(t); len(keys) != 0 {
		t.Errorf("there are %q", keys)
	}
	if err := b.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

type reader func() error

func (f reader) Read([]byte) (int, error) { return 0, f() }

func TestWhetherABucketExistsIsKnown(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, want := range map[string]bool{"files": true, "others": false} {
		if exists, err := s.bucket(t, name).Exists(t.Context()); err != nil || exists != want {
			t.Errorf("%s: %v, %v", name, exists, err)
		}
	}
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (service{url: nobody.URL}).bucket(t, "files").Exists(ctx); err == nil {
		t.Error("a bucket where nobody answers")
	}
}

// allowed lets everybody do everything.
type allowed struct{}

func (allowed) Decide(context.Context, policy.Caller, policy.Request) (policy.Decision, error) {
	return policy.Decision{Allowed: true}, nil
}

func (allowed) Submitter(context.Context, string, string, string) (policy.Caller, error) {
	return policy.Caller{}, nil
}
func (allowed) Record(context.Context, audit.Entry)    {}
func (allowed) Runnable(context.Context, string) error { return nil }

func TestArtifactsLieWhereTheyWerePutAndGoOnceNobodyNeedsThem(t *testing.T) {
	t.Parallel()
	s, pool, ctx := newService(t), pgtest.DB(t), t.Context()
	engine := func(contents ...task.Contents) *task.Service {
		return task.NewService(pool, task.Options{
			Agents: allowed{}, Access: allowed{}, Submitters: allowed{}, Recorder: allowed{}, Bus: &stream.Memory{}, Log: slog.New(slog.DiscardHandler), Contents: contents,
		})
	}
	chunks, bucket := artifact.NewChunks(pool), s.bucket(t, "files")
	ann := policy.Caller{UserID: "ann", AllProjects: true}
	before, now := engine(chunks), engine(bucket, chunks)
	submitted, err := before.Submit(ctx, ann, task.New{Description: "d", Dispatch: task.Manual}, "")
	if err != nil {
		t.Fatal(err)
	}
	put := func(e *task.Service, name, content string) {
		t.Helper()
		if _, _, err := e.PutArtifact(ctx, ann, task.NewArtifact{TaskID: submitted.ID, Name: name}, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	get := func(e *task.Service, name string) (string, error) {
		a, err := e.Artifact(ctx, ann, submitted.ID, name)
		if err != nil {
			return "", err
		}
		content, err := e.ReadArtifact(ctx, a)
		if err != nil {
			return "", err
		}
		defer content.Close()
		text, err := io.ReadAll(content)
		return string(text), err
	}
	put(before, "old", "in the database")
	put(now, "new", "in the bucket")
	for name, want := range map[string]string{"old": "in the database", "new": "in the bucket"} {
		if got, err := get(now, name); got != want || err != nil {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if _, err := get(before, "new"); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("without the bucket: %v", err)
	}
	broken := errors.New("cut off")
	_, _, err = now.PutArtifact(ctx, ann, task.NewArtifact{TaskID: submitted.ID, Name: "new"}, io.MultiReader(bytes.NewReader(pattern(6<<20)), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	put(now, "new", "again in the bucket")
	put(now, "old", "now in the bucket")
	if keys := s.keys(t); len(keys) != 3 {
		t.Errorf("there are the objects %q", keys)
	}
	// Later:
	if _, err := pool.Exec(ctx, `UPDATE artifact_contents SET collect_after = now() WHERE collect_after IS NOT NULL`); err != nil {
		t.Fatal(err)
	}
	cleaning, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- now.Clean(cleaning) }()
	for left := -1; left != 2; {
		if err := pool.QueryRow(ctx, `SELECT count(*) FROM artifact_contents`).Scan(&left); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if keys := s.keys(t); len(keys) != 2 {
		t.Errorf("left are the objects %q", keys)
	}
	for name, want := range map[string]string{"old": "now in the bucket", "new": "again in the bucket"} {
		if got, err := get(now, name); got != want || err != nil {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}
