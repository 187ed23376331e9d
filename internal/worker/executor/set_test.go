package executor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

func TestWhatIsConfiguredCanRun(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	bare, err := executor.NewSet(executor.Options{WorkspaceRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	model, err := executor.NewSet(executor.Options{WorkspaceRoot: root, LLM: executor.OpenAIOptions{BaseURL: "http://127.0.0.1:1/v1", Model: "small"}})
	if err != nil {
		t.Fatal(err)
	}
	nameless, err := executor.NewSet(executor.Options{WorkspaceRoot: root, LLM: executor.OpenAIOptions{BaseURL: "http://127.0.0.1:1/v1"}})
	if err != nil {
		t.Fatal(err)
	}
	program := &api.Process{Command: []string{os.Args[0]}}
	for name, c := range map[string]struct {
		set   *executor.Set
		agent api.Agent
		want  string // what is missing
		kind  executor.Executor
	}{
		"the survey":              {bare, api.Agent{ID: "codebase-survey", Executor: api.ExecutorBuiltin}, "", &executor.Builtin{}},
		"no other builtin":        {bare, api.Agent{ID: "x", Executor: api.ExecutorBuiltin}, "agent x has executor builtin, which runs only architecture-advisor and codebase-survey", nil},
		"a model agent with one":  {model, api.Agent{ID: "x", Executor: api.ExecutorOpenAI}, "", &executor.OpenAI{}},
		"one with its own model":  {nameless, api.Agent{ID: "x", Executor: api.ExecutorOpenAI, Model: "large"}, "", &executor.OpenAI{}},
		"one without any":         {nameless, api.Agent{ID: "x", Executor: api.ExecutorOpenAI}, "agent x needs the name of a model: set CODERCLAW_LLM_MODEL, or model in agents.yaml", nil},
		"one without an endpoint": {bare, api.Agent{ID: "code-creator", Executor: api.ExecutorOpenAI}, "agent code-creator needs a model: set CODERCLAW_LLM_BASE_URL and CODERCLAW_LLM_MODEL, or CODERCLAW_ACP_COMMAND, or define it in agents.yaml with executor process or acp", nil},
		"the advisor without one": {bare, api.Agent{ID: "architecture-advisor", Executor: api.ExecutorOpenAI}, "", &executor.Builtin{}},
		"the advisor with one":    {model, api.Agent{ID: "architecture-advisor", Executor: api.ExecutorOpenAI}, "", &executor.OpenAI{}},
		"a program":               {bare, api.Agent{ID: "x", Executor: api.ExecutorProcess, Process: program}, "", &executor.Process{}},
		"a missing program":       {bare, api.Agent{ID: "x", Executor: api.ExecutorProcess, Process: &api.Process{Command: []string{"no-such-program"}}}, `agent x needs the program "no-such-program", which is not there or not executable`, nil},
		"no program":              {bare, api.Agent{ID: "x", Executor: api.ExecutorProcess}, "agent x has executor process and no command", nil},
		"a wrong input":           {bare, api.Agent{ID: "x", Executor: api.ExecutorProcess, Process: &api.Process{Command: program.Command, Input: "pigeon"}}, `agent x: process.input "pigeon" is none of stdin, argument, none`, nil},
		"a service":               {bare, api.Agent{ID: "x", Executor: api.ExecutorHTTP, HTTP: &api.HTTP{URL: "https://agent.example"}}, "", &executor.HTTP{}},
		"another executor":        {bare, api.Agent{ID: "x", Executor: "magic"}, `agent x: executor "magic" is none of process, acp, http, openai, builtin`, nil},
		"an ACP agent":            {bare, api.Agent{ID: "x", Executor: api.ExecutorACP, Process: program}, "", &executor.ACP{}},
	} {
		err := c.set.Runnable(c.agent)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if exec, _ := c.set.For(c.agent); c.kind != nil && fmt.Sprintf("%T", executor.Inner(exec)) != fmt.Sprintf("%T", c.kind) {
			t.Errorf("%s: run by %T, want %T", name, exec, c.kind)
		}
	}
}

func TestASetNeedsAnAddressThatIsOne(t *testing.T) {
	t.Parallel()
	if _, err := executor.NewSet(executor.Options{LLM: executor.OpenAIOptions{BaseURL: "model"}}); err == nil {
		t.Error("an endpoint without an address was taken")
	}
}

func TestTheSurveyRunsWhereTheTaskSays(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, content := range map[string]string{"one/a.go": "package a\n", "two/b.py": "x = 1\n"} {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := executor.NewBuiltin(root)
	run := func(agent, metadata string) (string, []string, error) {
		l := newListener()
		j := executor.Job{Agent: api.Agent{ID: agent}, Task: api.Task{Description: "Analyze project architecture", Input: "Review the structure"}}
		if metadata != "" {
			j.Task.Metadata = json.RawMessage(metadata)
		}
		text, err := b.Run(t.Context(), j, l)
		return text, l.all(), err
	}

	text, said, err := run("codebase-survey", `{"path": "one"}`)
	if err != nil || !strings.HasPrefix(text, "# Survey of one\n") || !strings.Contains(text, "> Review the structure\n") || strings.Contains(text, "Python") || strings.Contains(text, "No model") {
		t.Errorf("%v\n%s", err, text)
	}
	if len(said) < 3 || said[len(said)-1] != "100% report written" {
		t.Errorf("said %q", said)
	}
	text, _, err = run("architecture-advisor", "")
	if err != nil || !strings.Contains(text, "No model is configured") || !strings.Contains(text, "Python") || !strings.Contains(text, "Go") {
		t.Errorf("%v\n%s", err, text)
	}
	for metadata, want := range map[string]string{
		`{"path": "three"}`: `the workspace has no directory "three"`,
		`{"path": "../"}`:   `the directory "../" is outside the workspace`,
		`{"path": []}`:      "metadata.path must be a string",
	} {
		_, _, err := run("codebase-survey", metadata)
		if f := failure(t, err); f.Message != want {
			t.Errorf("%s: %+v, want %q", metadata, f, want)
		}
	}
}

func TestAWorkspaceThatIsGoneIsNoFaultOfTheTask(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "gone")
	_, err := executor.NewBuiltin(root).Run(t.Context(), executor.Job{Agent: api.Agent{ID: "codebase-survey"}}, newListener())
	var f *executor.Failure
	if !errors.Is(err, os.ErrNotExist) || errors.As(err, &f) {
		t.Errorf("ended with %v", err)
	}
}
