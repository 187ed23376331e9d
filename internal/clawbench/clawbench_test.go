package clawbench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// TestMain is the server and the worker too: benchmarks start the program that they are in.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "server" || os.Args[1] == "worker") {
		if err := Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// resultOf runs a benchmark, briefly but long enough for a busy machine to
// finish something within the time, and returns what it prints.
func resultOf(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, log bytes.Buffer
	if args[0] != "fairness" { // which has an end of its own
		if !slices.Contains(args, "--clients") {
			args = append(args, "--clients", "4")
		}
		args = append(args, "--duration", "2s")
	}
	args = append(args, "--json")
	if err := Main(ctx, args, nil, &out, &log); err != nil {
		t.Fatalf("clawbench %s: %v\n%s", strings.Join(args, " "), err, log.String())
	}
	var res result
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		t.Fatalf("clawbench printed %q: %v", out.String(), err)
	}
	return res
}

func TestBenchmarksReportTheirFigures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args     string
		rows     string
		ratios   string
		measures string // positive ones
	}{
		{"submit --rounds 2", "server,pgbench", "server/pgbench", ""},
		{"submit --rounds 1 --auto", "server,pgbench", "server/pgbench", ""},
		{"submit --rounds 1 --baseline none --rate 50 --clients 1,2", "server, 1 clients,server, 2 clients", "", ""},
		{"lifecycle --rounds 1", "server,pgbench", "server/pgbench", ""},
		{"lifecycle --rounds 1 --manual", "server,pgbench", "server/pgbench", ""},
		{"lifecycle --rounds 1 --finished 300 --blocked 200 --compare --baseline none", "empty,300 finished,200 blocked", "300 finished/empty,200 blocked/empty", ""},
		{"submit --rounds 1 --finished 300 --blocked 200 --blocked-by limit --baseline none", "server", "", ""},
		{"progress --rounds 1 --tasks 20", "server,pgbench", "server/pgbench", ""},
		{"mixed --tasks 10 --followers 5", "submit,lifecycle,progress,list", "", "eventsDeliveredPerSecond"},
		{"soak --tasks 10 --followers 5", "submit,lifecycle,progress,list", "",
			"serverMiBFirst,serverMiBLast,goroutinesFirst,goroutinesLast,bytesPerRowLast,submissionsAcknowledged,completionsAcknowledged"},
		{"pickup --clients 1", "claimed,first line,completed", "", ""},
		{"cancel", "processes gone", "", "p95Ms"},
		{"fairness --workers 2 --flood 60 --few 4 --lasts 1ms --rounds 1", "", "",
			"aloneMs,floodFirstMs,floodFirstRatio,floodLastMs,floodLastRatio,floodRunningMs,floodRunningRatio"},
		{"idle --workers 2", "", "", "workers"},
		{"streams --streams 20 --events 5", "opening", "", "streams,eventP50Ms,eventP99Ms"},
		{"streams --streams 20 --events 5 --tasks 3", "opening", "", "streams,eventP50Ms,eventP99Ms"},
		{"streams --followers 5 --events-per-second 20 --rounds 1", "writers without followers,writers with 5 followers",
			"writers with 5 followers/writers without followers", "deliveries,deliveryP50Ms,deliveryP99Ms"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			args := append(strings.Fields(c.args), "--database-url", pgtest.EmptyURL(t))
			res := resultOf(t, args...)
			if res.Benchmark != args[0] || res.Unit == "" || res.Machine == "" {
				t.Errorf("it is called %q of %q on %q", res.Benchmark, res.Unit, res.Machine)
			}
			var rows, ratios []string
			for _, r := range res.Rows {
				rows = append(rows, r.Name)
				if r.PerSecond <= 0 || r.P50 <= 0 || r.P90 < r.P50 || r.P99 < r.P90 || r.P999 < r.P99 {
					t.Errorf("%s: %+v", r.Name, r.figures)
				}
			}
			for _, r := range res.Ratios {
				ratios = append(ratios, r.Of+"/"+r.To)
				if r.Throughput <= 0 || r.P99 <= 0 {
					t.Errorf("ratio %+v", r)
				}
			}
			if got := strings.Join(rows, ","); got != c.rows {
				t.Errorf("rows %s, want %s", got, c.rows)
			}
			if got := strings.Join(ratios, ","); got != c.ratios {
				t.Errorf("ratios %s, want %s", got, c.ratios)
			}
			for _, name := range strings.FieldsFunc(c.measures, func(r rune) bool { return r == ',' }) {
				if v := res.value(t, name); v <= 0 {
					t.Errorf("%s is %v", name, v)
				}
			}
		})
	}
}

