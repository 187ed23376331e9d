package agents_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/test/server"
)

const (
	operatorToken = "the-operators-token-of-this-test"
	patience      = time.Minute
)

// place is a server that runs nothing itself, and machines that work for it.
type place struct {
	t      *testing.T
	url    string
	bin    string
	token  string // of workers
	client *api.Client
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, bin: t.TempDir()}
	p.url = server.StartWith(t, server.Settings{Environment: []string{
		"CODERCLAW_TOKEN=" + operatorToken, "CODERCLAW_REQUIRE_AUTH=true", "CODERCLAW_MAX_CONCURRENT_TASKS=0", "CODERCLAW_WORKER_LEASE=3s",
	}})
	server.Build(t, p.bin, "clawctl")
	server.Build(t, p.bin, "coderclawd")
	var err error
	if p.client, err = api.NewClient(p.url, api.WithToken(operatorToken)); err != nil {
		t.Fatal(err)
	}
	p.token = strings.TrimSpace(p.clawctl("worker", "token"))
	return p
}

// clawctl runs a command of the operator's and returns what it prints.
func (p *place) clawctl(args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.bin, "clawctl"), args...)
	cmd.Env = []string{"HOME=" + p.bin, "CODERCLAW_URL=" + p.url, "CODERCLAW_TOKEN=" + operatorToken}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("clawctl %v: %v: %s", args, err, &errs)
	}
	return out.String()
}

// worker starts one that knows the example agent, and returns how to kill it.
func (p *place) worker(name string) (kill func()) {
	p.t.Helper()
	agent, err := filepath.Abs("../node_modules/@agentclientprotocol/sdk/dist/examples/agent.js")
	if err != nil {
		p.t.Fatal(err)
	}
	definition := "agents:\n  - id: example\n    name: Example\n    description: asks for leave\n    executor: acp\n    process: {command: [node, " + agent + "]}\n"
	return p.workerOf(name, definition)
}

// workerOf starts one that knows the agents of the definition, with what is left
// of a former one of that name.
func (p *place) workerOf(name, definition string, environment ...string) (kill func()) {
	p.t.Helper()
	config, workspace := filepath.Join(p.bin, name), filepath.Join(p.bin, name, "workspace")
	if err := os.MkdirAll(workspace, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "agents.yaml"), []byte(definition), 0o644); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(p.bin, "coderclawd"), "worker", "--url", p.url, "--name", name, "--labels", "kind=example")
	cmd.Env = append(server.Environment(), "HOME="+config, "CODERCLAW_CONFIG_DIR="+config, "CODERCLAW_DATA_DIR="+config, "CODERCLAW_WORKSPACE_ROOT="+workspace,
		"CODERCLAW_TOKEN="+p.token)
	cmd.Env = append(cmd.Env, environment...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := false
	end := func(how func() error) {
		if !ended {
			ended = true
			_ = how()
			_ = cmd.Wait()
		}
	}
	p.t.Cleanup(func() {
		end(func() error { return cmd.Process.Signal(os.Interrupt) })
		if p.t.Failed() {
			p.t.Logf("worker %s wrote:\n%s", name, &log)
		}
	})
	return func() { end(cmd.Process.Kill) }
}

// offered waits until a worker is there that runs the agent. Nothing tells of
// that.
func (p *place) offered(agent string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got, err := p.client.Agent(p.t.Context(), agent); err != nil {
			p.t.Fatal(err)
		} else if got.Available {
			return
		}
	}
	p.t.Fatalf("no worker offers agent %s", agent)
}

// until watches a task until it is as it should be.
func (p *place) until(task string, is func(api.Task) bool) api.Task {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	var got api.Task
	for _, err := range p.client.WatchTask(ctx, task, api.WatchOptions{}) {
		if err != nil {
			break
		}
		if got, err = p.client.Task(p.t.Context(), task); err != nil {
			p.t.Fatal(err)
		}
		if is(got) {
			return got
		}
	}
	p.t.Fatalf("the task stays %s %s: %s", got.Status, got.WaitingReason, p.clawctl("tasks", "events", task))
	return got
}

// question waits until the task asks something other than before.
func (p *place) question(task, before string) (asked api.Question) {
	p.t.Helper()
	p.until(task, func(api.Task) bool {
		var list api.QuestionList
		if err := json.Unmarshal([]byte(p.clawctl("approvals", "-o", "json")), &list); err != nil {
			p.t.Fatal(err)
		}
		i := slices.IndexFunc(list.Items, func(q api.Question) bool { return q.TaskID == task && q.ID != before })
		if i >= 0 {
			asked = list.Items[i]
		}
		return i >= 0
	})
	return asked
}

func TestAnAgentOnAnotherMachineIsAnsweredAndFinishes(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	// The server learns of the agent by its definition, which is the worker's own
	// where the worker has one.
	if _, err := p.client.PutAgent(t.Context(), "example", api.AgentDefinition{
		Name: "Example", Description: "asks for leave", Executor: api.ExecutorACP, Process: &api.Process{Command: []string{"nowhere"}},
	}); err != nil {
		t.Fatal(err)
	}
	first := p.worker("first")
	submit := func() string {
		t.Helper()
		p.offered("example")
		return strings.TrimSpace(p.clawctl("submit", "Improve the project", "--agent", "example", "--requires", "kind=example"))
	}
	finished := func(task, output string) {
		t.Helper()
		got := p.until(task, func(t api.Task) bool { return t.Status.Terminal() })
		if got.Status != api.TaskCompleted || !strings.HasSuffix(got.Output, output) {
			t.Errorf("the task is %s: %s%s\n%s", got.Status, got.Output, got.Error, p.clawctl("tasks", "events", task))
		}
	}

	task := submit()
	q := p.question(task, "")
	if got, err := p.client.Task(t.Context(), task); err != nil || got.Status != api.TaskWaiting || got.WaitingReason != api.WaitingApproval || q.Kind != api.QuestionApproval || q.Tool == nil {
		t.Errorf("while it waits: %s %s, %+v, %v", got.Status, got.WaitingReason, q, err)
	}
	p.clawctl("answer", task, "--approve", "--reason", "go on")
	finished(task, "The changes have been applied.")

	task = submit()
	p.clawctl("answer", p.question(task, "").ID, "--deny")
	finished(task, "I'll skip the configuration update.")

	// The worker dies while it waits for a person. Another one asks again.
	task = submit()
	before := p.question(task, "").ID
	first()
	p.worker("second")
	p.clawctl("answer", p.question(task, before).ID, "--approve")
	finished(task, "The changes have been applied.")
	attempts, err := p.client.Attempts(t.Context(), task)
	if err != nil || len(attempts) != 2 || attempts[0].Outcome != "worker-lost" || attempts[1].WorkerID != "second" {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
}
