package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coderclaw/runtime/api"
)

// Process runs command-line agents, each attempt in a session and process group
// of its own, without a controlling terminal. On cancellation the group gets
// SIGTERM and after a grace time SIGKILL; whatever of it is left when the
// program ends gets SIGKILL too. A descendant that made a session of its own
// escapes that.
//
// Every line that the program writes is passed on as it comes, cut at 16 KiB,
// save those of the form
//
//	::coderclaw {"progress": 40, "message": "testing", "output": "…"}
//	::coderclaw {"usage": {"cost": 0.25, "currency": "USD", "tokens": 1200, "toolCalls": 3}}
//
// which report instead, the use in all. While a budget is exceeded the process
// group is stopped (SIGSTOP). With exit status 0 the output is the last one reported,
// else the end of standard output; with any other the attempt fails with the
// end of standard error.
//
// A program that has a command to go on with can ask people:
//
//	::coderclaw {"ask": {"kind": "input", "text": "Which branch?"}, "resume": "…"}
//
// It then ends, with exit status 0, and that command is run with the outcome as
// its input, be it at once or in an attempt that goes on later.
type Process struct {
	root  workspace
	grace time.Duration
}

// NewProcess returns an executor of programs that work under the absolute path
// root. A killGrace of 0 means 5 s.
func NewProcess(root string, killGrace time.Duration) *Process {
	return &Process{root: workspace(root), grace: cmp.Or(killGrace, defaultGrace)}
}

// defaultGrace is how long a process may take to end after SIGTERM.
const defaultGrace = 5 * time.Second

// inherited are the environment variables that every program may see.
var inherited = []string{"PATH", "HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ", "USER"}

// Run starts the agent's program and follows it to its end.
func (p *Process) Run(ctx context.Context, job Job, sink Sink) (string, error) {
	if err := p.runnable(job.Agent); err != nil {
		return "", &Failure{Message: err.Error()}
	}
	var input string
	if how := job.Agent.Process.Input; how == "" || how == "stdin" {
		input = job.Task.Input
	}
	var asked *inquiry
	if job.Resume != nil {
		var err error
		if asked, input, err = recall(*job.Resume); err != nil {
			return "", err
		}
	}
	used := &usedSoFar{Sink: sink}
	for {
		if asked != nil {
			job.Agent.Process = resumption(*job.Agent.Process)
		}
		output, asks, err := p.once(ctx, job, input, used)
		if err != nil || asks == nil {
			return output, err
		}
		used.before = used.now
		asked = asks
		if input, err = asked.put(ctx, sink); err != nil {
			return "", err
		}
	}
}

// once runs the agent's command to its end. It returns the output, or what the
// program asks people before it can go on.
func (p *Process) once(ctx context.Context, job Job, input string, sink Sink) (output string, asks *inquiry, err error) {
	cmd, err := p.command(job)
	if err != nil {
		return "", nil, err
	}
	said := said{mayAsk: job.Agent.Process.Resume != nil}
	stdout := &stream{name: "stdout", sink: sink, said: &said, tail: tail{limit: maxOutput}}
	stderr := &stream{name: "stderr", sink: sink, said: &said, tail: tail{limit: maxErrorTail}}
	r, err := start(cmd, input != "", stdout, stderr)
	if err != nil {
		return "", nil, startFailure(job.Agent.Process.Command[0], err)
	}
	defer sink.Hold(r.halt, r.goOn)()
	if input != "" {
		r.feed(input)
	}
	stopped, err := r.wait(ctx, p.grace)
	if err != nil {
		return "", nil, fmt.Errorf("wait for %s: %w", cmd.Path, err)
	}
	if stopped {
		return "", nil, ctx.Err()
	}
	if !cmd.ProcessState.Success() {
		return "", nil, exit("", cmd.ProcessState, &stderr.tail)
	}
	output, ok, asks := said.last()
	if !ok {
		output = stdout.tail.text()
	}
	return output, asks, nil
}

// runnable says what is missing to run the agent.
func (p *Process) runnable(agent api.Agent) error {
	if agent.Process == nil || len(agent.Process.Command) == 0 {
		return fmt.Errorf("agent %s has executor %s and no command", agent.ID, agent.Executor)
	}
	if how := agent.Process.Input; !slices.Contains([]string{"", "stdin", "argument", "none"}, how) {
		return fmt.Errorf("agent %s: process.input %q is none of stdin, argument, none", agent.ID, how)
	}
	for _, command := range [][]string{agent.Process.Command, agent.Process.Resume} {
		if len(command) == 0 {
			continue
		}
		if _, err := p.program(command[0]); err != nil {
			return fmt.Errorf("agent %s needs the program %q, which is not there or not executable", agent.ID, command[0])
		}
	}
	return nil
}

// program finds the program: a bare name in PATH, a relative path from the
// workspace root.
func (p *Process) program(name string) (string, error) {
	if strings.ContainsRune(name, '/') && !filepath.IsAbs(name) {
		name = filepath.Join(string(p.root), name)
	}
	return exec.LookPath(name)
}

// command returns the command that runs the job.
func (p *Process) command(job Job) (*exec.Cmd, error) {
	def := job.Agent.Process
	program, err := p.program(def.Command[0])
	if err != nil {
		return nil, fmt.Errorf("find program: %w", err)
	}
	args, err := arguments(job)
	if err != nil {
		return nil, err
	}
	path := def.Directory
	if path == "" {
		if path, err = pathOf(job.Task); err != nil {
			return nil, err
		}
	}
	root := job.workspace(p.root)
	if path, err = root.locate(path); err != nil {
		return nil, err
	}
	dir := filepath.Join(string(root), path)

	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	for _, name := range slices.Concat(inherited, def.Environment) {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, "PWD="+dir,
		"CODERCLAW_TASK_ID="+job.Task.ID, fmt.Sprintf("CODERCLAW_ATTEMPT=%d", job.Task.Attempt))
	setApart(cmd)
	return cmd, nil
}

// setApart gives the program a session and process group of its own, which the
// worker's end ends.
func setApart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	endWithParent(cmd.SysProcAttr)
}

func startFailure(program string, err error) error {
	switch {
	case errors.Is(err, syscall.E2BIG):
		return &Failure{Message: fmt.Sprintf("the task is too long for an argument of %s: let the agent read its input from stdin", program)}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		return &Failure{Message: fmt.Sprintf("%s cannot be started: it, or what is to interpret it, is not there or not executable", program)}
	}
	return fmt.Errorf("start %s: %w", program, err)
}