func (r result) value(t *testing.T, measure string) float64 {
	t.Helper()
	for _, m := range r.Measures {
		if m.Name == measure {
			return m.Value
		}
	}
	t.Errorf("there is no %s in %+v", measure, r.Measures)
	return 0
}

// countsOf runs queries that count.
func countsOf(t *testing.T, url string, queries map[string]query) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for what, q := range queries {
		var got int
		if err := pool.QueryRow(t.Context(), q.sql).Scan(&got); err != nil {
			t.Fatalf("count %s: %v", what, err)
		}
		if got != q.want {
			t.Errorf("%s: %d instead of %d", what, got, q.want)
		}
	}
}

type query struct {
	sql  string
	want int
}

// kindsOfTasks tells how tasks differ, but in what is each one's own.
const kindsOfTasks = `SELECT count(DISTINCT (to_jsonb(t) - ARRAY['id', 'created_at', 'updated_at', 'started_at', 'completed_at', 'last_txid', 'tag', 'rank', 'worker_id']
	- 'metadata' || jsonb_build_object('metadata', t.metadata::text))) FROM tasks t`

func TestTheBaselineLeavesWhatTheServerLeaves(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	resultOf(t, "lifecycle", "--manual", "--rounds", "1", "--database-url", url)
	countsOf(t, url, map[string]query{
		"kinds of tasks":      {kindsOfTasks, 1},
		"unfinished tasks":    {`SELECT count(*) FROM tasks WHERE completed_at IS NULL OR started_at IS NULL OR last_seq <> 8`, 0},
		"kinds of events":     {`SELECT count(DISTINCT (seq, type, status, message, progress, data::text)) FROM task_events`, 8},
		"missing events":      {`SELECT 8 * (SELECT count(*) FROM tasks) - (SELECT count(*) FROM task_events)`, 0},
		"ids of other kinds":  {`SELECT count(*) FROM tasks WHERE id::text !~ '^.{14}7.{4}[89ab]'`, 0},
		"misplaced events":    {`SELECT count(*) FROM task_events_default`, 0},
		"times out of bounds": {`SELECT count(*) FROM tasks WHERE created_at < now() - interval '5 minutes' OR completed_at < started_at`, 0},
	})
}

func TestThePreloadIsWhatTheServerWouldHaveLeft(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	resultOf(t, "lifecycle", "--rounds", "1", "--finished", "50", "--baseline", "none", "--database-url", url)
	const kindsOf = `SELECT count(DISTINCT (seq, type, status, regexp_replace(message, '[0-9]+$', ''), progress, regexp_replace(data::text, '-[0-9]+', '')::jsonb)) FROM task_events`
	countsOf(t, url, map[string]query{
		"kinds of tasks":          {kindsOfTasks, 1},
		"kinds of events":         {kindsOf, 8},
		"missing events":          {`SELECT 8 * (SELECT count(*) FROM tasks) - (SELECT count(*) FROM task_events)`, 0},
		"tasks with other audits": {`SELECT count(*) FROM tasks t WHERE (SELECT array_agg(action ORDER BY action) FROM audit_entries WHERE resource_id = t.id::text) <> '{task.claim,task.submit}'`, 0},
	})
	url = pgtest.EmptyURL(t)
	resultOf(t, "submit", "--rounds", "1", "--blocked", "50", "--baseline", "none", "--database-url", url)
	countsOf(t, url, map[string]query{
		"blocked tasks":      {`SELECT count(*) FROM tasks WHERE blocked_by = 1 AND NOT claimable AND cardinality(depends_on) = 1`, 50},
		"their dependencies": {`SELECT count(*) FROM task_dependencies d JOIN tasks t ON t.id = d.task_id AND t.depends_on = ARRAY[d.depends_on_id]`, 50},
	})
}

func TestARunOfItsOwnLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	resultOf(t, "submit", "--rounds", "1", "--dir", dir)
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
		{"submit --rate -1", "must not be negative"},
		{"submit --finished -1", "must not be negative"},
		{"submit --compare", "needs --finished or --blocked"},
		{"submit --blocked-by magic", "dependency or limit"},
		{"lifecycle --batch 101", "between 1 and 100"},
		{"progress --tasks 0", "must be positive"},
		{"mixed --tasks 0", "must be positive"},
		{"soak --url http://127.0.0.1:1", "kills the server"},
		{"idle --workers 0", "must be positive"},
		{"fairness --few 0", "between 1 and 1000"},
		{"fairness --lasts 1m", "at most 10s"},
		{"fairness --order sideways", "first, last, running"},
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
