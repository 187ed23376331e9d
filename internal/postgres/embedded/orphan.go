package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stopOrphan ends a server that still serves the data although no process of
// ours does; we hold the lock.
func stopOrphan(ctx context.Context, l *layout, log *slog.Logger) error {
	pid, _ := l.pidFile()
	if pid <= 0 {
		return nil
	}
	if !serves(pid, l.data) {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return nil // left by a crash; PostgreSQL knows what to do
		}
		// Its number went to another process, which PostgreSQL would take for
		// a server.
		if err := os.Remove(filepath.Join(l.data, "postmaster.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a stale pid file: %w", err)
		}
		return nil
	}
	log.WarnContext(ctx, "stopping a PostgreSQL that its supervisor left behind", "pid", pid, "dir", l.data)
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, stopTimeout}, {syscall.SIGQUIT, quitTimeout}} {
		if err := syscall.Kill(pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the PostgreSQL left behind, process %d: %w", pid, err)
		}
		for deadline := time.Now().Add(step.wait); time.Now().Before(deadline); {
			if !serves(pid, l.data) {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pollInterval):
			}
		}
	}
	return fmt.Errorf("the PostgreSQL left behind, process %d, does not stop: end it by hand", pid)
}
