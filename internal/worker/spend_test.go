package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// Use keeps what is used, of whatever source. What is above the budget holds
// the task by a question, and nothing does once that is approved.
func (s *server) Use(ctx context.Context, id, token string, u api.UsageReport) (api.UsageAnswer, error) {
	if err := s.reach(ctx); err != nil {
		return api.UsageAnswer{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	if !s.holds(id, token) {
		return api.UsageAnswer{}, fmt.Errorf("task %s: %w", id, worker.ErrLeaseLost)
	}
	s.uses = append(s.uses, u)
	if s.loseUses > 0 {
		s.loseUses--
		return api.UsageAnswer{}, errors.New("connection reset by peer")
	}
	tokens := int64(0)
	for _, used := range u.Usage {
		tokens += used.Tokens
	}
	approved := len(s.questions) > 0 && s.questions[0].Status == api.QuestionApproved
	at := s.tasks[slices.IndexFunc(s.tasks, func(t *row) bool { return t.ID == id })]
	if approved {
		at.Status = api.TaskRunning
	}
	if s.budget == 0 || tokens <= s.budget || u.Final || approved {
		return api.UsageAnswer{}, nil
	}
	if len(s.questions) == 0 {
		at.Status = api.TaskWaiting
		s.questions = append(s.questions, api.Question{ID: "q", TaskID: id, Kind: api.QuestionApproval, Status: api.QuestionOpen})
		s.tell()
	}
	return api.UsageAnswer{QuestionID: "q"}, nil
}

func tokens(n int64) api.Usage { return api.Usage{Tokens: n} }

func TestUseIsToldInTotalsAtMostOnceASecondAndTheLastWithTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.loseUses = 2
		last := whileAsking(t, s, func(_ context.Context, out executor.Sink) {
			for i := range int64(50) {
				out.Used("", tokens(i))
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			out.Used("session", tokens(7))
		})
		if last.Status != api.TaskCompleted {
			t.Errorf("the task is %s", last.Status)
		}
		if n := len(s.uses); n < 6 || n > 10 {
			t.Errorf("%d reports in 5 s", n)
		}
		end := s.uses[len(s.uses)-1]
		total := map[string]int64{}
		for _, u := range end.Usage {
			total[u.Source] = u.Tokens
		}
		if !end.Final || fmt.Sprint(total) != "map[:49 session:7]" {
			t.Errorf("told at the end: %+v", end)
		}
		if s.uses[len(s.uses)-2].Final {
			t.Error("the end is told twice")
		}
	})
}

func TestAnAgentThatTellsNothingCostsNoCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		whileAsking(t, s, func(_ context.Context, out executor.Sink) { out.Log("", "x"); time.Sleep(time.Minute) })
		if len(s.uses) != 0 {
			t.Errorf("told %+v", s.uses)
		}
	})
}

func TestAnAgentIsHeldUntilTheBudgetIsRaised(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		due := task("a")
		due.SilenceSeconds = 60 // those in which it is held do not count
		s := newServer(due)
		s.budget = 10
		go func() {
			time.Sleep(5 * time.Hour)
			s.answer(0, api.QuestionApproved, api.Answer{Approve: new(true)})
		}()
		var stopped, resumed time.Time
		began := time.Now()
		last := whileAsking(t, s, func(_ context.Context, out executor.Sink) {
			defer out.Hold(func() { stopped = time.Now() }, func() { resumed = time.Now() })()
			out.Used("", tokens(11))
			time.Sleep(time.Second)
			if !out.Held() {
				t.Error("the agent is not held")
			}
			out.Log("", "said when it may go on")
			if time.Since(began) < 5*time.Hour {
				t.Error("what a held agent says does not wait")
			}
			if out.Held() {
				t.Error("the agent is still held")
			}
		})
		if stopped.Sub(began) > time.Second || resumed.Sub(began) < 5*time.Hour || last.Status != api.TaskCompleted {
			t.Errorf("stopped after %v, went on after %v, and is %s", stopped.Sub(began), resumed.Sub(began), last.Status)
		}
	})
}

func TestAHeldAgentEndsWithItsTask(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.budget = 10
		go func() {
			time.Sleep(time.Hour)
			s.cancel("task-of-a") // as when nobody raises the budget
		}()
		ended := make(chan error, 1)
		whileAsking(t, s, func(ctx context.Context, out executor.Sink) {
			out.Used("", tokens(11))
			time.Sleep(time.Second)
			out.Log("", "x")
			ended <- ctx.Err()
		})
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnAgentThatEndsWhileItIsHeldHasItsResultKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.budget = 10
		last := whileAsking(t, s, func(_ context.Context, out executor.Sink) {
			out.Used("", tokens(11))
			time.Sleep(time.Second) // it could not be stopped
		})
		if last.Status != api.TaskCompleted {
			t.Errorf("the task is %s %s", last.Status, last.Error)
		}
	})
}

func TestAnAttemptAfterOneThatUsedSomethingAsksBeforeItBegins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		due := task("a")
		due.Usage = &api.Usage{Tokens: 5}
		s := newServer(due)
		var asked int
		whileAsking(t, s, func(context.Context, executor.Sink) { asked = len(s.uses) })
		if asked != 1 || len(s.uses) != 1 || len(s.uses[0].Usage) != 0 {
			t.Errorf("told %+v, %d before it began", s.uses, asked)
		}
	})
}
