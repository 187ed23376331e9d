package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// many returns n tasks of one agent.
func many(n int) (all []api.Task) {
	for i := range n {
		t := task("a")
		t.ID = fmt.Sprint("task-", i)
		all = append(all, t)
	}
	return all
}

// wantAllDone waits until the tasks have ended, and fails unless each was
// completed once, by its first attempt.
func wantAllDone(t *testing.T, s *server, n int) {
	t.Helper()
	s.untilEnded()
	for i := range n {
		if got := s.row(fmt.Sprint("task-", i)); got.Attempt != 1 || !slices.Equal(got.history, []string{"running", "completed"}) {
			t.Errorf("%s was %v in %d attempts", got.ID, got.history, got.Attempt)
		}
	}
}

func TestABusyWorkerBringsResultsWithItsClaims(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(many(10)...)
		start(t, s, agents{"a": lasting(time.Second)}, func(c *worker.Config) { c.Capacity = 2 })
		wantAllDone(t, s, 10)
		s.mu.Lock()
		defer s.mu.Unlock()
		// The last one ends while the worker waits for work.
		if s.carried < 5 || s.most != 2 {
			t.Errorf("%d of ten results came with claims, at most %d ran at once", s.carried, s.most)
		}
	})
}

func TestAResultWhoseClaimIsNotAnsweredIsReportedAgain(t *testing.T) {
	t.Parallel()
	for what, arrives := range map[string]bool{"arrived": true, "did not arrive": false} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(many(6)...)
				s.loseClaims, s.beforeLoss = 3, arrives
				start(t, s, agents{"a": lasting(time.Second)}, func(c *worker.Config) { c.Capacity = 1 })
				wantAllDone(t, s, 6)
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.most != 1 || s.loseClaims != 0 {
					t.Errorf("%d ran at once, %d claims were not lost", s.most, s.loseClaims)
				}
			})
		})
	}
}

func TestAResultThatIsRefusedWithAClaimFailsItsTaskAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(many(3)...)
		s.refusing = func(r api.Report) bool { return r.Output != nil && *r.Output == "task-1" }
		start(t, s, agents{"a": func(ctx context.Context, j executor.Job, _ executor.Sink) (string, error) {
			pause(ctx, time.Second)
			return j.Task.ID, nil
		}}, func(c *worker.Config) { c.Capacity = 1 })
		s.untilEnded()
		for i, want := range []string{"completed", "failed", "completed"} {
			if got := s.row(fmt.Sprint("task-", i)); got.history[len(got.history)-1] != want {
				t.Errorf("%s: %v, want %s", got.ID, got.history, want)
			}
		}
	})
}

func TestALargeResultTravelsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(many(3)...)
		start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, _ executor.Sink) (string, error) {
			pause(ctx, time.Second)
			return strings.Repeat("x", 100<<10), nil
		}}, func(c *worker.Config) { c.Capacity = 1 })
		wantAllDone(t, s, 3)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.carried != 0 {
			t.Errorf("%d results of 100 KiB came with claims", s.carried)
		}
	})
}

// A worker that is refused what it carries goes on; one that is refused itself
// stops.
func TestAWorkerWhoseClaimIsRefusedForItsResultsGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(many(4)...)
		s.refuseCarrying = fmt.Errorf("too much: %w", worker.ErrRefused)
		start(t, s, agents{"a": lasting(time.Second)}, func(c *worker.Config) { c.Capacity = 1 })
		wantAllDone(t, s, 4)
	})
}

var errLost = errors.New("the answer was lost")
