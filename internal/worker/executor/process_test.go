package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// job is one for the test binary as an agent.
func job(command ...string) executor.Job {
	return executor.Job{
		Task:  api.Task{ID: "0190b8a1", Attempt: 2, Description: "describe", Input: "the input", AgentID: "a"},
		Agent: api.Agent{ID: "a", Executor: api.ExecutorProcess, Process: &api.Process{Command: append([]string{os.Args[0], "agent"}, command...)}},
	}
}

func runProcess(t *testing.T, j executor.Job) (output string, said []string, err error) {
	t.Helper()
	l := newListener()
	output, err = executor.NewProcess(t.TempDir(), 0).Run(t.Context(), j, l)
	return output, l.all(), err
}

// failure returns the failure that an attempt ended with.
func failure(t *testing.T, err error) executor.Failure {
	t.Helper()
	var f *executor.Failure
	if !errors.As(err, &f) {
		t.Fatalf("ended with %v, want a failure", err)
	}
	return *f
}

func TestAProgramsOutputIsWhatItWrites(t *testing.T) {
	t.Parallel()
	output, said, err := runProcess(t, job("say", "one", "", "two"))
	if err != nil || output != "one\n\ntwo\n" {
		t.Errorf("output %q, %v", output, err)
	}
	if want := []string{"stdout: one", "stdout: ", "stdout: two"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
}

func TestInputReachesTheProgramAsTheAgentSays(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789\n", 25_000)
	stdin := job("stdin")
	stdin.Task.Input = long
	if output, _, err := runProcess(t, stdin); err != nil || output != long {
		t.Errorf("on stdin: %d bytes come back, %v", len(output), err)
	}
	deaf := job("say", "heard nothing")
	deaf.Task.Input = long
	if output, _, err := runProcess(t, deaf); err != nil || output != "heard nothing\n" {
		t.Errorf("a program that does not read: %q, %v", output, err)
	}
	argument := job("arguments", "first", "--")
	argument.Agent.Process.Input = "argument"
	argument.Task.Input = "-rf $(touch x); `y` 'z'"
	if output, _, err := runProcess(t, argument); err != nil || !isJSON(output, "first", "--", argument.Task.Input) {
		t.Errorf("as an argument: %s, %v", output, err)
	}
	none := job("stdin")
	none.Agent.Process.Input = "none"
	if output, _, err := runProcess(t, none); err != nil || output != "" {
		t.Errorf("not at all: %q, %v", output, err)
	}
}

func isJSON(text string, want ...string) bool {
	var got []string
	return json.Unmarshal([]byte(text), &got) == nil && slices.Equal(got, want)
}

func TestPlaceholdersAreReplacedOnceAndNeverReadByAShell(t *testing.T) {
	t.Parallel()
	j := job("arguments", "{{input}}", "--model={{model}}", "{{thinking}}/{{taskId}}", "{{systemPrompt}}", "{{description}} {{unknown}}")
	j.Agent.Process.Input = "none"
	j.Agent.Model, j.Agent.Thinking, j.Agent.SystemPrompt = "agent-model", "low", "You are {{model}}."
	j.Task.Thinking = "high"
	j.Task.Input = "{{systemPrompt}} $HOME; *"
	j.Task.Description = "say \"hi\"\n|"
	output, _, err := runProcess(t, j)
	if want := []string{"{{systemPrompt}} $HOME; *", "--model=agent-model", "high/0190b8a1", "You are {{model}}.", "say \"hi\"\n| {{unknown}}"}; err != nil || !isJSON(output, want...) {
		t.Errorf("arguments are %s, %v; want %q", output, err, want)
	}
}

func TestATasksTextIsNeverAnOption(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command []string
		want    []string
	}{
		"an argument of its own":    {[]string{"{{input}}"}, []string{" --help", " -x"}},
		"the start of an argument":  {[]string{"{{description}}{{input}}"}, []string{" -x--help", " -x"}},
		"what an option takes":      {[]string{"-p", "{{input}}"}, []string{"-p", " --help", " -x"}},
		"after two dashes":          {[]string{"--", "{{input}}"}, []string{"--", "--help", "-x"}},
		"within an argument":        {[]string{"--prompt={{input}}"}, []string{"--prompt=--help", " -x"}},
		"dashes that the task says": {[]string{"{{input}}", "{{input}}"}, []string{" --help", " --help", " -x"}},
	} {
		j := job(append([]string{"arguments"}, c.command...)...)
		j.Agent.Process.Input = "none"
		j.Agent.Process.Command = append(j.Agent.Process.Command, "{{description}}")
		j.Task.Input, j.Task.Description = "--help", "-x"
		if output, _, err := runProcess(t, j); err != nil || !isJSON(output, c.want...) {
			t.Errorf("%s: arguments are %s, %v; want %q", name, output, err, c.want)
		}
	}
	j := job("arguments", "--model", "{{model}}")
	j.Task.Model = "--dangerous"
	if _, _, err := runProcess(t, j); failure(t, err).Message != `the model "--dangerous" is none: it begins with a dash` {
		t.Errorf("a model that is an option: %v", err)
	}
}

