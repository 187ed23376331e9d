package clawbench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// TestMain is the server too: benchmarks start the program that they are in.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "server" {
		if err := Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// figuresOf runs a benchmark, briefly but long enough for a busy machine to
// finish something within the time, and returns what it prints.
func figuresOf(t *testing.T, args ...string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, log bytes.Buffer
	args = append(args, "--clients", "4", "--duration", "2s", "--json")
	if err := Main(ctx, args, nil, &out, &log); err != nil {
		t.Fatalf("clawbench %s: %v\n%s", strings.Join(args, " "), err, log.String())
	}
	var figures map[string]any
	if err := json.Unmarshal(out.Bytes(), &figures); err != nil {
		t.Fatalf("clawbench printed %q: %v", out.String(), err)
	}
	return figures
}

func TestBenchmarksReportTheirFigures(t *testing.T) {
	t.Parallel()
	common := []string{"clients", "throughputPerSecond", "p50Ms", "p99Ms"}
	compared := append([]string{"baselinePerSecond", "ratio", "baselineP50Ms", "baselineP99Ms"}, common...)
	streams := append([]string{"streams", "eventP50Ms", "eventP99Ms"}, common...)
	for _, c := range []struct {
		args     string
		positive []string
		null     []string
	}{
		{"submit --rounds 2", compared, nil},
		{"submit --rounds 1 --auto", compared, nil},
		{"submit --rounds 1 --baseline none", common, []string{"baselinePerSecond", "ratio"}},
		{"lifecycle --rounds 1", compared, nil},
		{"streams --streams 20 --events 5", streams, []string{"baselinePerSecond", "ratio"}},
		{"streams --streams 20 --events 5 --tasks 3", streams, nil},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			args := append(strings.Fields(c.args), "--database-url", pgtest.EmptyURL(t))
			figures := figuresOf(t, args...)
			if figures["benchmark"] != args[0] {
				t.Errorf("the benchmark is called %v", figures["benchmark"])
			}
			for _, name := range c.positive {
				if v, ok := figures[name].(float64); !ok || v <= 0 {
					t.Errorf("%s is %v", name, figures[name])
				}
			}
			for _, name := range c.null {
				if v, there := figures[name]; !there || v != nil {
					t.Errorf("%s is %v", name, v)
				}
			}
		})
	}
}

func TestTheBaselineLeavesWhatTheServerLeaves(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	figuresOf(t, "lifecycle", "--rounds", "1", "--database-url", url)
	pool, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for what, q := range map[string]struct {
		sql  string
		want int
	}{
		"kinds of tasks": {`SELECT count(DISTINCT (to_jsonb(t) - ARRAY['id', 'created_at', 'updated_at', 'started_at', 'completed_at', 'last_txid', 'tag', 'rank'])
			- 'metadata' || jsonb_build_object('metadata', t.metadata::text)) FROM tasks t`, 1},
		"unfinished tasks":    {`SELECT count(*) FROM tasks WHERE completed_at IS NULL OR started_at IS NULL OR last_seq <> 8`, 0},
		"kinds of events":     {`SELECT count(DISTINCT (seq, type, status, message, progress, data::text)) FROM task_events`, 8},
		"missing events":      {`SELECT 8 * (SELECT count(*) FROM tasks) - (SELECT count(*) FROM task_events)`, 0},
		"ids of other kinds":  {`SELECT count(*) FROM tasks WHERE id::text !~ '^.{14}7.{4}[89ab]'`, 0},
		"misplaced events":    {`SELECT count(*) FROM task_events_default`, 0},
		"times out of bounds": {`SELECT count(*) FROM tasks WHERE created_at < now() - interval '5 minutes' OR completed_at < started_at`, 0},
	} {
		var got int
		if err := pool.QueryRow(t.Context(), q.sql).Scan(&got); err != nil {
			t.Fatalf("count %s: %v", what, err)
		}
		if got != q.want {
			t.Errorf("%s: %d instead of %d", what, got, q.want)
		}
	}
}

func TestARunOfItsOwnLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	figuresOf(t, "submit", "--rounds", "1", "--dir", dir)
	mustBeEmpty(t, dir)
}

// notifier is a log that tells when a text is said.
type notifier struct {
	text string
	said chan struct{}
}

func (n notifier) Write(p []byte) (int, error) {
	if strings.Contains(string(p), n.text) {
		n.said <- struct{}{}
	}
	return len(p), nil
}

func TestAnInterruptedRunLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	log := notifier{"round 1 of", make(chan struct{}, 1)}
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- Main(ctx, []string{"submit", "--rounds", "1000", "--clients", "4", "--duration", "2s", "--dir", dir}, nil, &out, log)
	}()
	select {
	case <-log.said:
		interrupt()
	case err := <-ended:
		t.Fatalf("it ended before it was interrupted: %v", err)
	}
	if err := <-ended; err == nil || err.Error() != "interrupted" {
		t.Errorf("it ended with %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("it printed %q", out.String())
	}
	mustBeEmpty(t, dir)
}

// openDir returns a directory that PostgreSQL's user can reach, unlike
// t.TempDir's.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "clawbench")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestNonsenseIsRefusedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"submit --clients 0", "must be positive"},
		{"submit --duration 0s", "must be positive"},
		{"lifecycle --rounds 0", "must be positive"},
		{"submit --baseline mysql", "pgbench or none"},
		{"streams --streams 0", "must be positive"},
		{"streams --streams 2000000000", "open files"},
		{"submit --url ftp://127.0.0.1", "want http://host:port"},
	} {
		err := Main(t.Context(), strings.Fields(c.args), nil, &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}
