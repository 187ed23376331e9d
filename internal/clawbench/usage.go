package clawbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// usage is what a round took of the machine. What cannot be seen from here is
// nil: a server or a PostgreSQL that is not ours, or on another machine, or a
// system without /proc.
type usage struct {
	ServerCores   *float64 `json:"serverCores"`
	ServerMiB     *float64 `json:"serverMiB"`
	PostgresCores *float64 `json:"postgresCores"`
	PostgresMiB   *float64 `json:"postgresMiB"` // shared memory counted once
	// Transactions are those of the database for each operation, as it counts
	// them itself: it hears of some a second late.
	Transactions *float64 `json:"transactionsPerOperation"`
}

func (u *usage) String() string {
	if u == nil {
		u = &usage{}
	}
	var cells []string
	for _, v := range []*float64{u.ServerCores, u.ServerMiB, u.PostgresCores, u.PostgresMiB, u.Transactions} {
		cell := "-"
		if v != nil {
			cell = strconv.FormatFloat(*v, 'f', 2, 64)
		}
		cells = append(cells, cell)
	}
	return strings.Join(cells, "\t")
}

// meter reads what a rig has used so far.
type meter struct {
	server   int // process ids; 0: not to be seen
	postgres int
	database *pgx.Conn // nil: not to be seen
}

// reading is what a meter shows.
type reading struct {
	at               time.Time
	server, postgres time.Duration // of processors
	transactions     int64
}

func newMeter(ctx context.Context, r *rig) (*meter, error) {
	m := &meter{}
	if r.own != nil {
		m.server = r.own.pid()
	}
	if r.database == "" {
		return m, nil
	}
	conn, err := pgx.Connect(ctx, r.database)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	m.database = conn
	// The parent of the process that serves us is PostgreSQL's first one, if it is
	// on this machine.
	if backend, err := readStat(int(conn.PgConn().PID())); err == nil && backend.name == "postgres" {
		if first, err := readStat(backend.parent); err == nil && first.name == "postgres" {
			m.postgres = first.pid
		}
	}
	return m, nil
}

func (m *meter) close(ctx context.Context) {
	if m.database != nil {
		_ = m.database.Close(ctx) // it was only read from
	}
}

func (m *meter) read(ctx context.Context) (reading, error) {
	now := reading{at: time.Now()}
	if stat, err := readStat(m.server); err == nil {
		now.server = stat.own
	}
	if family := family(m.postgres); len(family) > 0 {
		now.postgres = family[0].reaped
		for _, p := range family {
			now.postgres += p.own
		}
	}
	if m.database == nil {
		return now, nil
	}
	err := m.database.QueryRow(ctx, `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`).Scan(&now.transactions)
	if err != nil {
		return now, fmt.Errorf("count transactions: %w", err)
	}
	return now, nil
}

// since returns what was used since before, in which there were so many
// operations.
func (m *meter) since(ctx context.Context, before reading, operations int64) (*usage, error) {
	now, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	u := &usage{}
	share := func(cpu time.Duration) *float64 { return new(rounded(cpu.Seconds() / now.at.Sub(before.at).Seconds())) }
	if now.server > 0 {
		u.ServerCores = share(now.server - before.server)
		if bytes, err := residentOf(m.server); err == nil {
			u.ServerMiB = new(rounded(float64(bytes) / (1 << 20)))
		}
	}
	if now.postgres > 0 {
		u.PostgresCores = share(now.postgres - before.postgres)
		u.PostgresMiB = memoryOf(m.postgres)
	}
	if m.database != nil && operations > 0 {
		u.Transactions = new(rounded(float64(now.transactions-before.transactions) / float64(operations)))
	}
	return u, nil
}

// stat is what the system tells of a process.
type stat struct {
	pid, parent int
	session     int
	name, state string
	own, reaped time.Duration // of processors; reaped: its children's that have ended
}

// tick is the unit of times in /proc, which is the same on all Linux systems.
const tick = 10 * time.Millisecond

var errNoProcess = errors.New("no such process is to be seen")

// readStat reads /proc/PID/stat; see proc_pid_stat(5).
func readStat(pid int) (s stat, err error) {
	if pid == 0 {
		return s, errNoProcess
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, errNoProcess
	}
	// The name, in parentheses, may contain anything.
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return s, errNoProcess
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 15 {
		return s, errNoProcess
	}
	number := func(field int) int64 { // counted from 1, as in the manual
		n, _ := strconv.ParseInt(fields[field-3], 10, 64) // the kernel writes numbers
		return n
	}
	return stat{
		pid: pid, parent: int(number(4)), session: int(number(6)), name: string(text[open+1 : end]), state: fields[0],
		own: time.Duration(number(14)+number(15)) * tick, reaped: time.Duration(number(16)+number(17)) * tick,
	}, nil
}

// family returns a process and its children, or nothing if it is not to be seen.
func family(pid int) []stat {
	first, err := readStat(pid)
	if err != nil {
		return nil
	}
	return append([]stat{first}, processes(func(s stat) bool { return s.parent == pid })...)
}

// processes returns those of this machine for which the condition holds.
func processes(which func(stat) bool) (all []stat) {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name)) // digits, or no such process
		if s, err := readStat(pid); err == nil && which(s) {
			all = append(all, s)
		}
	}
	return all
}

// alive reports whether a process runs: one that has ended and that nobody has
// waited for does not.
func alive(pid int) bool {
	s, err := readStat(pid)
	return err == nil && s.state != "Z"
}

// residentOf returns how many bytes of the process are in memory.
func residentOf(pid int) (int64, error) { return procBytes(pid, "status", "VmRSS:") }

// memoryOf returns how many MiB a process and its children hold, what they share
// counted once; nil if that is not to be seen.
func memoryOf(pid int) *float64 {
	var sum int64
	for _, p := range family(pid) {
		bytes, err := procBytes(p.pid, "smaps_rollup", "Pss:")
		if err != nil {
			return nil
		}
		sum += bytes
	}
	return new(rounded(float64(sum) / (1 << 20)))
}

// procBytes reads a line such as "VmRSS:  12 kB" of a file of /proc.
func procBytes(pid int, file, name string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, fmt.Errorf("look at a process's memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("look at a process's memory: the system does not tell")
}
