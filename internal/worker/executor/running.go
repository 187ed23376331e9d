package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// drainTime is how long, in all, output is waited for once the program has
	// ended: somebody who left its process group may hold the pipe open. maxDrain
	// is how many bytes are still taken.
	drainTime = 2 * time.Second
	maxDrain  = 4 << 20

	maxOutput    = 1 << 20
	maxErrorTail = 4 << 10
)

// taker takes what comes out of a pipe, from one goroutine.
type taker interface {
	write(p []byte) // may block, to slow the program down
	end()           // there is no more
}

// running is a program that was started.
type running struct {
	cmd     *exec.Cmd
	stdin   *os.File // nil: none
	readers []*reader
	moving  sync.WaitGroup // input and output
	ended   chan struct{}  // closed when the program has ended

	mu   sync.Mutex
	over bool // the process group's number may be another's
}

// start starts a program whose streams are taken once somebody waits for it.
// The two may have one taker.
func start(cmd *exec.Cmd, stdin bool, stdout, stderr taker) (_ *running, err error) {
	r := &running{cmd: cmd, ended: make(chan struct{})}
	// Pipes of our own: those of os/exec would have Wait wait for their ends,
	// which a stray descendant may keep open.
	var ours, theirs []*os.File
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(ours)
		}
	}()
	for i, into := range []taker{stdout, stderr} {
		if i > 0 && into == stdout {
			cmd.Stderr = cmd.Stdout
			break
		}
		in, out, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, in), append(theirs, out)
		r.readers = append(r.readers, &reader{pipe: in, into: into})
		if i == 0 {
			cmd.Stdout = out
		} else {
			cmd.Stderr = out
		}
	}
	if stdin {
		in, out, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, out), append(theirs, in)
		cmd.Stdin, r.stdin = in, out
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return r, nil
}

// feed writes the whole of the program's input, which it need not read.
func (r *running) feed(input string) {
	r.moving.Go(func() {
		defer r.stdin.Close()
		_, _ = r.stdin.WriteString(input)
	})
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// wait follows the program to its end and leaves nothing of its process group
// behind. When ctx ends first it brings the end about, and says so.
func (r *running) wait(ctx context.Context, grace time.Duration) (stopped bool, err error) {
	for _, rd := range r.readers {
		r.moving.Go(rd.move)
	}
	ended := make(chan error, 1)
	go func() { ended <- reap(r.cmd, r.killRest) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		stopped = true
		r.signal(syscall.SIGTERM)
		r.goOn() // what is halted hears of nothing
		patience := time.NewTimer(grace)
		defer patience.Stop()
		select {
		case err = <-ended:
		case <-patience.C:
			r.signal(syscall.SIGKILL)
			err = <-ended
		}
	}
	close(r.ended)
	if r.stdin != nil {
		_ = r.stdin.SetDeadline(time.Now())
	}
	for _, rd := range r.readers {
		rd.late.Store(true)
		_ = rd.pipe.SetReadDeadline(time.Now()) // so that it takes notice; fails if it has ended
	}
	r.moving.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		err = nil // cmd.ProcessState tells of it
	}
	return stopped, err
}

// signal sends sig to the process group.
func (r *running) signal(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		syscall.Kill(-r.cmd.Process.Pid, sig) // gone already is as good
	}
}

// halt stops the process group until goOn.
func (r *running) halt() { r.signal(syscall.SIGSTOP) }

func (r *running) goOn() { r.signal(syscall.SIGCONT) }

// killRest kills what is left of the process group, and is the last to signal it.
func (r *running) killRest() {
	r.signal(syscall.SIGKILL)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// exit is the failure of a program that did not end well: how it ended, and the
// last that it complained of. What that means stands in front.
func exit(meaning string, state *os.ProcessState, stderr *tail) *Failure {
	message, reason := fmt.Sprintf("exit status %d", state.ExitCode()), fmt.Sprintf("exit:%d", state.ExitCode())
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		message = fmt.Sprintf("killed by signal %d (%s)", ws.Signal(), ws.Signal())
		reason = fmt.Sprintf("signal:%d", ws.Signal())
	}
	if last := strings.TrimSpace(stderr.text()); last != "" {
		message += ": " + last
	}
	return &Failure{Message: meaning + message, Retryable: true, Reason: reason}
}

// reader moves what comes out of one pipe.
type reader struct {
	pipe *os.File
	into taker
	late atomic.Bool // the program has ended
}

// move copies until the pipe ends. When it is late it waits for drainTime in
// all and copies maxDrain more at most; how long the reader of it takes does
// not count.
func (r *reader) move() {
	defer r.pipe.Close()
	defer r.into.end()
	buf := make([]byte, 32<<10)
	waited, drained := time.Duration(0), 0
	for waited < drainTime && drained < maxDrain {
		late, began := r.late.Load(), time.Now()
		if late {
			_ = r.pipe.SetReadDeadline(began.Add(drainTime - waited))
		}
		n, err := r.pipe.Read(buf)
		if late {
			waited += time.Since(began)
			drained += n
		}
		r.into.write(buf[:n])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
