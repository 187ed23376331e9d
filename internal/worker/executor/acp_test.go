package executor_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// acpJob is one for the test binary as an agent of the protocol.
func acpJob(behaviour ...string) executor.Job {
	j := job(append([]string{"acp"}, behaviour...)...)
	j.Agent.Executor = api.ExecutorACP
	return j
}

func runACP(t *testing.T, j executor.Job) (output string, said []string, err error) {
	t.Helper()
	l := newListener()
	output, err = executor.NewACP(t.TempDir(), "", 0).Run(t.Context(), j, l)
	return output, l.all(), err
}

func TestWhatAnACPAgentSaysAndDoesIsReported(t *testing.T) {
	t.Parallel()
	output, said, err := runACP(t, acpJob("work"))
	if err != nil || output != "I will read it.\n\nDone." {
		t.Errorf("output %q, %v", output, err)
	}
	want := []string{
		`note: the agent began a session {"session":"the-session"}`,
		`note: Let me see. {"thought":true}`,
		`output: I will `, `output: read it.`,
		`50% write`,
		`note: plan: 1 of 2 done {"plan":[{"content":"read","priority":"high","status":"completed"},{"content":"write","priority":"low","status":"in_progress"}]}`,
		`used by "": {"toolCalls":1}`,
		`note: Read a file: pending {"toolCall":{"id":"1","title":"Read a file","kind":"read","status":"pending","paths":["/w/a.go"],"input":{"path":"a.go"}}}`,
		`note: Read a file: in progress {"toolCall":{"id":"1","title":"Read a file","status":"in_progress"}}`,
		`note: Read a file: completed {"toolCall":{"id":"1","title":"Read a file","status":"completed","output":{"lines":3}}}`,
		`used by "session": {"costs":[{"amount":"0.250000","currency":"USD"}]}`,
		"output: \n\nDone.",
		`used by "session": {"costs":[{"amount":"0.250000","currency":"USD"}],"tokens":30}`,
		`note: tokens used {"usage":{"inputTokens":10,"outputTokens":20,"totalTokens":30},"cost":{"amount":0.25,"currency":"USD"},"context":{"used":1200,"size":200000}}`,
	}
	if !slices.Equal(said, want) {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}

func TestAnACPAgentGetsTheTaskAndHonestCapabilities(t *testing.T) {
	t.Parallel()
	j := acpJob("echo")
	j.Agent.SystemPrompt = "You are careful.\n"
	output, _, err := runACP(t, j)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"text":"You are careful.\n\n# Task\n\ndescribe\n\n# Input\n\nthe input\n"`, `"sessionId":"the-session"`,
		`"fs":{"readTextFile":true,"writeTextFile":true}`, `"terminal":true`,
	} {
		if !strings.Contains(output, want) {
			t.Errorf("%s is missing in %s", want, output)
		}
	}
}

func TestAStopReasonIsTheEndOfTheTask(t *testing.T) {
	t.Parallel()
	if output, _, err := runACP(t, acpJob("stop", "end_turn")); output != "so far" || err != nil {
		t.Errorf("end_turn: %q, %v", output, err)
	}
	for reason, want := range map[string]executor.Failure{
		"refusal":           {Message: "the agent refuses to go on with this task"},
		"max_tokens":        {Message: "the agent stopped in the middle: it reached its limit of tokens"},
		"max_turn_requests": {Message: "the agent stopped in the middle: it reached its limit of requests to the model for one turn", Retryable: true},
		"cancelled":         {Message: `the agent stopped in the middle: "cancelled"`, Retryable: true},
		"boredom":           {Message: `the agent stopped in the middle: "boredom"`, Retryable: true},
	} {
		_, _, err := runACP(t, acpJob("stop", reason))
		if f := failure(t, err); f != want {
			t.Errorf("%s: %+v, want %+v", reason, f, want)
		}
	}
}

func TestTheLastWordsOfAnAgentThatEndsWithThemAreHeard(t *testing.T) {
	t.Parallel()
	output, _, err := runACP(t, acpJob("last-words"))
	if err != nil || !strings.HasPrefix(output, "0,1,2,") || !strings.HasSuffix(output, "1998,1999,") {
		t.Errorf("%d bytes of output, %v", len(output), err)
	}
}

// answering returns a listener whose person answers as told.
func answering(status api.QuestionStatus, asked *[]api.NewQuestion) *listener {
	l := newListener()
	l.person = func(_ context.Context, q api.NewQuestion) (api.Question, error) {
		*asked = append(*asked, q)
		return api.Question{Status: status}, nil
	}
	return l
}

func TestOnlyAnApprovalAllowsWhatAnAgentAsksFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options []string
		status  api.QuestionStatus
		want    string
		asks    bool
	}{
		"approved":               {[]string{"allow_always", "allow_once", "reject_once"}, api.QuestionApproved, "id-allow_once", true},
		"approved for good":      {[]string{"reject_once", "allow_always"}, api.QuestionApproved, "id-allow_always", true},
		"denied":                 {[]string{"allow_once", "reject_always", "reject_once"}, api.QuestionDenied, "id-reject_once", true},
		"denied for good":        {[]string{"allow_once", "reject_always"}, api.QuestionDenied, "id-reject_always", true},
		"expired":                {[]string{"reject_once", "allow_once"}, api.QuestionExpired, "id-reject_once", true},
		"withdrawn":              {[]string{"allow_once", "reject_once"}, api.QuestionWithdrawn, "id-reject_once", true},
		"answered":               {[]string{"allow_once", "reject_once"}, api.QuestionAnswered, "id-reject_once", true},
		"nothing to allow":       {[]string{"reject_once"}, api.QuestionApproved, "id-reject_once", false},
		"something new":          {[]string{"allow_for_today"}, api.QuestionApproved, "cancelled", false},
		"nothing to choose from": {nil, api.QuestionApproved, "cancelled", false},
	} {
		var asked []api.NewQuestion
		l := answering(c.status, &asked)
		output, err := executor.NewACP(t.TempDir(), "", 0).Run(t.Context(), acpJob(append([]string{"ask"}, c.options...)...), l)
		if err != nil || !strings.Contains(output, c.want) {
			t.Errorf("%s: the agent is told %s, %v; want %s", name, output, err, c.want)
		}
		if (len(asked) == 1) != c.asks {
			t.Errorf("%s: a person is asked %d times", name, len(asked))
		}
	}
}

func TestWhoIsAskedSeesWhatIsToBeApproved(t *testing.T) {
	t.Parallel()
	ask := func(options ...string) api.NewQuestion {
		var asked []api.NewQuestion
		if _, err := executor.NewACP(t.TempDir(), "", 0).Run(t.Context(), acpJob(append([]string{"ask"}, options...)...), answering(api.QuestionDenied, &asked)); err != nil {
			t.Fatal(err)
		}
		return asked[0]
	}
	q := ask("allow_once", "reject_once")
	if q.Kind != api.QuestionApproval || q.Text != "The agent asks for leave: Remove everything" || q.Risk != "high" || q.Tool.Name != "execute" || q.Tool.Title != "Remove everything" ||
		string(q.Tool.Input) != `{"input":{"command":"rm -rf ."},"changes":[{"path":"/w/x","old":"a","new":"b"}]}` {
		t.Errorf("asked %+v, tool %+v, input %s", q, q.Tool, q.Tool.Input)
	}
	if q.Remember || !ask("allow_once", "allow_always", "reject_once").Remember {
		t.Error("what can be remembered is not what the agent offers for good")
	}
	if q := ask("allow_always", "reject_once"); !strings.HasSuffix(q.Text, `It can be allowed once and for all only ("Name of allow_always"): the agent may not ask again.`) {
		t.Errorf("leave for good is asked for with %q", q.Text)
	}
}

func TestWithoutAnybodyToAskNothingIsAllowed(t *testing.T) {
	t.Parallel()
	output, said, err := runACP(t, acpJob("ask", "allow_once", "reject_once"))
	if err != nil || !strings.Contains(output, "id-reject_once") {
		t.Errorf("the agent is told %s, %v", output, err)
	}
	if want := "note: nobody can be asked, so the agent does not get leave: unsupported operation"; !slices.Contains(said, want) {
		t.Errorf("said %q", said)
	}
}

func TestCancellationWithdrawsWhatAnAgentAsksFor(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	l := newListener()
	l.person = func(ctx context.Context, _ api.NewQuestion) (api.Question, error) {
		cancel()
		<-ctx.Done()
		return api.Question{}, ctx.Err()
	}
	_, err := executor.NewACP(t.TempDir(), "", 0).Run(ctx, acpJob("ask", "allow_once", "reject_once"), l)
	if !errors.Is(err, context.Canceled) || !slices.Contains(l.all(), `output: {"outcome":"cancelled"}`) {
		t.Errorf("ended with %v, said %q", err, l.all())
	}
}

func TestFilesAreThoseOfTheWorkspace(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "root-not")
	for _, dir := range []string{root, outside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"root/a.txt": "1\n2\n3\n4\n5", "root/huge": strings.Repeat("x", 4<<20+1), "root/binary": "\xff\x00", "root-not/secret": "secret", "secret": "secret",
	} {
		if err := os.WriteFile(filepath.Join(base, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": "../root-not", "secret-link": outside + "/secret", "dangling": "../root-not/made"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := executor.NewACP(root, "", 0).Run(t.Context(), acpJob("files", root, outside), newListener())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(output, base, "")) {
		what, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[what] = result
	}
	for what, want := range map[string]string{
		"read": `{"content":"1\n2\n3\n4\n5"}`, "read two lines": `{"content":"2\n3\n"}`, "read the end": `{"content":"4\n5"}`,
		"read ..": `refused: "/secret" is outside the workspace`, "read elsewhere": `refused: "/etc/passwd" is outside the workspace`,
		"read sibling": `refused: "/root-not" is outside the workspace`, "read device": `refused: "/dev/zero" is outside the workspace`,
		"read by link": `refused: "/root/link/secret" cannot be used: path escapes from parent`,
		"read link":    `refused: "/root/secret-link" cannot be used: path escapes from parent`,
		"read pipe":    `refused: "/root/pipe" is no regular file`, "read directory": `refused: "/root" is no regular file`,
		"read huge": `refused: "/root/huge" has more than 4194304 bytes`, "read binary": `refused: "/root/binary" is not UTF-8 text`,
		"read nothing": `refused: there is no "/root/nothing"`,
		"write":        `{}`, "write new": `{}`,
		"write ..": `refused: "/made" is outside the workspace`, "write elsewhere": `refused: "/root-not/made" is outside the workspace`,
		"write by link":       `refused: "/root/link/made" cannot be used: path escapes from parent`,
		"write link":          `refused: "/root/secret-link" cannot be used: path escapes from parent`,
		"write dangling link": `refused: "/root/dangling" cannot be used: path escapes from parent`,
		"write pipe":          `refused: "/root/pipe" cannot be used: no such device or address`,
		"another session":     `refused: Invalid params`, "unknown": `refused: Method not found`,
	} {
		if got[what] != want {
			t.Errorf("%s: %s, want %s", what, got[what], want)
		}
	}
	for name, want := range map[string]string{"root/a.txt": "written", "root/new/deep/file": "written", "root-not/secret": "secret", "secret": "secret"} {
		if content, err := os.ReadFile(filepath.Join(base, name)); err != nil || string(content) != want {
			t.Errorf("%s holds %q, %v", name, content, err)
		}
	}
	for _, name := range []string{"made", "root-not/made"} {
		if _, err := os.Lstat(filepath.Join(base, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

func TestTerminalsRunProgramsOfTheWorkspaceWithoutAShell(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	output, err := executor.NewACP(root, "", 0).Run(t.Context(), acpJob("terminals"), newListener())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(output) {
		what, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[what] = result
	}
	const once = `,"","there is no terminal `
	for what, want := range map[string]string{
		"run":                 `[{"exitCode":0},{"exitStatus":{"exitCode":0},"output":"$HOME; ls\ntwo\n","truncated":false}` + once,
		"fail":                `[{"exitCode":4},{"exitStatus":{"exitCode":4},"output":"on stdout\noh","truncated":false}` + once,
		"little":              `[{"exitCode":0},{"exitStatus":{"exitCode":0},"output":"語語\n","truncated":true}` + once,
		"much":                `[{"exitCode":0},{"exitStatus":{"exitCode":0},"output":"yyy\n","truncated":true}` + once,
		"directory":           `[{"exitCode":0},{"exitStatus":{"exitCode":0},"output":"` + root + `/sub\n","truncated":false}` + once,
		"directory elsewhere": `refused: the directory "/" is outside the workspace`,
		"bad environment":     `refused: "A=B" is no environment variable`,
		"shell":               `refused: there is no program "echo hi | cat"; a command is a program and its arguments, which no shell reads`,
		"killed":              `{"signal":"terminated"}`,
		"after 16":            `refused: 16 commands are running or not released, and that is all there may be`,
	} {
		if !strings.HasPrefix(got[what], want) {
			t.Errorf("%s: %s, want %s", what, got[what], want)
		}
	}
	if e := got["environment"]; !strings.Contains(e, `\nGIVEN=yes\n`) || !strings.Contains(e, `PATH=`) || strings.Contains(e, "AWS_SECRET") {
		t.Errorf("a command sees %s", e)
	}
}

func TestTerminalsEndWithTheAgent(t *testing.T) {
	t.Parallel()
	for name, behaviour := range map[string]string{"that has answered": "terminal-at-end", "that is cancelled": "terminal-and-hang"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l := newListener()
			ended := make(chan error, 1)
			go func() {
				_, err := executor.NewACP(t.TempDir(), "", time.Millisecond).Run(ctx, acpJob(behaviour), l)
				ended <- err
			}()
			pids := []int{l.pid(t), l.pid(t)}
			if behaviour == "terminal-and-hang" {
				cancel()
			}
			if err := <-ended; (err == nil) != (behaviour == "terminal-at-end") {
				t.Errorf("ended with %v", err)
			}
			for _, pid := range pids {
				gone(t, pid)
			}
		})
	}
}