func TestWhatCannotBeAnArgumentFailsTheTask(t *testing.T) {
	t.Parallel()
	j := job("arguments")
	j.Agent.Process.Input = "argument"
	j.Task.Input = "a\x00b"
	if _, _, err := runProcess(t, j); failure(t, err).Message != "an argument of a program cannot hold the character U+0000" {
		t.Errorf("U+0000: %v", err)
	}
	j.Task.Input = strings.Repeat("x", 256<<10)
	if _, _, err := runProcess(t, j); !strings.Contains(failure(t, err).Message, "too long for an argument") {
		t.Errorf("256 KiB: %v", err)
	}
}

func TestAProgramSeesOnlyTheEnvironmentThatIsListed(t *testing.T) {
	t.Setenv("CODERCLAW_DATABASE_URL", "postgres://secret")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("WANTED", "yes")
	t.Setenv("CODERCLAW_TASK_ID", "another")
	j := job("environment")
	j.Agent.Process.Environment = []string{"WANTED", "NOT_THERE", "CODERCLAW_TASK_ID"}
	output, _, err := runProcess(t, j)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(output) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[name] = value
	}
	for name, want := range map[string]string{"WANTED": "yes", "PATH": os.Getenv("PATH"), "CODERCLAW_TASK_ID": "0190b8a1", "CODERCLAW_ATTEMPT": "2"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	for name := range got {
		if !slices.Contains([]string{"HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ", "USER", "PWD"}, name) {
			t.Errorf("the program sees %s", name)
		}
	}
}

func TestAProgramWorksInTheDirectoryThatAgentOrTaskName(t *testing.T) {
	t.Parallel()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	for _, dir := range []string{"agent", "task/deep"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"inside": "task/deep", "out": outside, "up": ".."} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := executor.NewProcess(root, 0)
	for name, c := range map[string]struct {
		directory, metadata string
		want                string // under the root; or
		refused             string
	}{
		"neither":               {"", "", "", ""},
		"the agent":             {"agent", "", "agent", ""},
		"the agent before task": {"agent", `{"path": "task"}`, "agent", ""},
		"the task":              {"", `{"path": "task/deep", "other": 1}`, "task/deep", ""},
		"an absolute one":       {"", `{"path": "` + root + `/task"}`, "task", ""},
		"a link that stays":     {"", `{"path": "inside"}`, "inside", ""},
		"other metadata":        {"", `{"other": 1}`, "", ""},
		"one above":             {"", `{"path": "../.."}`, "", `the directory "../.." is outside the workspace`},
		"one above, hidden":     {"", `{"path": "task/../../x"}`, "", `the directory "task/../../x" is outside the workspace`},
		"an absolute elsewhere": {"", `{"path": "/etc"}`, "", `the directory "/etc" is outside the workspace`},
		"one like the root":     {"", `{"path": "` + root + `x"}`, "", `the directory "` + root + `x" is outside the workspace`},
		"a link that leads out": {"", `{"path": "out"}`, "", `the directory "out" leads out of the workspace`},
		"a link that leads up":  {"", `{"path": "up"}`, "", `the directory "up" leads out of the workspace`},
		"one that is not there": {"", `{"path": "nowhere"}`, "", `the workspace has no directory "nowhere"`},
		"a file":                {"", `{"path": "file"}`, "", `"file" is not a directory`},
		"below a file":          {"", `{"path": "file/x"}`, "", `"file/x" is not a directory`},
		"U+0000":                {"", `{"path": "a\u0000b"}`, "", `the directory "a\x00b" is outside the workspace`},
		"no text":               {"", `{"path": 7}`, "", "metadata.path must be a string"},
	} {
		j := job("directory")
		j.Agent.Process.Directory = c.directory
		if c.metadata != "" {
			j.Task.Metadata = json.RawMessage(c.metadata)
		}
		output, err := p.Run(t.Context(), j, newListener())
		switch {
		case c.refused != "":
			if f := failure(t, err); f.Message != c.refused || f.Retryable {
				t.Errorf("%s: %+v, want %q", name, f, c.refused)
			}
		case err != nil || strings.TrimSpace(output) != filepath.Join(root, c.want):
			t.Errorf("%s: works in %q, %v; want %s", name, output, err, c.want)
		}
	}
}

