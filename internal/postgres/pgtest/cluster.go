package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

// The processes that share a cluster agree by locks on files in one directory,
// all of which the kernel lets go when their holder ends, however it ends:
//
//	users   shared by every process that uses the cluster; exclusive, for the
//	        keeper, while it makes sure that there is none
//	keeper  held by the keeper for life
//	start   held while looking for a keeper or waiting for a new one
//
// The keeper writes the file url when the cluster takes connections. For each
// go command that runs tests there is a file go/PID, so that the cluster also
// outlives the compiling between two packages.
type meeting struct{ dir string }

const (
	keeperVariable = "CODERCLAW_PGTEST_KEEPER" // tells a test binary to be the keeper of that directory
	startTimeout   = 2 * time.Minute
	pollInterval   = 20 * time.Millisecond
)

// inUse keeps the lock on users for as long as this process lives.
var inUse *os.File //nolint:unused // a variable that is reachable keeps the file open

// joinCluster returns the URL of the shared cluster, started if need be, which
// then lasts at least as long as this process.
func joinCluster(ctx context.Context) (string, error) {
	bin, err := embedded.Find(ctx, os.Getenv("CODERCLAW_POSTGRES_BIN"))
	if err != nil {
		return "", err
	}
	m, err := meetingPlace(bin)
	if err != nil {
		return "", err
	}
	if inUse, err = m.lock("users", syscall.LOCK_SH); err != nil {
		return "", err
	}
	m.registerGo()

	start, err := m.lock("start", syscall.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer start.Close()
	pid := 0
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(pollInterval) {
		alone, err := m.lock("keeper", syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil && pid == 0:
			os.Remove(m.path("url")) // of a keeper that was killed
			alone.Close()
			if pid, err = m.spawnKeeper(bin); err != nil {
				return "", err
			}
		case err == nil:
			alone.Close()
			if ended, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); ended == pid {
				said, _ := os.ReadFile(m.path("keeper.log"))
				return "", fmt.Errorf("start the test cluster: %s", strings.TrimSpace(string(said)))
			}
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return "", err
		default:
			if url, err := os.ReadFile(m.path("url")); err == nil {
				return string(url), nil
			}
		}
	}
	return "", fmt.Errorf("start the test cluster: not ready after %v; see %s", startTimeout, m.path("keeper.log"))
}

// meetingPlace returns the directory for this user and this PostgreSQL.
func meetingPlace(bin embedded.Installation) (meeting, error) {
	m := meeting{filepath.Join(os.TempDir(), fmt.Sprintf("coderclaw-pgtest-%d-%d", os.Geteuid(), bin.Major))}
	if err := ownDir(m.dir, 0o700); err != nil {
		return m, err
	}
	return m, os.MkdirAll(m.path("go"), 0o700)
}

// ownDir sees to a directory in a place shared with other users, who may have
// put something there before.
func ownDir(dir string, mode os.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var stat syscall.Stat_t
	if err := syscall.Lstat(dir, &stat); err != nil {
		return err
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFDIR || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory of this user: remove it", dir)
	}
	return nil
}

func (m meeting) path(name string) string { return filepath.Join(m.dir, name) }

// lock opens and locks a file; closing it unlocks.
func (m meeting) lock(name string, how int) (*os.File, error) {
	file, err := os.OpenFile(m.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return file, nil
}

// spawnKeeper starts this test binary again as the keeper; see init. It shares
// no file and no session with us, so that nothing that waits for us or is
// aimed at us reaches it.
func (m meeting) spawnKeeper(bin embedded.Installation) (pid int, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(m.path("keeper.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(program)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), keeperVariable+"="+m.dir, "CODERCLAW_POSTGRES_BIN="+bin.BinDir)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the keeper of the test cluster: %w", err)
	}
	return cmd.Process.Pid, nil
}

// registerGo notes the go command that this process was started by, if it was.
func (m meeting) registerGo() {
	if pid := os.Getppid(); isGo(pid) {
		// Without the note the cluster ends earlier, that is all.
		_ = os.WriteFile(m.path(filepath.Join("go", strconv.Itoa(pid))), nil, 0o600)
	}
}

// goRuns reports whether a registered go command still runs.
func (m meeting) goRuns() bool {
	entries, _ := os.ReadDir(m.path("go"))
	for _, entry := range entries {
		if pid, _ := strconv.Atoi(entry.Name()); isGo(pid) {
			return true
		}
		os.Remove(m.path(filepath.Join("go", entry.Name())))
	}
	return false
}

// isGo reports whether pid is a go command, where the system has /proc.
func isGo(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSpace(string(name)) == "go"
}