func TestAnACPAgentThatMisbehavesFailsTheTaskAndLeavesNoProcess(t *testing.T) {
	t.Parallel()
	for behaviour, want := range map[string]executor.Failure{
		"flood":             {Message: "the agent sent more than 3000 messages or 1024 MiB"},
		"flood-of-requests": {Message: "the agent asked for more than 32 things at once"},
		"endless-line":      {Message: "the agent sent a message of more than 100000 bytes"},
		"prose":             {Message: "the agent wrote to its standard output what is no message of the Agent Client Protocol: Segmentation fault, I think"},
		"hang":              {Message: "the agent said nothing for 500ms", Retryable: true},
		"deaf":              {Message: "the agent said nothing for 500ms", Retryable: true},
		"hang-at-start":     {Message: "the agent had not begun a session after 500ms", Retryable: true},
		"exit":              {Message: "the agent ended before it had answered: exit status 3: out of memory", Retryable: true, Reason: "exit:3"},
		"error":             {Message: `the agent failed: Internal error {"details":"no such model"}`, Retryable: true},
		"old":               {Message: "the agent speaks version 7 of the Agent Client Protocol, and this worker version 1"},
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			big := filepath.Join(root, "big")
			if err := os.WriteFile(big, bytes.Repeat([]byte("x"), 1<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			a := executor.NewACP(root, "", time.Millisecond)
			begin := time.Minute
			if behaviour == "hang-at-start" {
				begin = 500 * time.Millisecond
			}
			silence := time.Minute
			if behaviour == "hang" || behaviour == "deaf" {
				silence = 500 * time.Millisecond
			}
			a.Bound(100_000, 3000, begin, silence)
			l := newListener()
			l.person = func(ctx context.Context, _ api.NewQuestion) (api.Question, error) {
				<-ctx.Done()
				return api.Question{}, ctx.Err()
			}
			_, err := a.Run(t.Context(), acpJob(behaviour, big), l)
			if f := failure(t, err); f != want {
				t.Errorf("%+v, want %+v", f, want)
			}
			if behaviour == "hang" || behaviour == "deaf" {
				gone(t, l.pid(t))
			}
		})
	}
}

