package clawbench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coderclaw/runtime/internal/postgres/embedded"
	"github.com/coderclaw/runtime/internal/task"
)

// pgbench runs scripts on a database.
type pgbench struct {
	program  string
	database string // without the password
	password string
}

// errNoPgbench says why there is nothing to compare with.
var errNoPgbench = errors.New("no baseline")

// newPgbench returns errNoPgbench where the program or the database's address
// is missing.
func newPgbench(ctx context.Context, r *rig) (*pgbench, error) {
	if r.database == "" {
		return nil, fmt.Errorf("%w: pgbench needs the server's database, --database-url", errNoPgbench)
	}
	var p pgbench
	var err error
	if p.database, p.password, err = withoutPassword(r.database); err != nil {
		return nil, err
	}
	places := []string{"pgbench"}
	if found, err := embedded.Find(ctx, os.Getenv("CODERCLAW_POSTGRES_BIN")); err == nil {
		places = []string{filepath.Join(found.BinDir, "pgbench"), "pgbench"}
	}
	for _, place := range places {
		if p.program, err = exec.LookPath(place); err == nil {
			return &p, nil
		}
	}
	return nil, fmt.Errorf("%w: pgbench is not installed; it comes with PostgreSQL's server or its contrib package", errNoPgbench)
}

// withoutPassword takes the password out of a URL, for arguments can be read by
// everybody on the machine.
func withoutPassword(database string) (rest, password string, err error) {
	u, err := url.Parse(database)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", "", errors.New("--database-url: want postgres://user:password@host:port/database")
	}
	query := u.Query()
	password = query.Get("password")
	query.Del("password")
	u.RawQuery = query.Encode()
	if p, ok := u.User.Password(); ok {
		password = p
		u.User = url.User(u.User.Username())
	}
	return u.String(), password, nil
}

// run runs the script as often as the clients can during the warm-up and the
// window.
func (p *pgbench) run(ctx context.Context, s *script, l load) (*tally, error) {
	dir, err := os.MkdirTemp("", "clawbench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "script.sql")
	if err := os.WriteFile(file, []byte(s.text.String()), 0o600); err != nil {
		return nil, err
	}
	log := filepath.Join(dir, "log")
	args := []string{
		"--no-vacuum", "--protocol=prepared", "--file=" + file, "--log", "--log-prefix=" + log,
		"--client=" + strconv.Itoa(l.clients), "--jobs=" + strconv.Itoa(min(2, l.clients)),
		"--time=" + strconv.Itoa(int(math.Ceil((warmUp + l.window).Seconds()))),
		fmt.Sprintf("--define=high=%d", firstHigh(time.Now().UnixMilli())),
	}
	if l.rate > 0 {
		args = append(args, fmt.Sprintf("--rate=%g", l.rate))
	}
	for _, v := range s.variables {
		args = append(args, "--define="+v)
	}
	cmd := exec.CommandContext(ctx, p.program, append(args, p.database)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	options := []string{"-c jit=off"} // as the server's connections have it
	for _, s := range task.PlanSettings {
		options = append(options, "-c "+s[0]+"="+s[1])
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGOPTIONS="+strings.Join(options, " "))
	if p.password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+p.password)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		const most = 1000
		return nil, fmt.Errorf("pgbench: %w: %s", err, out[max(0, len(out)-most):])
	}
	return readLogs(log, l.window)
}

// readLogs reads what pgbench has logged, a file for each of its threads.
func readLogs(prefix string, window time.Duration) (*tally, error) {
	names, err := filepath.Glob(prefix + ".*")
	if err != nil {
		return nil, err
	}
	var all []transaction
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			t, err := parseLogLine(line)
			if err != nil {
				return nil, err
			}
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("pgbench finished no transaction")
	}
	began := all[0].end - all[0].took
	for _, t := range all {
		began = min(began, t.end-t.took)
	}
	counted := newTally(window)
	for _, t := range all {
		counted.add(t.end-began, t.took)
	}
	return counted, nil
}

// transaction is when one ended, and how long it took.
type transaction struct{ end, took time.Duration }

// parseLogLine reads "client transaction time script seconds microseconds", of
// which time is how many microseconds the transaction took and the last two
// when it ended.
func parseLogLine(line string) (transaction, error) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return transaction{}, fmt.Errorf("pgbench logged %q", line)
	}
	var n [3]int64
	for i, field := range []string{fields[2], fields[4], fields[5]} {
		var err error
		if n[i], err = strconv.ParseInt(field, 10, 64); err != nil {
			return transaction{}, fmt.Errorf("pgbench logged %q", line)
		}
	}
	return transaction{
		end:  time.Duration(n[1])*time.Second + time.Duration(n[2])*time.Microsecond,
		took: time.Duration(n[0]) * time.Microsecond,
	}, nil
}
