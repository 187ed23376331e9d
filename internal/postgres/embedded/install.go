package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// manager is a package manager that can install PostgreSQL.
type manager struct {
	program string
	steps   [][]string // the arguments of each run
	before  func() (undo func(), err error)
}

var managers = []manager{
	{
		program: "apt-get",
		steps: [][]string{
			{"update"},
			{"install", "-y", "--no-install-recommends", "postgresql"},
		},
		before: withoutMainCluster,
	},
	{program: "dnf", steps: [][]string{{"install", "-y", "postgresql-server"}}},
	{program: "apk", steps: [][]string{{"add", "postgresql"}}},
}

// packageManager returns the one this system has.
func packageManager() (manager, bool) {
	for _, m := range managers {
		if _, err := exec.LookPath(m.program); err == nil {
			return m, true
		}
	}
	return manager{}, false
}

// installCommand is the one command that a person can run to get PostgreSQL.
func installCommand() string {
	if runtime.GOOS == "darwin" {
		return "brew install postgresql@17"
	}
	m, ok := packageManager()
	if !ok {
		return "install PostgreSQL 14 or later with the system's package manager"
	}
	program := m.program
	if os.Geteuid() != 0 {
		program = "sudo " + program
	}
	var commands []string
	for _, args := range m.steps {
		commands = append(commands, program+" "+strings.Join(args, " "))
	}
	return strings.Join(commands, " && ")
}

// install runs the package manager.
func (m manager) install(ctx context.Context, log *slog.Logger) error {
	log.InfoContext(ctx, "PostgreSQL is not installed; installing the system's package", "with", m.program)
	if m.before != nil {
		undo, err := m.before()
		if err != nil {
			return fmt.Errorf("install PostgreSQL: %w", err)
		}
		defer undo()
	}
	var failed error
	for _, args := range m.steps {
		cmd := exec.CommandContext(ctx, m.program, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			failed = fmt.Errorf("install PostgreSQL: %s %s: %w: %s", m.program, strings.Join(args, " "), err, lastLines(out))
		} else {
			// A list that cannot be refreshed does no harm if it was good enough.
			failed = nil
		}
	}
	return failed
}

// withoutMainCluster keeps Debian's package from making a cluster and a system
// service of its own, by the drop-in that its configuration reads.
func withoutMainCluster() (undo func(), err error) {
	const dir = "/etc/postgresql-common/createcluster.d"
	file := filepath.Join(dir, "coderclaw.conf")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return nil, err
	}
	return func() {
		os.Remove(file)
		os.Remove(dir) // only if it is ours, that is, empty
	}, nil
}