// blind is a sink that asks nobody and keeps nothing.
type blind struct{ counter }

func TestAFloodOfACPMessagesTakesBoundedMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a := executor.NewACP(t.TempDir(), "", time.Millisecond)
	a.Bound(1<<20, 20_000, time.Minute, time.Minute)
	_, err := a.Run(t.Context(), acpJob("flood"), &blind{})
	runtime.ReadMemStats(&after)
	if f := failure(t, err); f.Message != "the agent sent more than 20000 messages or 1024 MiB" {
		t.Errorf("%+v", f)
	}
	if grown := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB for 12 MB of messages", grown>>20)
	}
}

func TestCancellationEndsTheTurnAndThenTheAgent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behaviour string
		last      string
	}{
		"one that ends its turn when asked": {"hang-in-peace", "output: stopping"},
		"one that does not listen":          {"hang", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l := newListener()
			ended := make(chan error, 1)
			go func() {
				_, err := executor.NewACP(t.TempDir(), "", time.Millisecond).Run(ctx, acpJob(c.behaviour), l)
				ended <- err
			}()
			pid := l.pid(t)
			cancel()
			began := time.Now()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			gone(t, pid)
			if c.last != "" && !slices.Contains(l.all(), c.last) {
				t.Errorf("said %q", l.all())
			}
		})
	}
}

