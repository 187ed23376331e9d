package app_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// spenders are agents that use more than a little. The second does its work if
// it may.
const spenders = `agents:
  - id: spender
    description: uses tokens and goes on
    executor: process
    process:
      command: [sh, -c, 'echo "::coderclaw {\"usage\": {\"tokens\": 11}}"; sleep 600; : MARKER']
      input: none
  - id: worker
    description: uses tokens and ends
    executor: process
    process:
      command: [sh, -c, 'echo "::coderclaw {\"usage\": {\"tokens\": $((16 - 5 * CODERCLAW_ATTEMPT))}}"; sleep 2; echo the result; : MARKER']
      input: none
`

func TestAProcessThatUsesMoreThanItsBudgetIsStopped(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	marker := uuid.NewString()
	in := newInstallation(t, "CODERCLAW_DATABASE_URL="+pgtest.EmptyURL(t))
	in.config("agents.yaml", strings.ReplaceAll(spenders, "MARKER", marker))
	in.serving("serve")
	c := in.client()
	submitted, err := c.SubmitTask(ctx, api.NewTask{Description: "d", AgentID: "spender", Budget: &api.Budget{MaxTokens: 10}, MaxAttempts: 3})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range c.WatchTask(ctx, submitted.ID, api.WatchOptions{After: new(int64)}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Status.Terminal() {
			break
		}
	}
	got, err := c.Task(ctx, submitted.ID)
	if err != nil || got.Status != api.TaskFailed || got.StatusReason != "budget-exceeded" || got.Usage == nil || got.Usage.Tokens != 11 || got.Attempt != 1 {
		t.Errorf("the task is %s for %q, used %+v: %v", got.Status, got.StatusReason, got.Usage, err)
	}
	for len(running(t, marker)) > 0 {
		select {
		case <-ctx.Done():
			t.Fatal("its agent goes on")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAHeldProcessGoesOnWhenItsBudgetIsRaisedThroughAKilledServer(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	in := newInstallation(t, "CODERCLAW_DATABASE_URL="+pgtest.EmptyURL(t), "CODERCLAW_WORKER_LEASE=2s")
	in.config("agents.yaml", spenders)
	server := in.serving("serve")
	c := in.client()
	submitted, err := c.SubmitTask(ctx, api.NewTask{Description: "d", AgentID: "worker", Budget: &api.Budget{MaxTokens: 10, OnExceeded: api.AskExceeded}})
	if err != nil {
		t.Fatal(err)
	}
	seen := new(int64)
	asked := func() api.Question {
		t.Helper()
		for e, err := range c.WatchTask(ctx, submitted.ID, api.WatchOptions{After: seen}) {
			if err != nil {
				t.Fatal(err)
			}
			if *seen = e.Seq; e.Type == api.EventQuestion && strings.Contains(string(e.Data), `"status":"open"`) {
				break
			}
		}
		for q, err := range c.Questions(ctx, api.QuestionFilter{TaskID: submitted.ID}) {
			if err != nil {
				t.Fatal(err)
			}
			return q
		}
		t.Fatal("nothing is asked")
		return api.Question{}
	}
	first := asked()
	if b := first.Budget; b == nil || *b != (api.BudgetStanding{Scope: "task", Unit: "tokens", Used: 11, Limit: 10}) {
		t.Errorf("asked about %+v", first.Budget)
	}
	if err := server.stop(t, os.Kill); err == nil {
		t.Fatal("the server was not killed")
	}
	in.serving("serve")
	second := asked()
	if second.ID == first.ID {
		t.Error("what the first attempt asked is still open")
	}
	if _, err := c.AnswerQuestion(ctx, second.ID, api.Answer{Approve: new(true)}); err != nil {
		t.Fatal(err)
	}
	for e, err := range c.WatchTask(ctx, submitted.ID, api.WatchOptions{After: seen}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Status.Terminal() {
			break
		}
	}
	got, err := c.Task(ctx, submitted.ID)
	if err != nil || got.Status != api.TaskCompleted || got.Output != "the result\n" || got.Usage == nil || got.Usage.Tokens != 17 {
		t.Errorf("the task is %s for %q, output %q, used %+v: %v", got.Status, got.StatusReason, got.Output, got.Usage, err)
	}
}
