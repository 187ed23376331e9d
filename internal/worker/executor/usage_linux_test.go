package executor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coderclaw/runtime/internal/worker/executor"
)

// becomes waits until the child is stopped, or goes on.
func becomes(t *testing.T, pid, state int) {
	t.Helper()
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, state|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

func TestAProgramIsStoppedWhileItIsHeldAndEndsWhenAsked(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := newListener()
	halt, goOn := make(chan func(), 1), make(chan func(), 1)
	l.hold = func(h, g func()) { halt <- h; goOn <- g }
	ended := make(chan error, 1)
	go func() {
		_, err := executor.NewProcess(t.TempDir(), time.Hour).Run(ctx, job("obedient"), l)
		ended <- err
	}()
	pid := l.pid(t)
	stop, resume := <-halt, <-goOn
	stop()
	becomes(t, pid, unix.WSTOPPED)
	resume()
	becomes(t, pid, unix.WCONTINUED)
	stop()
	becomes(t, pid, unix.WSTOPPED)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if !slices.Contains(l.all(), "stdout: good bye") {
		t.Error("it did not hear that it was to end")
	}
	stop() // when there is nothing to stop any more
}

func TestProgramsTellWhatTheyUse(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"usage": {"cost": 0.25, "tokens": 1200, "toolCalls": 3}}`: `used by "": {"costs":[{"amount":"0.250000","currency":"USD"}],"tokens":1200,"toolCalls":3}`,
		`{"usage": {"cost": "1.1", "currency": "EUR"}}`:             `used by "": {"costs":[{"amount":"1.100000","currency":"EUR"}]}`,
		`{"usage": {"cost": 1e-7}}`:                                 `used by "": {"costs":[{"amount":"0.000000","currency":"USD"}]}`,
		`{"usage": {"cost": 999999999.999999}}`:                     `used by "": {"costs":[{"amount":"999999999.999999","currency":"USD"}]}`,
		`{"usage": {}}`:                                             `used by "": {}`,
	} {
		if _, said, err := runProcess(t, job("report", "::coderclaw "+line)); err != nil || !slices.Equal(said, []string{want}) {
			t.Errorf("%s: said %q, %v", line, said, err)
		}
	}
	for _, usage := range []string{
		`{"cost": -0.01}`, `{"cost": "NaN"}`, `{"cost": "Inf"}`, `{"cost": 1e999999999}`, `{"cost": 999999999.9999999}`, `{"cost": 1e18}`,
		`{"cost": 1, "currency": "usd"}`, `{"cost": 1, "currency": "US\u0000"}`, `{"tokens": -1}`, `{"tokens": 1.5}`, `{"tokens": 1000000000000001}`,
		`{"tokens": 99999999999999999999}`, `{"toolCalls": -3}`, `{"toolCalls": "3"}`, `[]`, `7`,
	} {
		line := fmt.Sprintf(`::coderclaw {"usage": %s}`, usage)
		if _, said, err := runProcess(t, job("report", line)); err != nil || !slices.Equal(said, []string{"stdout: " + line}) {
			t.Errorf("%s: said %q, %v", line, said, err)
		}
	}
}