func TestLinesWithTheMarkerReport(t *testing.T) {
	t.Parallel()
	output, said, err := runProcess(t, job("report",
		`::coderclaw {"progress": 12.5, "message": "reading"}`,
		"an ordinary line",
		`::coderclaw {"output": "first"}`,
		`::coderclaw {"message": "a remark"}`,
		`::coderclaw {"progress": 900, "output": "last\nwith two lines"}`,
		`::coderclaw not JSON`, `::coderclaw {"other": 1}`, ` ::coderclaw {"progress": 1}`))
	want := []string{"12% reading", "stdout: an ordinary line", "output: first", "note: a remark", "100% ", "output: last\nwith two lines",
		"stdout: ::coderclaw not JSON", `stdout: ::coderclaw {"other": 1}`, `stdout:  ::coderclaw {"progress": 1}`}
	if err != nil || output != "last\nwith two lines" || !slices.Equal(said, want) {
		t.Errorf("output %q, %v, said %q", output, err, said)
	}
	if output, _, err := runProcess(t, job("report", `::coderclaw {"progress": 1}`, "the answer")); err != nil || output != "the answer\n" {
		t.Errorf("output of a program that reports progress only: %q, %v", output, err)
	}
	if output, _, err := runProcess(t, job("report", `::coderclaw {"output": ""}`, "noise")); err != nil || output != "" {
		t.Errorf("output of a program that reports an empty one: %q, %v", output, err)
	}
}

func TestAnExitStatusIsTheEndOfTheTask(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command []string
		want    string
	}{
		"with words":    {[]string{"fail", "3", "a", "b"}, "exit status 3: a\nb"},
		"without words": {[]string{"fail", "1"}, "exit status 1"},
		"by a signal":   {[]string{"die"}, "killed by signal 9 (killed)"},
	} {
		_, _, err := runProcess(t, job(c.command...))
		if f := failure(t, err); f.Message != c.want || !f.Retryable {
			t.Errorf("%s: %+v, want %q", name, f, c.want)
		}
	}
	_, _, err := runProcess(t, job("fail", "1", strings.Repeat("語", 5000)+" the end"))
	f := failure(t, err)
	if n := len(f.Message); n > 4<<10+20 || n < 4<<10 || !strings.HasSuffix(f.Message, "語 the end") || !utf8.ValidString(f.Message) || !strings.Contains(f.Message, "[the end of 15008 bytes] …語") {
		t.Errorf("a long complaint became %d bytes: %.80q", n, f.Message)
	}
}

func TestAMissingProgramIsNamed(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		"no-such-program": `agent a needs the program "no-such-program", which is not there or not executable`,
		"/etc/passwd":     `agent a needs the program "/etc/passwd", which is not there or not executable`,
		"./tool":          `agent a needs the program "./tool", which is not there or not executable`,
		script:            script + " cannot be started: it, or what is to interpret it, is not there or not executable",
	} {
		j := job()
		j.Agent.Process.Command = []string{program}
		_, _, err := runProcess(t, j)
		if f := failure(t, err); f.Message != want || f.Retryable {
			t.Errorf("%s: %+v, want %q", program, f, want)
		}
	}
}

func TestARelativeProgramIsTakenFromTheWorkspace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.Args[0], filepath.Join(root, "tool")); err != nil {
		t.Fatal(err)
	}
	j := job()
	j.Agent.Process.Command = []string{"./tool", "agent", "say", "hi"}
	j.Agent.Process.Directory = "sub"
	if output, err := executor.NewProcess(root, 0).Run(t.Context(), j, newListener()); err != nil || output != "hi\n" {
		t.Errorf("output %q, %v", output, err)
	}
}

func TestLongLinesAreCutWhereTheyAreStreamedAndWholeInTheOutput(t *testing.T) {
	t.Parallel()
	output, said, err := runProcess(t, job("long", "10000"))
	if want := strings.Repeat(strings.Repeat("語", 10000)+"\n", 3) + "the end without an end"; err != nil || output != want {
		t.Errorf("output of %d bytes, %v", len(output), err)
	}
	if len(said) != 4 || said[3] != "stdout: the end without an end" {
		t.Fatalf("%d lines, the last %.60q", len(said), said[len(said)-1])
	}
	for _, line := range said[:3] {
		if n := len(line) - len("stdout: "); n != 16<<10+1 {
			t.Errorf("a line of %d bytes, want one more than the sink takes", n)
		}
	}
}

