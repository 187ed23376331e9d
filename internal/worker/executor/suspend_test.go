package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// suspend runs a job until it asks, and suspends it then. It returns what the job
// goes on from, and what it asked.
func suspend(t *testing.T, exec executor.Executor, j executor.Job) (state string, asked api.NewQuestion) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	l := newListener()
	l.person = func(ctx context.Context, q api.NewQuestion) (api.Question, error) {
		asked = q
		cancel(executor.ErrSuspended)
		<-ctx.Done()
		return api.Question{}, ctx.Err()
	}
	_, err := exec.Run(ctx, j, l)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("the suspended attempt ended with %v, said %q", err, l.all())
	}
	if l.state == nil {
		t.Fatalf("it cannot go on: said %q", l.all())
	}
	return l.state(), asked
}

// resume goes on with a job by the outcome of what it had asked.
func resume(t *testing.T, exec executor.Executor, j executor.Job, state string, outcomes ...api.Question) (output string, l *listener) {
	t.Helper()
	j.Resume = &executor.Resume{State: state, Outcomes: outcomes}
	l = newListener()
	l.person = func(_ context.Context, q api.NewQuestion) (api.Question, error) {
		l.add("asked %s", q.Tool.Input)
		return api.Question{Status: api.QuestionDenied}, nil
	}
	output, err := exec.Run(t.Context(), j, l)
	if err != nil {
		t.Fatalf("the attempt that goes on ended with %v, said %q", err, l.all())
	}
	return output, l
}

// decided is what has become of a question, as the server tells it.
func decided(q api.NewQuestion, status api.QuestionStatus) api.Question {
	var tool *api.ToolCall
	if q.Tool != nil { // in another spelling
		var input any
		d := json.NewDecoder(strings.NewReader(string(q.Tool.Input)))
		d.UseNumber()
		_ = d.Decode(&input)
		text, _ := json.MarshalIndent(input, "", "  ")
		tool = &api.ToolCall{Name: q.Tool.Name, Title: q.Tool.Title, Input: text}
	}
	return api.Question{ID: q.ID, Kind: q.Kind, Text: q.Text, Tool: tool, Risk: q.Risk, SkillID: q.SkillID, Status: status}
}

func TestASuspendedACPAgentHearsWhatWasDecidedOfTheVerySameRequestAndOfNoOther(t *testing.T) {
	t.Parallel()
	exec := executor.NewACP(t.TempDir(), "", 0)
	state, asked := suspend(t, exec, acpJob("careful", "one"))
	changed := func(change func(*api.Question)) api.Question {
		q := decided(asked, api.QuestionApproved)
		change(&q)
		return q
	}
	for name, c := range map[string]struct {
		outcome api.Question
		want    string // what the agent hears
		asked   bool   // whether a person is asked again
	}{
		"approved": {decided(asked, api.QuestionApproved), "session/load one=yes ", false},
		"denied":   {decided(asked, api.QuestionDenied), "session/load one=no ", false},
		"expired":  {decided(asked, api.QuestionExpired), "session/load one=no ", false},
		"another command": {changed(func(q *api.Question) {
			q.Tool.Input = json.RawMessage(`{"input":{"command":"two","n":12345678901234567}}`)
		}), "session/load one=no ", true},
		"another number": {changed(func(q *api.Question) {
			q.Tool.Input = json.RawMessage(`{"input":{"command":"one","n":12345678901234568}}`)
		}), "session/load one=no ", true},
		"another tool":  {changed(func(q *api.Question) { q.Tool.Name = "edit" }), "session/load one=no ", true},
		"another title": {changed(func(q *api.Question) { q.Tool.Title = "Run" }), "session/load one=no ", true},
		"no tool":       {changed(func(q *api.Question) { q.Tool = nil }), "session/load one=no ", true},
	} {
		output, l := resume(t, exec, acpJob("careful", "one"), state, c.outcome)
		asked := slices.ContainsFunc(l.all(), func(s string) bool { return strings.HasPrefix(s, "asked ") })
		if output != c.want || asked != c.asked {
			t.Errorf("%s: the agent hears %q, want %q; a person was asked again: %v", name, output, c.want, asked)
		}
	}
	state, asked = suspend(t, exec, acpJob("careful", "one", "one"))
	output, _ := resume(t, exec, acpJob("careful", "one", "one"), state, decided(asked, api.QuestionApproved))
	if output != "session/load one=yes one=no " {
		t.Errorf("asking twice, the agent hears %q of one approval", output)
	}
}

func TestAnACPAgentThatDoesNotKnowItsSessionAnyMoreIsAllowedNothingBeforehand(t *testing.T) {
	t.Parallel()
	exec := executor.NewACP(t.TempDir(), "", 0)
	_, asked := suspend(t, exec, acpJob("careful", "one"))
	for name, state := range map[string]string{"of another place": `{"agent":"a","session":"the-session","directory":"/"}`, "garbage": "?"} {
		output, l := resume(t, exec, acpJob("careful", "one"), state, decided(asked, api.QuestionApproved))
		if strings.Contains(output, "yes") || !slices.Contains(l.all(), "note: the agent cannot continue its session and begins anew") {
			t.Errorf("%s: the agent hears %q, said %q", name, output, l.all())
		}
	}
}

