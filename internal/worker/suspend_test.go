package worker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// curious is an agent that asks and can go on later from state.
func curious(state string) run {
	return func(ctx context.Context, j executor.Job, out executor.Sink) (string, error) {
		if j.Resume != nil {
			return j.Resume.State + " " + string(j.Resume.Outcomes[0].Status), nil
		}
		out.Resumable(func() string { return state })
		q, err := out.Ask(ctx, api.NewQuestion{Kind: api.QuestionInput, Text: "Which?"})
		return string(q.Status), err
	}
}

func TestAnAgentThatOnlyWaitsForAPersonGivesItsSlotToOthersAndGoesOnLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		start(t, s, agents{"a": curious("page 7"), "b": lasting(time.Second)}, func(c *worker.Config) { c.Capacity = 1 })
		time.Sleep(29 * time.Second)
		s.add(task("b"))
		if got := s.row("task-of-a"); got.token == "" {
			t.Fatalf("before its patience ends the task is %s", got.Status)
		}
		time.Sleep(3 * time.Second)
		if got := s.row("task-of-b"); got.Status != api.TaskCompleted {
			t.Errorf("while the first waits the second is %s", got.Status)
		}
		s.answer(0, api.QuestionAnswered, api.Answer{Input: "x"})
		time.Sleep(time.Second)
		got := s.row("task-of-a")
		if got.Status != api.TaskCompleted || got.Output != "page 7 answered" {
			t.Errorf("the first is %s with %q after %v", got.Status, got.Output, got.history)
		}
	})
}

func TestAnAnswerThatComesSoonCostsNoRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		start(t, s, agents{"a": curious("page 7")})
		time.Sleep(29 * time.Second)
		s.answer(0, api.QuestionAnswered, api.Answer{Input: "x"})
		time.Sleep(time.Minute)
		if got := s.row("task-of-a"); got.Output != "answered" || slices.ContainsFunc(got.history, isRelease) {
			t.Errorf("%q after %v", got.Output, got.history)
		}
	})
}

func isRelease(line string) bool { return strings.HasPrefix(line, "released") }

func TestASlotIsKeptByAnAgentThatCannotGoOnLaterOrDoesMoreThanWait(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(context.Context, executor.Sink){
		"one that cannot":     func(context.Context, executor.Sink) {},
		"one that cannot now": func(_ context.Context, out executor.Sink) { out.Resumable(func() string { return "" }) },
		"one with too much to recall": func(_ context.Context, out executor.Sink) {
			out.Resumable(func() string { return strings.Repeat("x", 20<<10) })
		},
		"one that works meanwhile": func(ctx context.Context, out executor.Sink) {
			out.Resumable(func() string { return "x" })
			go func() {
				for ctx.Err() == nil {
					out.Log("", "still at it")
					pause(ctx, 20*time.Second)
				}
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(task("a"))
				start(t, s, agents{"a": func(ctx context.Context, _ executor.Job, out executor.Sink) (string, error) {
					ctx, cancel := context.WithCancel(ctx)
					defer cancel()
					prepare(ctx, out)
					q, err := out.Ask(ctx, api.NewQuestion{Kind: api.QuestionInput, Text: "Which?"})
					return string(q.Status), err
				}})
				time.Sleep(10 * time.Minute)
				s.answer(0, api.QuestionAnswered, api.Answer{Input: "x"})
				time.Sleep(time.Second)
				if got := s.row("task-of-a"); got.Output != "answered" || slices.ContainsFunc(got.history, isRelease) {
					t.Errorf("%q after %v", got.Output, got.history)
				}
			})
		})
	}
}

func TestAWorkerThatStopsLeavesTasksThatWaitForPeopleToGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		stop := start(t, s, agents{"a": curious("page 7")}, func(c *worker.Config) { c.Grace = time.Second; c.Patience = time.Hour })
		time.Sleep(time.Minute)
		stop()
		got := s.row("task-of-a")
		last := got.reports[len(got.reports)-1]
		if last.Resume == nil || last.Resume.State != "page 7" || len(last.Resume.Questions) != 1 || last.Resume.Questions[0] != s.questions[0].ID {
			t.Errorf("it leaves %+v", last.Report)
		}
	})
}

func TestAnAgentThatMisbehavesWhenItIsSuspendedGoesOnAllTheSame(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		output string
		err    error
	}{"says that it is done": {"done", nil}, "fails": {"", &executor.Failure{Message: "interrupted"}}, "breaks": {"", errors.New("broken pipe")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(task("a"))
				start(t, s, agents{"a": func(ctx context.Context, j executor.Job, out executor.Sink) (string, error) {
					if j.Resume != nil {
						return "at last", nil
					}
					out.Resumable(func() string { return "x" })
					_, _ = out.Ask(ctx, api.NewQuestion{Kind: api.QuestionInput, Text: "Which?"})
					return end.output, end.err
				}})
				time.Sleep(time.Minute)
				s.answer(0, api.QuestionAnswered, api.Answer{Input: "x"})
				time.Sleep(time.Second)
				if got := s.row("task-of-a"); got.Status != api.TaskCompleted || got.Output != "at last" {
					t.Errorf("the task is %s with %q after %v", got.Status, got.Output, got.history)
				}
			})
		})
	}
}

func TestAnAnswerThatComesWhileTheAgentIsBeingStoppedIsHeardLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		start(t, s, agents{"a": func(ctx context.Context, j executor.Job, out executor.Sink) (string, error) {
			if j.Resume != nil {
				return "heard " + j.Resume.Outcomes[0].Answer.Input, nil
			}
			out.Resumable(func() string { return "x" })
			_, err := out.Ask(ctx, api.NewQuestion{Kind: api.QuestionInput, Text: "Which?"})
			s.answer(0, api.QuestionAnswered, api.Answer{Input: "it"})
			time.Sleep(3 * time.Second) // it takes its time to stop
			return "", err
		}})
		time.Sleep(time.Minute)
		if got := s.row("task-of-a"); got.Output != "heard it" {
			t.Errorf("the task is %s with %q after %v", got.Status, got.Output, got.history)
		}
	})
}

func TestATaskThatTheServerWillNotSuspendIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		s.refusing = func(r api.Report) bool { return r.Resume != nil }
		start(t, s, agents{"a": curious("x")})
		time.Sleep(31 * time.Second)
		if got := s.row("task-of-a"); !slices.ContainsFunc(got.history, isRelease) {
			t.Errorf("history is %v", got.history)
		}
	})
}
