package embedded

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/coderclaw/runtime/internal/fault"
)

const (
	port = "5432" // names the socket; nothing listens on TCP

	// maxSocketPath is what fits in a socket's address everywhere; Linux would
	// take four bytes more.
	maxSocketPath = 103

	maxLog = 10 << 20 // bytes after which a start begins a new log
)

// layout is where the parts of a cluster are.
type layout struct {
	dir       string // ours
	home      string // belongs to the server's user, as does all inside
	data      string
	socketDir string // chosen by prepare
	log       string
	lock      string
	hba       string
	ident     string
}

// newLayout sees to dir. The paths in it are free of links.
func newLayout(dir string) (*layout, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		// The server's user must pass through what root makes.
		mode := os.FileMode(0o700)
		if os.Geteuid() == 0 {
			mode = 0o711
		}
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("open the data directory: %w", err)
	}
	home := filepath.Join(dir, "postgres")
	return &layout{
		dir:   dir,
		home:  home,
		data:  filepath.Join(home, "data"),
		log:   filepath.Join(dir, "postgres.log"),
		lock:  filepath.Join(dir, "postgres.lock"),
		hba:   filepath.Join(dir, "postgres.hba.conf"),
		ident: filepath.Join(dir, "postgres.ident.conf"),
	}, nil
}

// lockDir takes the directory for this process, for as long as the file it
// returns is open.
func lockDir(l *layout) (*os.File, error) {
	file, err := os.OpenFile(l.lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer file.Close()
		holder, _ := os.ReadFile(l.lock)
		return nil, fault.New(fault.Conflict, "data directory %s is in use by process %s", l.dir, strings.TrimSpace(string(holder)))
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return file, nil
}

// majorVersion returns the version of the cluster, 0 if there is none yet.
func (l *layout) majorVersion() (int, error) {
	text, err := os.ReadFile(filepath.Join(l.data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the data directory: %w", err)
	}
	return number(string(text)), nil
}

// prepare makes what the server needs around its data, and picks the socket's
// directory.
func (l *layout) prepare(o owner) error {
	if err := o.makeDir(l.home); err != nil {
		return err
	}
	if err := o.mustReach(l.home); err != nil {
		return err
	}
	halfMade, _ := filepath.Glob(filepath.Join(l.home, "init-*"))
	for _, dir := range halfMade {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear away a cluster half made: %w", err)
		}
	}
	if err := l.pickSocketDir(o); err != nil {
		return err
	}
	ident := fmt.Sprintf("coderclaw \"%s\" %s\ncoderclaw \"%s\" %s\n", o.self, User, o.name, User)
	if err := os.WriteFile(l.ident, []byte(ident), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(l.hba, []byte("local all all peer map=coderclaw\n"), 0o644); err != nil {
		return err
	}
	if info, err := os.Stat(l.log); err == nil && info.Size() > maxLog {
		return os.Rename(l.log, l.log+".1")
	}
	return nil
}

// pickSocketDir takes the directory beside the data if a socket's path there
// is short enough, and a private temporary one if not.
func (l *layout) pickSocketDir(o owner) error {
	short := fmt.Sprintf("coderclaw-%x", sha256.Sum256([]byte(l.dir)))[:24]
	reason := errors.New("set TMPDIR to a directory with a shorter path")
	for _, dir := range []string{
		filepath.Join(l.home, "run"),
		filepath.Join(os.TempDir(), short),
		filepath.Join("/tmp", short),
	} {
		// A comma separates hosts in a URL and directories in a setting.
		if len(dir)+len("/.s.PGSQL."+port) > maxSocketPath || strings.ContainsAny(dir, `,"`) {
			continue
		}
		if reason = o.makeDir(dir); reason != nil {
			continue
		}
		if reason = o.mustReach(dir); reason == nil {
			l.socketDir = dir
			return nil
		}
	}
	return fmt.Errorf("find a place for PostgreSQL's socket: %w", reason)
}

// cleanUp removes what lies outside the data directory.
func (l *layout) cleanUp() {
	if l.socketDir != "" && !strings.HasPrefix(l.socketDir, l.home) {
		os.RemoveAll(l.socketDir)
	}
}
