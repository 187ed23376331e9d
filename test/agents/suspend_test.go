package agents_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/acp-go-sdk"

	"github.com/coderclaw/runtime/api"
)

// TestMain makes the test binary an agent when its first argument is "agent".
func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != "agent" {
		os.Exit(m.Run())
	}
	switch os.Args[2] {
	case "acp":
		a := &careful{}
		a.conn = acp.NewAgentSideConnection(a, os.Stdout, os.Stdin)
		<-a.conn.Done()
	case "ask":
		fmt.Println(`::coderclaw {"ask": {"text": "Which branch?"}, "resume": "half done"}`)
	case "go-on":
		_, _ = io.Copy(os.Stdout, os.Stdin)
	}
}

// careful is an agent that does one thing, with leave, and that can load its
// sessions: it writes them down in the directory that it works in.
type careful struct {
	acp.Agent // does nothing else
	conn      *acp.AgentSideConnection
	loaded    bool
}

func (*careful) Initialize(context.Context, acp.InitializeRequest) (acp.InitializeResponse, error) {
	return acp.InitializeResponse{ProtocolVersion: acp.ProtocolVersionNumber, AgentCapabilities: acp.AgentCapabilities{LoadSession: true}}, nil
}

func (*careful) NewSession(_ context.Context, q acp.NewSessionRequest) (acp.NewSessionResponse, error) {
	id := fmt.Sprintf("session-%d", time.Now().UnixNano())
	return acp.NewSessionResponse{SessionId: acp.SessionId(id)}, os.WriteFile(filepath.Join(q.Cwd, id), nil, 0o600)
}

func (a *careful) LoadSession(_ context.Context, q acp.LoadSessionRequest) (acp.LoadSessionResponse, error) {
	_, err := os.Stat(filepath.Join(q.Cwd, string(q.SessionId)))
	a.loaded = err == nil
	return acp.LoadSessionResponse{}, err
}

func (*careful) Cancel(context.Context, acp.CancelNotification) error { return nil }

func (a *careful) Prompt(ctx context.Context, q acp.PromptRequest) (acp.PromptResponse, error) {
	answer, err := a.conn.RequestPermission(context.WithoutCancel(ctx), acp.RequestPermissionRequest{
		SessionId: q.SessionId,
		ToolCall:  acp.ToolCallUpdate{ToolCallId: "1", Title: acp.Ptr("Deploy it"), Kind: acp.Ptr(acp.ToolKindExecute), RawInput: map[string]any{"command": "deploy"}},
		Options: []acp.PermissionOption{
			{OptionId: "yes", Name: "Yes", Kind: acp.PermissionOptionKindAllowOnce}, {OptionId: "no", Name: "No", Kind: acp.PermissionOptionKindRejectOnce},
		},
	})
	switch {
	case err != nil:
		return acp.PromptResponse{}, err
	case answer.Outcome.Selected == nil:
		return acp.PromptResponse{StopReason: acp.StopReasonCancelled}, nil
	}
	text := fmt.Sprintf("loaded: %v, leave: %s", a.loaded, answer.Outcome.Selected.OptionId)
	err = a.conn.SessionUpdate(context.WithoutCancel(ctx), acp.SessionNotification{SessionId: q.SessionId, Update: acp.UpdateAgentMessageText(text)})
	return acp.PromptResponse{StopReason: acp.StopReasonEndTurn}, err
}

// released waits until the worker has given the task back.
func (p *place) released(task string) {
	p.t.Helper()
	p.until(task, func(api.Task) bool {
		attempts, err := p.client.Attempts(p.t.Context(), task)
		if err != nil {
			p.t.Fatal(err)
		}
		return len(attempts) > 0 && attempts[len(attempts)-1].Outcome == "released"
	})
}

func TestAWorkersOnlySlotIsFreeWhileAnAgentWaitsForAPerson(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	definitions := "agents:\n"
	for id, definition := range map[string]string{
		"careful": "executor: acp\n    process: {command: [" + self + ", agent, acp]}",
		"curious": "executor: process\n    process: {command: [" + self + ", agent, ask], resume: [" + self + ", agent, go-on]}",
		"quick":   "executor: process\n    process: {command: [echo, quick]}",
	} {
		definitions += "  - id: " + id + "\n    description: d\n    " + definition + "\n"
		if _, err := p.client.PutAgent(t.Context(), id, api.AgentDefinition{
			Name: id, Description: "d", Executor: api.ExecutorACP, Process: &api.Process{Command: []string{"nowhere"}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	start := func() (kill func()) {
		return p.workerOf("small", definitions, "CODERCLAW_MAX_CONCURRENT_TASKS=1", "CODERCLAW_WORKER_PATIENCE=100ms")
	}
	kill := start()
	p.offered("careful")
	submit := func(agent string) string {
		t.Helper()
		return strings.TrimSpace(p.clawctl("submit", "Do it", "--agent", agent))
	}
	ends := func(task, output string) {
		t.Helper()
		got := p.until(task, func(t api.Task) bool { return t.Status.Terminal() })
		if got.Status != api.TaskCompleted || strings.TrimSpace(got.Output) != output || got.Attempt != 1 {
			t.Errorf("the task is %s in attempt %d: %q %s\n%s", got.Status, got.Attempt, got.Output, got.Error, p.clawctl("tasks", "events", task))
		}
	}

	first, second := submit("careful"), submit("curious")
	approval := p.question(first, "")
	p.released(first)
	input := p.question(second, "")
	p.released(second)
	ends(submit("quick"), "quick")
	if got := p.until(first, func(api.Task) bool { return true }); got.Status != api.TaskWaiting || got.WaitingReason != api.WaitingApproval {
		t.Errorf("without a worker the task is %s %s", got.Status, got.WaitingReason)
	}
	p.clawctl("answer", approval.ID, "--approve")
	ends(first, "loaded: true, leave: yes")
	p.clawctl("answer", input.ID, "main")
	ends(second, `{"resume":"half done","status":"answered","answer":{"input":"main"}}`)

	// The worker dies after it has given the task back, and comes again.
	third := submit("careful")
	approval = p.question(third, "")
	p.released(third)
	kill()
	p.clawctl("answer", approval.ID, "--deny")
	start()
	ends(third, "loaded: true, leave: no")
}
