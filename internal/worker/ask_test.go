package worker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// whileAsking runs an agent, which asks, until its task is no longer at work.
func whileAsking(t *testing.T, s *server, ask func(context.Context, executor.Sink)) row {
	t.Helper()
	stop := start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, out executor.Sink) (string, error) {
		ask(ctx, out)
		return "", ctx.Err()
	}})
	for !s.row("task-of-a").Status.Terminal() {
		time.Sleep(time.Second)
	}
	stop()
	return s.row("task-of-a")
}

func TestAnAgentGetsItsAnswerHoweverLongItTakesAndOverLostConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.loseAnswers = 3
		go func() {
			time.Sleep(26 * time.Hour)
			s.set(func(s *server) { s.down = errors.New("connection refused") })
			time.Sleep(5 * time.Second)
			s.set(func(s *server) { s.down = nil })
			s.answer(0, api.QuestionAnswered, api.Answer{Input: "main"})
		}()
		var got api.Question
		last := whileAsking(t, s, func(ctx context.Context, out executor.Sink) {
			var err error
			if got, err = out.Ask(ctx, api.NewQuestion{Kind: api.QuestionInput, Text: "Which branch?"}); err != nil {
				t.Error(err)
			}
		})
		if got.Answer == nil || got.Answer.Input != "main" || last.Status != api.TaskCompleted {
			t.Errorf("the agent hears %+v, the task is %s", got, last.Status)
		}
		if len(s.questions) != 1 || s.asked != 4 {
			t.Errorf("%d questions by %d calls, want 1 by 4", len(s.questions), s.asked)
		}
	})
}

func TestAskingEndsWithTheAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		asked := make(chan error, 1)
		go func() {
			time.Sleep(time.Minute)
			s.cancel("task-of-a")
		}()
		whileAsking(t, s, func(_ context.Context, out executor.Sink) {
			_, err := out.Ask(context.Background(), api.NewQuestion{Kind: api.QuestionInput, Text: "x"})
			asked <- err
		})
		if err := <-asked; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAQuestionThatTheAgentGivesUpIsWithdrawnByGoingOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.waitWhenAsked = true
		last := whileAsking(t, s, func(ctx context.Context, out executor.Sink) {
			brief, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if _, err := out.Ask(brief, api.NewQuestion{Kind: api.QuestionInput, Text: "x"}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		if last.Status != api.TaskCompleted {
			t.Errorf("the task is %s", last.Status)
		}
	})
}

func TestASkillIsUsedOnlyIfItIsAllowedOrApproved(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		skill   string
		outcome api.QuestionStatus
		answer  api.Answer
		allowed bool
		reason  string
	}{
		{"safe", "", api.Answer{}, true, "role developer grants it"},
		{"forbidden", "", api.Answer{}, false, "skill forbidden is denied"},
		{"dangerous", api.QuestionApproved, api.Answer{}, true, "approved by bob"},
		{"dangerous", api.QuestionDenied, api.Answer{Reason: "not today"}, false, "denied by bob: not today"},
		{"dangerous", api.QuestionExpired, api.Answer{}, false, "expired"},
	} {
		t.Run(c.skill+" "+string(c.outcome), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(task("a"))
				if c.outcome != "" {
					go s.answer(0, c.outcome, c.answer)
				}
				whileAsking(t, s, func(ctx context.Context, out executor.Sink) {
					allowed, reason, err := out.Authorize(ctx, c.skill, api.ToolCall{Name: "shell"})
					if allowed != c.allowed || reason != c.reason || err != nil {
						t.Errorf("%v %q %v", allowed, reason, err)
					}
				})
			})
		})
	}
}
