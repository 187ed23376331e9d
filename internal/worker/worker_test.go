package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// untilStopped is an agent that works until it is told to stop.
func untilStopped(ctx context.Context, _ executor.Job, _ executor.Sink) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func lasting(d time.Duration) run {
	return func(ctx context.Context, _ executor.Job, _ executor.Sink) (string, error) {
		pause(ctx, d)
		return "done", ctx.Err()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func TestATaskIsRunAndWhatItsAgentSaysIsReportedInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		start(t, s, agents{"a": func(_ context.Context, j executor.Job, out executor.Sink) (string, error) {
			out.Progress(10, "reading "+j.Task.ID)
			out.Log("stderr", "a line")
			out.Output("the ")
			out.Output("answer")
			out.Progress(90, "")
			return "the answer", nil
		}})
		time.Sleep(time.Second)
		got := s.row("task-of-a")
		if got.Status != api.TaskCompleted || got.Output != "the answer" || !slices.Equal(got.history, []string{"running", "completed"}) {
			t.Errorf("the task is %s with output %q after %v", got.Status, got.Output, got.history)
		}
		want := []string{"progress reading task-of-a", `log a line {"stream":"stderr"}`, "output the answer", "progress "}
		if said := words(got.events); !slices.Equal(said, want) {
			t.Errorf("reported %q, want %q", said, want)
		}
	})
}

func TestAWaitingTaskIsResumedWithoutSayingThatItRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		resumed := task("a")
		resumed.Status = api.TaskWaiting
		s := newServer(resumed)
		start(t, s, agents{"a": lasting(time.Second)})
		time.Sleep(2 * time.Second)
		if got := s.row("task-of-a"); !slices.Equal(got.history, []string{"completed"}) {
			t.Errorf("history is %v", got.history)
		}
	})
}

func TestAWorkerRunsAtMostItsCapacity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		for i := range 20 {
			one := task("a")
			one.ID = fmt.Sprint(i)
			s.add(one)
		}
		start(t, s, agents{"a": lasting(time.Second)}, func(c *worker.Config) { c.Capacity = 3 })
		time.Sleep(10 * time.Second)
		for i := range 20 {
			if got := s.row(fmt.Sprint(i)); got.Status != api.TaskCompleted {
				t.Errorf("task %d is %s", i, got.Status)
			}
		}
		if most := s.count(&s.most); most != 3 {
			t.Errorf("%d ran at once, want 3", most)
		}
	})
}

func TestFailuresSayWhatTheExecutorSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		agent string
		run   run
		err   string
		retry bool
	}{
		"a failure that may pass":      {"a", fails(&executor.Failure{Message: "rate limit", Retryable: true}), "rate limit", true},
		"a failure that stays":         {"a", fails(fmt.Errorf("start: %w", &executor.Failure{Message: "no such program"})), "no such program", false},
		"an error that is not for all": {"a", fails(errors.New("password=hunter2")), "internal error of the worker; its log tells more", true},
		"a panic":                      {"a", func(context.Context, executor.Job, executor.Sink) (string, error) { panic("oops") }, "the executor crashed: oops", false},
		"an agent with no executor":    {"b", nil, "agent b needs a model", false},
		"an agent that was removed":    {"nobody", nil, "the server knows no agent nobody any more", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(task(c.agent))
				start(t, s, agents{"a": c.run})
				time.Sleep(time.Second)
				got := s.row("task-of-" + c.agent)
				if got.Status != api.TaskFailed || got.Error != c.err {
					t.Errorf("the task is %s: %q, want failed: %q", got.Status, got.Error, c.err)
				}
				if retry := slices.Contains(got.history, "may be tried again"); retry != c.retry {
					t.Errorf("may be tried again: %v, want %v", retry, c.retry)
				}
			})
		})
	}
}

func fails(err error) run {
	return func(context.Context, executor.Job, executor.Sink) (string, error) { return "", err }
}

func TestAnAttemptEndsAtItsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := task("a")
		slow.TimeoutSeconds = 90
		s := newServer(slow)
		start(t, s, agents{"a": untilStopped})
		time.Sleep(89 * time.Second)
		if got := s.row("task-of-a"); got.Status != api.TaskRunning {
			t.Fatalf("before its time the task is %s", got.Status)
		}
		time.Sleep(2 * time.Second)
		if got := s.row("task-of-a"); got.Status != api.TaskFailed || got.Error != "timed out after 90 s" {
			t.Errorf("the task is %s: %q", got.Status, got.Error)
		}
	})
}

func TestACancelledTaskStopsWithinASecondAndSaysNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		var stopped atomic.Bool
		start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, out executor.Sink) (string, error) {
			<-ctx.Done()
			stopped.Store(true)
			out.Log("", "too late")
			return "", ctx.Err()
		}})
		time.Sleep(time.Minute)
		s.cancel("task-of-a")
		time.Sleep(time.Second)
		if !stopped.Load() {
			t.Error("the agent still works")
		}
		if got := s.row("task-of-a"); got.Status != api.TaskCancelled || len(got.events) > 0 {
			t.Errorf("the task is %s with %v", got.Status, words(got.events))
		}
	})
}

