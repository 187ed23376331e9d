package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// startTimeout is ample for crash recovery, during which the server is
	// alive but takes nobody.
	startTimeout = 5 * time.Minute
	stopTimeout  = 30 * time.Second
	quitTimeout  = 5 * time.Second
	pollInterval = 10 * time.Millisecond
)

// server is one run of the postgres program.
type server struct {
	process *os.Process
	exited  chan struct{} // closed when the process is gone
	exit    error         // how it went; read after exited
}

// errRemains means that processes of a server that was killed still live. They
// end by themselves, soon.
var errRemains = errors.New("an earlier server's processes have not ended")

// launch starts postgres and returns when it takes connections. It waits for
// the remains of an earlier one to go, within stopTimeout.
func (c *Cluster) launch(ctx context.Context) (*server, error) {
	for deadline := time.Now().Add(stopTimeout); ; {
		s, err := c.launchOnce(ctx)
		if !errors.Is(err, errRemains) || time.Now().After(deadline) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) launchOnce(ctx context.Context) (*server, error) {
	log, err := os.OpenFile(c.layout.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}

	cmd := exec.Command(filepath.Join(c.bin.BinDir, "postgres"), c.arguments()...)
	cmd.Stdout, cmd.Stderr = log, log
	c.confine(cmd)
	exited, err := startBound(cmd)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s := &server{process: cmd.Process, exited: make(chan struct{})}
	go func() {
		if s.exit = <-exited; s.exit == nil {
			s.exit = errors.New("exit status 0")
		}
		close(s.exited)
	}()

	if err := c.waitReady(ctx, s); err != nil {
		s.stop(c.patience)
		said, _ := os.ReadFile(c.layout.log)
		said = said[min(from, int64(len(said))):]
		if bytes.Contains(said, []byte("shared memory block")) {
			err = errRemains
		}
		return nil, fmt.Errorf("start PostgreSQL: %w: %s (see %s)", err, lastLines(said), c.layout.log)
	}
	return s, nil
}

func (c *Cluster) arguments() []string {
	settings := map[string]string{
		"cluster_name":            "coderclaw",
		"listen_addresses":        "",
		"port":                    port,
		"unix_socket_directories": c.layout.socketDir,
		"unix_socket_permissions": "0700",
		"hba_file":                c.layout.hba,
		"ident_file":              c.layout.ident,
		"logging_collector":       "off",
		"log_timezone":            "UTC",
		"timezone":                "UTC",
	}
	maps.Copy(settings, c.opts.Settings)
	args := []string{"-D", c.layout.data}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// waitReady waits for s to take connections. A connection alone proves
// nothing: it may be another server's socket, so the pid file must name s.
func (c *Cluster) waitReady(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("it is still not ready"))
	defer cancel()
	poll, report := time.NewTicker(pollInterval), time.NewTicker(5*time.Second)
	defer poll.Stop()
	defer report.Stop()
	for {
		select {
		case <-s.exited:
			return fmt.Errorf("it ended (%w)", s.exit)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-report.C:
			c.opts.Log.InfoContext(ctx, "waiting for PostgreSQL to be ready, it may be recovering from a crash", "log", c.layout.log)
		case <-poll.C:
			if pid, ready := c.layout.pidFile(); pid != s.process.Pid || !ready {
				continue
			}
			conn, err := c.connect(ctx)
			if err != nil {
				return err
			}
			return conn.Close(ctx)
		}
	}
}

// pidFile returns which process serves the data and whether it takes
// connections; 0 if there is none.
func (l *layout) pidFile() (pid int, ready bool) {
	text, err := os.ReadFile(filepath.Join(l.data, "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	lines := strings.Split(string(text), "\n")
	pid, _ = strconv.Atoi(lines[0])
	return pid, len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
}

// stop ends the process and returns when it is gone: fast until patience or
// stopTimeout ends, immediately then.
func (s *server) stop(patience context.Context) {
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	s.process.Signal(syscall.SIGINT)
	select {
	case <-s.exited:
		return
	case <-patience.Done():
	case <-timeout.C:
	}
	s.process.Signal(syscall.SIGQUIT)
	select {
	case <-s.exited:
	case <-time.After(quitTimeout):
		s.process.Kill()
		<-s.exited
	}
}

// confine has cmd run as the cluster's owner, in a directory that it can enter,
// out of reach of a terminal's Ctrl-C and without our secrets in its
// environment.
func (c *Cluster) confine(cmd *exec.Cmd) {
	cmd.Dir = c.layout.home
	cmd.Env = []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TZDIR", "LOCPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.owner.credential()}
	endWithParent(cmd.SysProcAttr)
}

// startBound starts cmd and sends what Wait returns. The kernel ties a child's
// parent-death signal to the thread that started it, so that thread stays with
// it until it ends.
func startBound(cmd *exec.Cmd) (<-chan error, error) {
	started, exited := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	return exited, <-started
}