func TestAnACPAgentLogsInIfItCanAlone(t *testing.T) {
	for key, want := range map[string]string{
		"right": "",
		"wrong": "the agent wants to be logged in: wrong key. Log in to it on the worker's machine as the worker's user, or name the variable with its key in process.environment; it offers: Log in on the web, Something else, An API key",
		"none":  "the agent wants to be logged in. Log in to it on the worker's machine as the worker's user, or name the variable with its key in process.environment; it offers: Log in on the web, Something else, An API key",
	} {
		t.Setenv("ACTOR_KEY", key)
		j := acpJob("key")
		if key != "none" {
			j.Agent.Process.Environment = []string{"ACTOR_KEY"}
		}
		j.Agent.Process.Command[3] = "key"
		output, _, err := runACP(t, j)
		if want == "" {
			if err != nil || output != "in" {
				t.Errorf("with the key: %q, %v", output, err)
			}
		} else if f := failure(t, err); f.Message != want || f.Retryable {
			t.Errorf("%s: %+v", key, f)
		}
	}
}

func TestAnAttemptContinuesTheSessionOfTheOneThatBrokeOff(t *testing.T) {
	t.Parallel()
	root, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	run := func(how, taskID string) (string, error) {
		j := acpJob("resumable", how)
		j.Task.ID = taskID
		return executor.NewACP(root, state, 0).Run(t.Context(), j, newListener())
	}
	if _, err := run("mindful", "one"); !failure(t, err).Retryable {
		t.Errorf("the first attempt: %v", err)
	}
	output, err := run("mindful", "one")
	if err != nil || !strings.HasPrefix(output, "second half of ") || !strings.Contains(output, `"sessionId":"the-session"`) || !strings.Contains(output, "You were interrupted") {
		t.Errorf("the second attempt: %q, %v", output, err)
	}
	if left, _ := os.ReadDir(state); len(left) > 0 {
		t.Errorf("of a task that is done remains %v", left)
	}

	if _, err := run("forgetful", "two"); !failure(t, err).Retryable {
		t.Errorf("the first attempt: %v", err)
	}
	if _, err := run("forgetful", "two"); failure(t, err).Message != "the agent ended before it had answered: exit status 1" {
		t.Errorf("an agent that has forgotten its session does not begin anew: %v", err)
	}
}

