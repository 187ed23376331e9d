package worker_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

func reachable(c *worker.Config) { c.ServerURL = "https://claw.example" }

// over is how an attempt whose agent reports by itself has ended.
type over struct {
	at    time.Duration // since the beginning
	state api.LeaseState
	err   error
}

// handedOver is an agent that reports by itself: does is what it does meanwhile.
func handedOver(ended chan<- over, does func(ctx context.Context, j executor.Job)) run {
	return func(ctx context.Context, j executor.Job, _ executor.Sink) (string, error) {
		began := time.Now()
		go does(ctx, j)
		st, err := j.Handover.Wait(ctx, func() {})
		ended <- over{time.Since(began), st, err}
		return "", errors.Join(err, errors.New("over"))
	}
}

// byAgent is a report of the agent's, under the lease that its worker holds.
func (s *server) byAgent(t *testing.T, r api.Report) {
	t.Helper()
	row := s.row("task-of-a")
	if err := s.take(row.ID, row.token, r); err != nil {
		t.Error(err)
	}
}

func TestAnAttemptIsOverWhenItsAgentHasReportedTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		ended := make(chan over, 1)
		start(t, s, agents{"a": handedOver(ended, func(ctx context.Context, j executor.Job) {
			if want := "https://claw.example/v1/tasks/task-of-a/reports"; j.Handover.URL != want || j.Handover.Token != api.AgentToken("task-of-a", "lease-1") {
				t.Errorf("it is to report to %s with %s", j.Handover.URL, j.Handover.Token)
			}
			for range 100 { // longer than several leases
				pause(ctx, time.Second)
				s.byAgent(t, api.Report{Events: []api.ReportEvent{{Type: api.EventLog, Message: "on it"}}})
			}
			output := "done"
			s.byAgent(t, api.Report{Status: api.TaskCompleted, Output: &output})
		})}, reachable)
		got := <-ended
		if got.err != nil || got.state.Held || got.state.Status != api.TaskCompleted || got.at != 100*time.Second {
			t.Errorf("the attempt is over after %v as %+v: %v", got.at, got.state, got.err)
		}
		synctest.Wait()
		if row := s.row("task-of-a"); row.Output != "done" || !slices.Equal(row.history, []string{"running", "completed"}) || row.lost > 0 {
			t.Errorf("the task has output %q after %v, and lost %d workers", row.Output, row.history, row.lost)
		}
	})
}

func TestAnAttemptThatWasTakenAwayHearsHowTheTaskStands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		ended := make(chan over, 1)
		start(t, s, agents{"a": handedOver(ended, func(ctx context.Context, _ executor.Job) {
			pause(ctx, time.Minute)
			s.cancel("task-of-a")
		})}, reachable)
		if got := <-ended; got.err != nil || got.state.Held || got.state.Status != api.TaskCancelled || got.at != time.Minute {
			t.Errorf("the attempt is over after %v as %+v: %v", got.at, got.state, got.err)
		}
	})
}

func TestAnAttemptWhoseServerIsGoneDoesNotWaitForNews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		ended := make(chan over, 1)
		stop := start(t, s, agents{"a": handedOver(ended, func(ctx context.Context, _ executor.Job) {
			pause(ctx, time.Minute)
			s.set(func(s *server) { s.dead = true })
		})}, reachable)
		if got := <-ended; got.err == nil || got.at > time.Minute+30*time.Second {
			t.Errorf("the attempt is over after %v as %+v: %v", got.at, got.state, got.err)
		}
		s.set(func(s *server) { s.dead = false })
		stop()
	})
}

func TestAnAgentThatReportsByItselfMayBeSilentOnlySoLong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		asks bool // it waits for a person meanwhile
		want time.Duration
	}{
		"without a word":           {false, 50*time.Second + 10*time.Second},
		"while it asks for a word": {true, 50*time.Second + time.Hour + 10*time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			limited := task("a")
			limited.SilenceSeconds = 10
			s := newServer(limited)
			ended := make(chan over, 1)
			start(t, s, agents{"a": handedOver(ended, func(ctx context.Context, _ executor.Job) {
				for range 10 {
					pause(ctx, 5*time.Second)
					s.byAgent(t, api.Report{Events: []api.ReportEvent{{Type: api.EventLog}}})
				}
				if c.asks {
					s.byAgent(t, api.Report{Status: api.TaskWaiting})
					pause(ctx, time.Hour)
					s.byAgent(t, api.Report{Status: api.TaskRunning})
				}
			})}, reachable)
			if got := <-ended; !errors.Is(got.err, context.Canceled) || (got.at-c.want).Abs() > time.Second {
				t.Errorf("%s: the attempt is over after %v (%v), want %v", name, got.at, got.err, c.want)
			}
			synctest.Wait()
			if row := s.row("task-of-a"); row.Status != api.TaskFailed || row.Error != "said nothing for 10 s" {
				t.Errorf("%s: the task is %s: %s", name, row.Status, row.Error)
			}
		})
	}
}

func TestWithoutAnAddressNoAgentReportsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		start(t, s, agents{"a": func(_ context.Context, j executor.Job, _ executor.Sink) (string, error) {
			if j.Handover != nil {
				t.Errorf("it is to report to %s", j.Handover.URL)
			}
			return "", nil
		}})
		time.Sleep(time.Second)
		if row := s.row("task-of-a"); row.Status != api.TaskCompleted {
			t.Errorf("the task is %s", row.Status)
		}
	})
}