func TestATaskCancelledRightAfterItsClaimStopsWithinASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("first"))
		var stopped atomic.Int32
		agent := func(ctx context.Context, _ executor.Job, _ executor.Sink) (string, error) {
			<-ctx.Done()
			stopped.Add(1)
			return "", ctx.Err()
		}
		start(t, s, agents{"first": agent, "second": agent})
		time.Sleep(time.Minute) // a heartbeat waits that knows nothing of the second
		s.add(task("second"))
		time.Sleep(10 * time.Millisecond)
		s.cancel("task-of-second")
		time.Sleep(time.Second)
		if stopped.Load() != 1 {
			t.Errorf("%d agents stopped, want one", stopped.Load())
		}
	})
}

func TestAnAttemptWhoseReportIsFencedOffStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		var stopped atomic.Bool
		start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, out executor.Sink) (string, error) {
			for ctx.Err() == nil {
				out.Log("", "still here")
				pause(ctx, 500*time.Millisecond)
			}
			stopped.Store(true)
			return "", ctx.Err()
		}})
		time.Sleep(3 * time.Second)
		s.cancelQuietly("task-of-a")
		time.Sleep(time.Second)
		if !stopped.Load() {
			t.Error("the agent still works")
		}
	})
}

func TestTheLastReportIsNotTakenForALossOfTheLeaseThatItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.lease = 4 * time.Second // a heartbeat each second
		s.slowAnswer = 2500 * time.Millisecond
		start(t, s, agents{"a": lasting(time.Second)})
		time.Sleep(time.Minute)
		if got := s.row("task-of-a"); got.Status != api.TaskCompleted || s.count(&s.cutOff) > 0 {
			t.Errorf("the task is %s, %d reports were cut off", got.Status, s.count(&s.cutOff))
		}
	})
}

func TestLeasesAreKeptForAsLongAsTheAgentWorks(t *testing.T) {
	t.Parallel()
	for _, lease := range []time.Duration{5 * time.Second, 30 * time.Second} {
		t.Run(lease.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(task("a"))
				s.lease = lease
				start(t, s, agents{"a": lasting(10 * time.Minute)})
				time.Sleep(11 * time.Minute)
				got := s.row("task-of-a")
				if got.Status != api.TaskCompleted || got.lost > 0 || got.Attempt != 1 {
					t.Errorf("the task is %s, lost %d times", got.Status, got.lost)
				}
				if n, most := s.count(&s.renewals), int(11*time.Minute/lease)*6; n > most {
					t.Errorf("%d heartbeats, want at most %d", n, most)
				}
			})
		})
	}
}

func TestALongAttemptKeepsItsLeaseAmongManyShortOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("long"))
		start(t, s, agents{"long": lasting(2 * time.Minute), "short": lasting(300 * time.Millisecond)})
		for i := range 1000 {
			short := task("short")
			short.ID = fmt.Sprint(i)
			s.add(short)
			time.Sleep(130 * time.Millisecond)
		}
		got := s.row("task-of-long")
		if got.Status != api.TaskCompleted || got.lost > 0 {
			t.Errorf("the long task is %s, lost %d times", got.Status, got.lost)
		}
		if n := s.count(&s.renewals); n > 3000 {
			t.Errorf("%d heartbeats for 1,000 tasks", n)
		}
	})
}

func TestAnAttemptStopsBeforeALeaseThatCannotBeRenewedEnds(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*server){
		"server that answers nothing": func(s *server) { s.dead = true },
		"server that cannot":          func(s *server) { s.down = errors.New("database is down") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(task("a"))
				stopped := make(chan time.Time, 2)
				start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, _ executor.Sink) (string, error) {
					<-ctx.Done()
					stopped <- time.Now()
					return "", ctx.Err()
				}})
				time.Sleep(time.Minute)
				s.set(fail)
				at := <-stopped
				if end := s.row("task-of-a").expires; at.After(end.Add(-5 * time.Second)) {
					t.Errorf("stopped %v before the end of the lease, want at least 5 s", end.Sub(at))
				}
				s.set(func(s *server) { s.dead, s.down = false, nil })
			})
		})
	}
}

func TestAnAttemptOutlivesAServerThatIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*server){
		"answers nothing": func(s *server) { s.dead = true },
		"cannot":          func(s *server) { s.down = errors.New("restarting") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(task("a"))
				start(t, s, agents{"a": lasting(67 * time.Second)})
				time.Sleep(time.Minute)
				s.set(fail)
				time.Sleep(12 * time.Second) // the agent ends meanwhile
				s.set(func(s *server) { s.dead, s.down = false, nil })
				time.Sleep(20 * time.Second)
				got := s.row("task-of-a")
				if got.Status != api.TaskCompleted || got.lost > 0 || got.Output != "done" {
					t.Errorf("the task is %s, lost %d times, %v", got.Status, got.lost, got.history)
				}
			})
		})
	}
}

