package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// artifact returns what the server has by that name.
func (s *server) artifact(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.artifacts[name]
}

func TestWhatIsMoreThanAHistoryHoldsBecomesArtifacts(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		failures := 2
		s.putting = func(string) error { // the server is away for a while
			failures--
			if failures >= 0 {
				return errors.New("try again")
			}
			return nil
		}
		streamed := strings.Repeat("語", 400_000)
		start(t, s, agents{"a": func(_ context.Context, _ executor.Job, out executor.Sink) (string, error) {
			for i := range 10_003 {
				out.Log("stdout", fmt.Sprintf("line %d\xff", i))
			}
			out.Output(streamed)
			return "short", nil
		}})
		time.Sleep(time.Minute)
		got := s.row("task-of-a")
		if got.Status != api.TaskCompleted {
			t.Fatalf("the task is %s", got.Status)
		}
		if text := s.artifact("log.txt"); text != "text/plain; charset=utf-8: line 10000\ufffd\nline 10001\ufffd\nline 10002\ufffd\n" {
			t.Errorf("log.txt is %q", text)
		}
		var events strings.Builder
		for _, e := range got.events {
			if e.Type == api.EventOutput {
				events.WriteString(e.Message)
			}
		}
		if rest := strings.TrimPrefix(s.artifact("output.txt"), "text/plain; charset=utf-8: "); events.String()+rest != streamed || rest == "" {
			t.Errorf("%d bytes of events and %d of output.txt do not make up the output", events.Len(), len(rest))
		}
	})
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("on disk is left %v, %v", left, err)
	}
}

func TestAnOutputThatIsTooLongIsAnArtifactAsAWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		output := strings.Repeat("0123456789", 200_000)
		start(t, s, agents{"a": func(_ context.Context, _ executor.Job, out executor.Sink) (string, error) {
			out.Output(output)
			return output, nil
		}})
		time.Sleep(time.Minute)
		if text := s.artifact("output.txt"); text != "text/plain; charset=utf-8: "+output {
			t.Errorf("output.txt has %d bytes", len(text))
		}
	})
}

func TestAnExecutorKeepsArtifactsWithinTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.putting = func(name string) error {
			if name == "refused" {
				return fmt.Errorf("not this one: %w", worker.ErrRefused)
			}
			return nil
		}
		broken := errors.New("no such sector")
		var errs []error
		start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, out executor.Sink) (string, error) {
			errs = append(errs,
				out.Artifact(ctx, "good", "text/html", iotest.OneByteReader(strings.NewReader("<p>"))),
				out.Artifact(ctx, "plain", "", strings.NewReader("x")),
				out.Artifact(ctx, "broken", "", iotest.ErrReader(broken)),
				out.Artifact(ctx, "refused", "", strings.NewReader("x")),
				out.Artifact(ctx, "too large", "", endless{}))
			return "", nil
		}})
		time.Sleep(time.Minute)
		if s.row("task-of-a").Status != api.TaskCompleted || len(errs) != 5 {
			t.Fatal(errs)
		}
		if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], broken) || !errors.Is(errs[3], worker.ErrRefused) || errs[4] == nil {
			t.Errorf("they ended with %v", errs)
		}
		if s.artifact("good") != "text/html: <p>" || s.artifact("plain") != "application/octet-stream: x" || len(s.artifacts) != 2 {
			t.Errorf("%d artifacts, of which %q and %q", len(s.artifacts), s.artifact("good"), s.artifact("plain"))
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestAnArtifactOfALostLeaseIsNotPut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		put := make(chan error, 1)
		start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, out executor.Sink) (string, error) {
			s.cancelQuietly("task-of-a")
			put <- out.Artifact(ctx, "late", "", strings.NewReader("x"))
			<-ctx.Done()
			return "", ctx.Err()
		}})
		if got := <-put; !errors.Is(got, worker.ErrLeaseLost) || s.artifact("late") != "" {
			t.Errorf("%v, and there is %q", got, s.artifact("late"))
		}
	})
}