func TestAProgramAsksEndsAndGoesOnWithTheAnswer(t *testing.T) {
	t.Parallel()
	const line = `::coderclaw {"ask": {"text": "Which branch?", "choices": [{"id": "main", "label": "Main"}]}, "resume": "step 2"}`
	j := job("report", "first words", line)
	j.Agent.Process.Resume = []string{os.Args[0], "agent", "stdin"}
	exec := executor.NewProcess(t.TempDir(), 0)

	l := newListener()
	l.person = func(_ context.Context, q api.NewQuestion) (api.Question, error) {
		if q.Kind != api.QuestionInput || q.Text != "Which branch?" || len(q.Choices) != 1 {
			t.Errorf("asked %+v", q)
		}
		return api.Question{Status: api.QuestionAnswered, Answer: &api.Answer{Input: "main"}}, nil
	}
	output, err := exec.Run(t.Context(), j, l)
	if want := `{"resume":"step 2","status":"answered","answer":{"input":"main"}}` + "\n"; err != nil || output != want {
		t.Errorf("answered at once it goes on with %q, %v", output, err)
	}

	state, asked := suspend(t, exec, j)
	outcome := decided(asked, api.QuestionAnswered)
	outcome.Answer = &api.Answer{Input: "main"}
	if output, _ := resume(t, exec, j, state, outcome); output != `{"resume":"step 2","status":"answered","answer":{"input":"main"}}`+"\n" {
		t.Errorf("suspended it goes on with %q", output)
	}
	if output, _ := resume(t, exec, j, state, decided(asked, api.QuestionExpired)); output != `{"resume":"step 2","status":"expired"}`+"\n" {
		t.Errorf("without an answer it goes on with %q", output)
	}
}

func TestWhatAProgramUsesIsAddedToWhatItUsedBeforeItAsked(t *testing.T) {
	t.Parallel()
	j := job("report", `::coderclaw {"usage": {"tokens": 5, "toolCalls": 1, "cost": 0.25}}`, `::coderclaw {"ask": {"text": "On?"}}`)
	j.Agent.Process.Resume = []string{os.Args[0], "agent", "report", `::coderclaw {"usage": {"tokens": 2, "cost": 0.5}}`}
	l := newListener()
	l.person = func(context.Context, api.NewQuestion) (api.Question, error) {
		return api.Question{Status: api.QuestionAnswered}, nil
	}
	if _, err := executor.NewProcess(t.TempDir(), 0).Run(t.Context(), j, l); err != nil {
		t.Fatal(err)
	}
	said := l.all()
	if last := said[len(said)-1]; last != `used by "": {"costs":[{"amount":"0.750000","currency":"USD"}],"tokens":7,"toolCalls":1}` {
		t.Errorf("said %q", said)
	}
}

func TestAProgramCannotAskWithoutACommandToGoOnWith(t *testing.T) {
	t.Parallel()
	l := newListener()
	output, err := executor.NewProcess(t.TempDir(), 0).Run(t.Context(), job("report", `::coderclaw {"ask": {"text": "Which?"}}`), l)
	if err != nil || output != "::coderclaw {\"ask\": {\"text\": \"Which?\"}}\n" || l.state != nil {
		t.Errorf("output %q, %v, said %q", output, err, l.all())
	}
	j := job("say", "x")
	j.Agent.Process.Resume = []string{"no-such-program"}
	_, err = executor.NewProcess(t.TempDir(), 0).Run(t.Context(), j, newListener())
	if f := failure(t, err); !strings.Contains(f.Message, `needs the program "no-such-program"`) {
		t.Errorf("a command that is not there: %v", err)
	}
}

func TestASuspendedAttemptGoesOnInItsCheckout(t *testing.T) {
	t.Parallel()
	source := "file://" + repository(t)
	state := t.TempDir()
	newSet := func() executor.Executor { // as after a restart of the worker
		set, err := executor.NewSet(executor.Options{WorkspaceRoot: t.TempDir(), StateDir: state, Checkouts: executor.CheckoutOptions{Repositories: []string{source}}})
		if err != nil {
			t.Fatal(err)
		}
		exec, err := set.For(job("remember").Agent)
		if err != nil {
			t.Fatal(err)
		}
		return exec
	}
	j := job("remember", "a word")
	j.Agent.Process.Resume = []string{os.Args[0], "agent", "recall"}
	j.Task.Metadata, _ = json.Marshal(map[string]any{"workspace": map[string]string{"git": source}})
	from, asked := suspend(t, newSet(), j)

	other := job("say", "x") // whose checkout sweeps what is left behind
	other.Task.ID, other.Task.Metadata = "another", j.Task.Metadata
	if _, err := newSet().Run(t.Context(), other, newListener()); err != nil {
		t.Fatal(err)
	}
	output, l := resume(t, newSet(), j, from, decided(asked, api.QuestionAnswered))
	if output != "a word\n<nil>" || !strings.Contains(strings.Join(l.all(), "\n"), "+a word") {
		t.Errorf("it goes on with %q, said %q", output, l.all())
	}
	if left, _ := filepath.Glob(filepath.Join(state, "checkouts", "*")); len(left) > 0 {
		t.Errorf("at the end remains %q", left)
	}

	// What somebody else wrote there leads nowhere else.
	for _, from := range []string{`{"checkout":"../checkouts","state":"x"}`, `{"checkout":"another-1","state":"x"}`, "?", strings.Replace(from, "0190b8a1-2", "0190b8a1-7", 1)} {
		j := j
		j.Resume = &executor.Resume{State: from}
		ctx, cancel := context.WithCancelCause(t.Context())
		l := newListener()
		l.person = func(context.Context, api.NewQuestion) (api.Question, error) {
			cancel(errors.New("enough"))
			return api.Question{}, context.Canceled
		}
		_, err := newSet().Run(ctx, j, l)
		cancel(nil)
		if !errors.Is(err, context.Canceled) || !strings.Contains(strings.Join(l.all(), "\n"), "checking out") {
			t.Errorf("from %s: %v, said %q", from, err, l.all())
		}
	}
}