func TestAStoppingWorkerLetsAttemptsEndAndClaimsNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		stop := start(t, s, agents{"a": lasting(15 * time.Second), "b": untilStopped})
		time.Sleep(time.Second)
		time.AfterFunc(time.Second, func() { s.add(task("b")) })
		began := time.Now()
		stop()
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("stopping took %v though the attempt had ended", took)
		}
		if a, b := s.row("task-of-a"), s.row("task-of-b"); a.Status != api.TaskCompleted || b.Status != api.TaskPending {
			t.Errorf("the running task is %s, the one that came later %s", a.Status, b.Status)
		}
	})
}

func TestAStoppingWorkerGivesBackWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		stop := start(t, s, agents{"a": untilStopped})
		time.Sleep(time.Minute)
		began := time.Now()
		stop()
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("stopping took %v, want the grace time", took)
		}
		got := s.row("task-of-a")
		if got.Status != api.TaskWaiting || !slices.Equal(got.history, []string{"running", "released: worker stopped"}) {
			t.Errorf("the task is %s after %v", got.Status, got.history)
		}
	})
}

func TestALeaseThatComesAfterTheStopIsGivenBackUnused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.slowClaim = time.Second
		stop := start(t, s, agents{"a": func(context.Context, executor.Job, executor.Sink) (string, error) {
			t.Error("the agent was started")
			return "", nil
		}})
		time.Sleep(time.Millisecond)
		stop()
		if got := s.row("task-of-a"); !slices.Equal(got.history, []string{"released: worker stopped"}) {
			t.Errorf("history is %v", got.history)
		}
	})
}

func TestAStoppingWorkerDoesNotWaitForAServerThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		stop := start(t, s, agents{"a": untilStopped}, func(c *worker.Config) { c.Grace = 0 })
		time.Sleep(time.Second)
		s.set(func(s *server) { s.dead = true })
		began := time.Now()
		stop()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestARefusedResultFailsTheTask(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.refusing = func(r api.Report) bool { return r.Status == api.TaskCompleted }
		start(t, s, agents{"a": lasting(time.Second)})
		time.Sleep(3 * time.Second)
		if got := s.row("task-of-a"); got.Status != api.TaskFailed || got.Error != "the server refused the attempt's result" {
			t.Errorf("the task is %s: %q", got.Status, got.Error)
		}
	})
}

func TestAServerThatTakesNoMoreEventsDoesNotHoldTheAgentUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.refusing = func(r api.Report) bool { return len(r.Events) > 0 }
		start(t, s, agents{"a": func(_ context.Context, _ executor.Job, out executor.Sink) (string, error) {
			for range 5000 {
				out.Log("stdout", "a line")
			}
			return "done", nil
		}})
		time.Sleep(time.Second)
		if got := s.row("task-of-a"); got.Status != api.TaskCompleted {
			t.Errorf("the task is %s", got.Status)
		}
	})
}

func TestAWorkerWaitsForItsServerToCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.down = errors.New("connection refused")
		start(t, s, agents{"a": lasting(time.Second)})
		time.Sleep(time.Minute)
		s.set(func(s *server) { s.down = nil })
		time.Sleep(10 * time.Second)
		if got := s.row("task-of-a"); got.Status != api.TaskCompleted || s.count(&s.registered) != 1 {
			t.Errorf("the task is %s, registered %d times", got.Status, s.count(&s.registered))
		}
	})
}

func TestAWorkerThatIsRefusedEnds(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.down = fmt.Errorf("worker credential: %w", worker.ErrRefused)
	w := worker.New(worker.Config{ID: "w1", Server: s, Executors: agents{}, Log: slog.New(slog.DiscardHandler)})
	if err := w.Run(t.Context()); !errors.Is(err, worker.ErrRefused) || !strings.Contains(err.Error(), "register worker w1") {
		t.Errorf("Run returned %v", err)
	}
}

// words shows events as one line each.
func words(events []api.ReportEvent) []string {
	var lines []string
	for _, e := range events {
		line := string(e.Type) + " " + e.Message
		if e.Data != nil {
			line += " " + string(e.Data)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestAnAgentThatSaysNothingForTooLongFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		quiet, busy := task("quiet"), task("busy")
		quiet.SilenceSeconds, busy.SilenceSeconds = 10, 10
		s := newServer(quiet, busy)
		start(t, s, agents{
			"quiet": untilStopped,
			"busy": func(ctx context.Context, _ executor.Job, sink executor.Sink) (string, error) {
				for range 9 {
					time.Sleep(8 * time.Second)
					sink.Log("", "still here")
				}
				return "done", ctx.Err()
			},
		})
		time.Sleep(2 * time.Minute)
		if got := s.row("task-of-quiet"); got.Status != api.TaskFailed || got.Error != "said nothing for 10 s" || got.reports[len(got.reports)-1].Reason != "silent" {
			t.Errorf("the quiet one: %s %q", got.Status, got.Error)
		}
		if got := s.row("task-of-busy"); got.Status != api.TaskCompleted {
			t.Errorf("the busy one: %s %q", got.Status, got.Error)
		}
	})
}