func TestAnACPAgentNeedsAProgram(t *testing.T) {
	t.Parallel()
	j := acpJob()
	j.Agent.Process = nil
	if _, _, err := runACP(t, j); failure(t, err).Message != "agent a has executor acp and no command" {
		t.Errorf("no command: %v", err)
	}
	j = acpJob()
	j.Agent.Process.Command = []string{"no-such-agent"}
	if _, _, err := runACP(t, j); !strings.Contains(failure(t, err).Message, `needs the program "no-such-agent"`) {
		t.Errorf("no program: %v", err)
	}
}

func TestFindACPTakesWhatIsConfiguredOrInstalled(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"goose", "gemini", "codex-acp"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	commands := func(line string) string {
		var found []string
		for _, p := range executor.FindACP(line) {
			found = append(found, strings.Join(p.Command, " "))
		}
		return strings.Join(found, "; ")
	}
	for line, want := range map[string]string{
		"": "codex-acp; gemini --experimental-acp; goose acp", "none": "", " my-agent  --stdio ": "my-agent --stdio",
	} {
		if got := commands(line); got != want {
			t.Errorf("%q finds %q, want %q", line, got, want)
		}
	}
	if p := executor.FindACP("/opt/codex-acp -v"); !slices.Contains(p[0].Environment, "OPENAI_API_KEY") {
		t.Errorf("a known agent elsewhere sees %q", p[0].Environment)
	}
	if p := executor.FindACP("mine"); len(p[0].Environment) > 0 {
		t.Errorf("an unknown agent sees %q", p[0].Environment)
	}
}

func TestAnACPAgentStandsInForAModel(t *testing.T) {
	t.Parallel()
	set, err := executor.NewSet(executor.Options{WorkspaceRoot: t.TempDir(), ACP: &api.Process{Command: []string{os.Args[0], "agent", "acp", "stop", "end_turn"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"code-creator", "architecture-advisor"} {
		agent := api.Agent{ID: id, Executor: api.ExecutorOpenAI}
		exec, err := set.For(agent)
		if err != nil {
			t.Fatal(err)
		}
		if output, err := exec.Run(t.Context(), executor.Job{Agent: agent, Task: api.Task{ID: "1"}}, newListener()); err != nil || output != "so far" {
			t.Errorf("%s: %q, %v", id, output, err)
		}
	}
	missing, err := executor.NewSet(executor.Options{WorkspaceRoot: t.TempDir(), ACP: &api.Process{Command: []string{"no-such-agent"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := missing.Runnable(api.Agent{ID: "x", Executor: api.ExecutorOpenAI}); err == nil || !strings.Contains(err.Error(), `"no-such-agent"`) {
		t.Errorf("one that is not there: %v", err)
	}
}
