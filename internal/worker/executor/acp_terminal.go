package executor

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coder/acp-go-sdk"
)

const (
	// maxTerminals is how many commands an agent can have running or not yet
	// released.
	maxTerminals = 16
	// maxTerminalOutput is the most that is kept of what a command writes, in
	// bytes.
	maxTerminalOutput = 1 << 20
)

// terminals are the commands that an agent runs through us: started as the
// agent itself is, in directories of the workspace, without a shell, and ended
// with it.
type terminals struct {
	life        context.Context // they end with it
	workspace   workspace
	grace       time.Duration
	environment []string
	directory   string

	ended sync.WaitGroup

	mu    sync.Mutex
	named map[string]*terminal
	alive int // started and not ended, or not released
	last  int
}

// terminal is a command.
type terminal struct {
	run   *running
	stop  context.CancelFunc
	ended chan struct{} // closed when nothing of it is left

	mu      sync.Mutex
	written tail
	limit   int
}

func (t *terminal) write(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written.write(p)
}

func (t *terminal) end() {}

// create starts a command.
func (ts *terminals) create(_ context.Context, q acp.CreateTerminalRequest) (acp.CreateTerminalResponse, error) {
	var none acp.CreateTerminalResponse
	cmd, err := ts.command(q)
	if err != nil {
		return none, err
	}
	limit := maxTerminalOutput
	if q.OutputByteLimit != nil {
		limit = min(max(*q.OutputByteLimit, 0), limit)
	}
	t := &terminal{ended: make(chan struct{}), limit: limit, written: tail{limit: limit}}

	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.alive == maxTerminals {
		return none, &Failure{Message: fmt.Sprintf("%d commands are running or not released, and that is all there may be", maxTerminals)}
	}
	if ts.life.Err() != nil {
		return none, context.Cause(ts.life)
	}
	t.run, err = start(cmd, false, t, t)
	if err != nil {
		return none, startFailure(shortened(q.Command, maxComplaint), err)
	}
	life, stop := context.WithCancel(ts.life)
	t.stop = stop
	ts.ended.Go(func() {
		defer stop()
		_, _ = t.run.wait(life, ts.grace) // how it ended is in its state
		close(t.ended)
	})
	ts.alive++
	ts.last++
	id := strconv.Itoa(ts.last)
	ts.named[id] = t
	return acp.CreateTerminalResponse{TerminalId: id}, nil
}

// running reports whether a command has not ended.
func (ts *terminals) running() bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.named {
		select {
		case <-t.ended:
		default:
			return true
		}
	}
	return false
}

// command returns the command that the agent wants.
func (ts *terminals) command(q acp.CreateTerminalRequest) (*exec.Cmd, error) {
	dir := ts.directory
	if q.Cwd != nil && *q.Cwd != "" {
		rel, err := ts.workspace.locate(*q.Cwd)
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(string(ts.workspace), rel)
	}
	name := q.Command
	if strings.ContainsRune(name, '/') && !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return nil, &Failure{Message: fmt.Sprintf("there is no program %q; a command is a program and its arguments, which no shell reads", shortened(q.Command, maxComplaint))}
	}
	cmd := exec.Command(program, q.Args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, ts.environment...)
	for _, v := range q.Env {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") || strings.ContainsRune(v.Value, 0) {
			return nil, &Failure{Message: fmt.Sprintf("%q is no environment variable", shortened(v.Name, maxComplaint))}
		}
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	cmd.Env = append(cmd.Env, "PWD="+dir)
	setApart(cmd)
	return cmd, nil
}

func (ts *terminals) find(id string) (*terminal, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t, ok := ts.named[id]; ok {
		return t, nil
	}
	return nil, noTerminal(id)
}

func noTerminal(id string) error {
	return &Failure{Message: fmt.Sprintf("there is no terminal %q", shortened(id, maxComplaint))}
}

// output returns what the command has written so far.
func (ts *terminals) output(_ context.Context, q acp.TerminalOutputRequest) (acp.TerminalOutputResponse, error) {
	t, err := ts.find(q.TerminalId)
	if err != nil {
		return acp.TerminalOutputResponse{}, err
	}
	code, signal := t.status()
	t.mu.Lock()
	defer t.mu.Unlock()
	said := acp.TerminalOutputResponse{Output: t.written.last(t.limit), Truncated: t.written.total > int64(t.limit)}
	if code != nil || signal != nil {
		said.ExitStatus = &acp.TerminalExitStatus{ExitCode: code, Signal: signal}
	}
	return said, nil
}

// status is how the command ended; both nil: it has not.
func (t *terminal) status() (code *int, signal *string) {
	select {
	case <-t.ended:
	default:
		return nil, nil
	}
	state := t.run.cmd.ProcessState
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		name := ws.Signal().String()
		return nil, &name
	}
	n := state.ExitCode()
	return &n, nil
}

// wait waits for the command's end.
func (ts *terminals) wait(ctx context.Context, q acp.WaitForTerminalExitRequest) (acp.WaitForTerminalExitResponse, error) {
	t, err := ts.find(q.TerminalId)
	if err != nil {
		return acp.WaitForTerminalExitResponse{}, err
	}
	select {
	case <-t.ended:
	case <-ctx.Done():
		return acp.WaitForTerminalExitResponse{}, context.Cause(ctx)
	}
	code, signal := t.status()
	return acp.WaitForTerminalExitResponse{ExitCode: code, Signal: signal}, nil
}

// kill begins to end the command: it and its process group get SIGTERM, and
// SIGKILL if that does not help.
func (ts *terminals) kill(_ context.Context, q acp.KillTerminalRequest) (none acp.KillTerminalResponse, err error) {
	t, err := ts.find(q.TerminalId)
	if err == nil {
		t.stop()
	}
	return none, err
}

// release ends the command, if need be, and forgets it.
func (ts *terminals) release(_ context.Context, q acp.ReleaseTerminalRequest) (none acp.ReleaseTerminalResponse, err error) {
	ts.mu.Lock()
	t, ok := ts.named[q.TerminalId]
	delete(ts.named, q.TerminalId)
	ts.mu.Unlock()
	if !ok {
		return none, noTerminal(q.TerminalId)
	}
	t.stop()
	ts.ended.Go(func() {
		<-t.ended
		ts.mu.Lock()
		defer ts.mu.Unlock()
		ts.alive--
	})
	return none, nil
}