// counter is a sink that keeps nothing.
type counter struct{ lines int }

func (c *counter) Progress(int, string) {}
func (c *counter) Output(string)        {}
func (c *counter) Log(string, string)   { c.lines++ }
func (c *counter) Note(string, any)     {}

// A counter asks nobody.
func (*counter) Ask(context.Context, api.NewQuestion) (api.Question, error) {
	return api.Question{}, errors.ErrUnsupported
}

func (*counter) Artifact(context.Context, string, string, io.Reader) error {
	return errors.ErrUnsupported
}

func (*counter) Resumable(func() string)       {}
func (*counter) Used(string, api.Usage)        {}
func (*counter) Hold(stop, goOn func()) func() { return func() {} }
func (*counter) Held() bool                    { return false }

func (*counter) Authorize(context.Context, string, api.ToolCall) (bool, string, error) {
	return false, "", errors.ErrUnsupported
}

func TestHugeOutputTakesBoundedMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const lines = 200_000
	var c counter
	output, err := executor.NewProcess(t.TempDir(), 0).Run(t.Context(), job("flood", fmt.Sprint(lines)), &c)
	runtime.ReadMemStats(&after)
	if err != nil || c.lines != lines {
		t.Fatalf("%d lines, %v", c.lines, err)
	}
	if grown := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB for 200 MB of output", grown>>20)
	}
	if n := len(output); n > 1<<20 || n < 1<<20-4 || !strings.HasPrefix(output, "[the end of ") || !strings.HasSuffix(output, "x\n") ||
		!strings.Contains(output, fmt.Sprintf("\n%d x", lines-1)) {
		t.Errorf("an output of %d bytes: %.60q", n, output)
	}
}

func TestCancellationEndsTheProgramAndItsDescendants(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command   []string
		processes int
		grace     time.Duration
	}{
		"one that ends when asked":          {[]string{"obedient"}, 1, time.Hour},
		"one that does not listen":          {[]string{"stubborn"}, 1, time.Millisecond},
		"a family":                          {[]string{"family", "wait"}, 2, time.Hour},
		"a family of which one is stubborn": {[]string{"family", "family", "stubborn"}, 3, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l := newListener()
			ended := make(chan error, 1)
			go func() {
				_, err := executor.NewProcess(t.TempDir(), c.grace).Run(ctx, job(c.command...), l)
				ended <- err
			}()
			var pids []int
			for range c.processes {
				pids = append(pids, l.pid(t))
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
			for _, pid := range pids {
				gone(t, pid)
			}
			if name == "one that ends when asked" && !slices.Contains(l.all(), "stdout: good bye") {
				t.Error("its last words are lost")
			}
		})
	}
}

func TestWhatAProgramLeavesBehindIsKilledAndNotWaitedFor(t *testing.T) {
	t.Parallel()
	l := newListener()
	output, err := executor.NewProcess(t.TempDir(), 0).Run(t.Context(), job("leave", "here"), l)
	if err != nil || !strings.Contains(output, "left ") {
		t.Errorf("output %q, %v", output, err)
	}
	gone(t, l.pid(t))
}

func TestADescendantThatGotAwayIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	l := newListener()
	output, err := executor.NewProcess(t.TempDir(), 0).Run(t.Context(), job("leave", "away"), l)
	if err != nil || !strings.Contains(output, "left ") {
		t.Errorf("output %q, %v", output, err)
	}
	pid := l.pid(t)
	if syscall.Kill(pid, syscall.SIGKILL) != nil {
		t.Errorf("process %d did not get away: the test proves nothing", pid)
	}
}

func TestAProgramEndsWithAWorkerThatIsKilled(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs a signal on the parent's death")
	}
	worker := exec.Command(os.Args[0], "agent", "worker")
	out, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "waiting %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	worker.Wait()
	gone(t, pid)
}

// A session of its own has no terminal, so that nothing can wait for a password
// to be typed.
func TestAProgramHasASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	if output, _, err := runProcess(t, job("session")); err != nil || output != "true <nil>\n" {
		t.Errorf("a session of its own: %q, %v", output, err)
	}
}
