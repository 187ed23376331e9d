package task_test

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/task"
)

// endedVariable says how many ended tasks there are while plans are looked at.
// Default: 20,000, as many as take seconds to write.
const endedVariable = "CODERCLAW_TEST_ENDED_TASKS"

// manyTasks fills a database as a month of work does: most tasks have ended, as
// many as the setting test.ended says, of many projects, sessions, users and
// agents, and many wait for something. About a hundred are leased by each of two
// workers.
const manyTasks = `
CREATE TEMPORARY TABLE many AS
	SELECT n, now() - (ended + 4001 - n) * interval '28 days' / (ended + 4000) AS at, CASE
		WHEN n <= ended THEN 'ended' WHEN n <= ended + 1000 THEN 'claimable' WHEN n <= ended + 2000 THEN 'parked' WHEN n <= ended + 2800 THEN 'later'
		WHEN n <= ended + 3600 THEN 'blocked' WHEN n <= ended + 3800 THEN 'leased' ELSE 'manual' END AS kind
	FROM (SELECT current_setting('test.ended')::int AS ended) s, generate_series(1, ended + 4000) n;
ALTER TABLE many ADD COLUMN id uuid;
UPDATE many SET id = (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid;
CREATE INDEX ON many (n);

INSERT INTO tasks (id, parent_task_id, created_at, updated_at, started_at, completed_at, run_after, expires_at, deadline_at, lease_token, lease_expires_at, worker_id,
	last_seq, last_txid, blocked_by, claimable, status, dispatch, agent_id, user_id, description, input, session_id, project_id,
	depends_on, labels, idempotency_key, idempotency_index, parked_by, concurrency_key, concurrency_limit, tag, rank, schedule_id, output)
SELECT id, CASE WHEN n % 20 = 0 AND n > 20 THEN (SELECT id FROM many p WHERE p.n = m.n - 20) END, at, at, at, CASE kind WHEN 'ended' THEN at + interval '1 minute' END,
	CASE kind WHEN 'later' THEN now() + interval '1 day' END, CASE WHEN n % 4 = 0 THEN now() + interval '1 day' END, CASE WHEN n % 4 = 1 THEN now() + interval '1 day' END,
	CASE kind WHEN 'leased' THEN gen_random_uuid() END, CASE kind WHEN 'leased' THEN now() + interval '10 minutes' END,
	CASE kind WHEN 'leased' THEN 'w' || n % 2 ELSE '' END,
	3, '5', CASE kind WHEN 'blocked' THEN 1 ELSE 0 END, kind = 'claimable',
	CASE kind WHEN 'ended' THEN (ARRAY['completed', 'failed', 'cancelled'])[1 + n % 3] WHEN 'leased' THEN 'running' ELSE 'pending' END,
	CASE kind WHEN 'manual' THEN 'manual' ELSE 'auto' END, 'agent' || n % 97, 'user' || n % 89, 'task ' || n, repeat('x', 200),
	CASE WHEN n % 3 = 0 THEN 'session' || n % 501 ELSE '' END, CASE WHEN n % 5 = 0 THEN '' ELSE 'project' || n % 83 END,
	CASE kind WHEN 'blocked' THEN ARRAY[(SELECT id FROM many d WHERE d.n = current_setting('test.ended')::int + 3801 + m.n % 200)] ELSE '{}' END,
	CASE WHEN n % 2 = 0 THEN jsonb_build_object('team', (n % 4)::text, 'run', (n / 10)::text) ELSE '{}' END,
	'key' || n, 0, CASE kind WHEN 'parked' THEN 'key:/k' || n % 10 ELSE '' END, CASE kind WHEN 'parked' THEN 'k' || n % 10 ELSE '' END,
	CASE kind WHEN 'parked' THEN 1 ELSE 0 END, n, n,
	CASE WHEN n % 7 = 0 THEN ('00000000-0000-7000-8000-' || lpad((n % 49)::text, 12, '0'))::uuid END, repeat('y', 200)
FROM many m ORDER BY n;

INSERT INTO task_dependencies (depends_on_id, task_id) SELECT depends_on[1], id FROM tasks WHERE blocked_by = 1;

INSERT INTO task_events (task_id, seq, txid, created_at, type, status)
SELECT id, seq, (100 + n * 200 / (current_setting('test.ended')::int + 4000))::text::xid8, at + seq * interval '1 second', 'status', 'pending' FROM many, generate_series(1, 3) seq ORDER BY n, seq;

INSERT INTO questions (id, task_id, lease_token, expires_at, kind, project_id, user_id, text, skill_id, risk, status, answered_at)
SELECT gen_random_uuid(), id, gen_random_uuid(), now() + interval '1 day', 'input', 'project' || n % 83, 'user' || n % 89, repeat('?', 200), '', '',
	CASE kind WHEN 'leased' THEN 'open' ELSE 'withdrawn' END, CASE WHEN kind <> 'leased' THEN now() END FROM many WHERE n % 4 = 0;

INSERT INTO audit_entries (id, created_at, user_id, action, resource_type, resource_id, result)
SELECT id, at, 'user' || n % 89, 'task.submit', 'task', id::text, 'allowed' FROM many;
DROP TABLE many;`

func TestNothingReadsAllThereIs(t *testing.T) {
	t.Parallel()
	owner, pool, plans := pgtest.PlansDB(t)
	r := rigOn(t, pool)
	if err := r.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := cmp.Or(os.Getenv(endedVariable), "20000")
	if _, err := owner.Exec(t.Context(), `SELECT set_config('test.ended', $1, false), set_config('statement_timeout', '0', false)`, ended); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{manyTasks, `ANALYZE`} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	one := func(sql string) (id uuid.UUID) {
		t.Helper()
		must(t, owner.QueryRow(ctx, sql).Scan(&id))
		return id
	}
	list := func(c policy.Caller, f task.Filter) func(*testing.T) {
		return func(t *testing.T) {
			for before, page := uuid.Max, 0; page < 2; page++ {
				tasks, more, err := r.List(ctx, c, f, before, 20)
				if err != nil || len(tasks) == 0 {
					t.Fatalf("%d tasks, %v", len(tasks), err)
				}
				if before = tasks[len(tasks)-1].ID; !more {
					return
				}
			}
		}
	}
	inProject := policy.Caller{UserID: "user3", ProjectID: "project3", Roles: []policy.Role{policy.Developer}}
	inNone := policy.Caller{UserID: "user3", Roles: []policy.Role{policy.Developer}}
	parent := one(`SELECT parent_task_id FROM tasks WHERE parent_task_id IS NOT NULL ORDER BY id DESC LIMIT 1`)
	schedule := uuid.MustParse("00000000-0000-7000-8000-000000000007")
	r.ended(t, task.New{}, 1)
	const much = 2500 // fewer than of anything that grows
	for _, tc := range []struct {
		name string
		most float64
		do   func(t *testing.T)
	}{
		{"submit", 100, func(t *testing.T) {
			_, err := r.Submit(ctx, ann, task.New{Description: "d", SessionID: "session3", ProjectID: "project3"}, "")
			must(t, err)
		}},
		{"submit with a key", 100, func(t *testing.T) {
			for range 2 {
				_, err := r.Submit(ctx, inNone, task.New{Description: "d"}, "once")
				must(t, err)
			}
		}},
		{"submit below a parent, with dependencies", 1500, func(t *testing.T) {
			_, err := r.Submit(ctx, ann, task.New{Description: "d", ParentTaskID: new(r.manual(t).ID), DependsOn: []uuid.UUID{r.manual(t).ID}}, "")
			must(t, err)
		}},
		{"claim, report, renew, complete", 2 * much, func(t *testing.T) {
			leases := r.claim(t, "w0", 1)
			must(t, r.report(t, leases[0], task.Report{Status: task.Running}))
			must(t, r.report(t, leases[0], task.Report{Progress: new(50), Events: []task.ReportEvent{{Type: task.ProgressEvent, Progress: new(50)}}}))
			_, err := r.Heartbeat(ctx, task.InProcess, "w0", []uuid.UUID{leases[0].LeaseToken}, 0)
			must(t, err)
			_, err = r.Holding(ctx, task.InProcess, leases[0].ID, leases[0].LeaseToken, 0, 0)
			must(t, err)
			must(t, r.report(t, leases[0], task.Report{Status: task.Completed}))
		}},
		{"drive a manual task", 100, func(t *testing.T) { r.to(t, r.manual(t).ID, task.Completed) }},
		{"settle", 1000, func(t *testing.T) {
			id := one(`SELECT depends_on_id FROM task_dependencies LIMIT 1`)
			_, err := r.Cancel(ctx, ann, id)
			must(t, err)
		}},
		{"cancel a tree", 1000, func(t *testing.T) {
			root := r.manual(t).ID
			_, err := r.Submit(ctx, ann, task.New{Description: "d", ParentTaskID: &root}, "")
			must(t, err)
			_, err = r.Cancel(ctx, ann, root)
			must(t, err)
		}},
		{"sweep", 1000, func(t *testing.T) {
			r.submit(t, task.New{Description: "due", RunAfter: new(time.Now().Add(time.Millisecond))})
			_, err := r.Sweep(ctx)
			must(t, err)
		}},
		{"what has run out", 1000, func(t *testing.T) {
			_, err := owner.Exec(ctx, `UPDATE tasks SET lease_expires_at = now() WHERE id IN (SELECT id FROM tasks WHERE lease_token IS NOT NULL LIMIT 1);
				UPDATE tasks SET expires_at = now() WHERE id IN (SELECT id FROM tasks WHERE status = 'pending' AND expires_at IS NOT NULL LIMIT 1);
				UPDATE tasks SET deadline_at = now() WHERE id IN (SELECT id FROM tasks WHERE completed_at IS NULL AND deadline_at IS NOT NULL LIMIT 1);
				UPDATE questions SET expires_at = now() WHERE id IN (SELECT id FROM questions WHERE status = 'open' LIMIT 1)`)
			must(t, err)
			_, err = r.Sweep(ctx)
			must(t, err)
		}},
		{"a worker starts anew", 1000, func(t *testing.T) { r.register(t, task.NewWorker{ID: "w0", Instance: uuid.New()}) }},
		{"unpark, and what was left undone", much, func(t *testing.T) { must(t, r.Prepare(ctx)) }},
		{"why a task waits", 2000, func(t *testing.T) {
			tk := r.get(t, one(`SELECT id FROM tasks WHERE claimable ORDER BY rank DESC LIMIT 1`))
			_, err := r.Delay(ctx, tk)
			must(t, err)
		}},
		{"get", 10, func(t *testing.T) {
			r.get(t, parent)
			_, _ = r.Get(ctx, inProject, parent)
		}},
		{"tree", 100, func(t *testing.T) {
			_, _, err := r.Tree(ctx, ann, parent)
			must(t, err)
		}},
		{"events and attempts", 100, func(t *testing.T) {
			_, err := r.Events(ctx, ann, parent, 1, 100)
			must(t, err)
			_, err = r.Attempts(ctx, ann, parent)
			must(t, err)
			_, err = r.EventsAfter(ctx, map[uuid.UUID]int64{parent: 1, one(`SELECT id FROM tasks LIMIT 1`): 0})
			must(t, err)
		}},
		{"events, confined", 100, func(t *testing.T) {
			_, err := r.Events(ctx, inProject, one(`SELECT id FROM tasks WHERE project_id = 'project3' LIMIT 1`), 0, 100)
			must(t, err)
		}},
		{"the log of all events", 1000, func(t *testing.T) {
			_, _, err := r.Ends(ctx)
			must(t, err)
			_, _, _, err = r.ReadLog(ctx, task.Position{Tx: 200})
			must(t, err)
		}},
		{"list", 200, list(ann, task.Filter{})},
		{"list by status", 500, list(ann, task.Filter{Status: []task.Status{task.Running}})},
		{"list by some statuses", 500, list(ann, task.Filter{Status: []task.Status{task.Running, task.Waiting}})},
		{"list by agent", 300, list(ann, task.Filter{AgentID: "agent3"})},
		{"list by session", 300, list(ann, task.Filter{SessionID: "session3"})},
		{"list by project", 300, list(ann, task.Filter{ProjectID: "project3"})},
		{"list by a rare label", much, list(ann, task.Filter{Labels: map[string]string{"run": "300"}})},
		{"list by a frequent label", much, list(ann, task.Filter{Labels: map[string]string{"team": "2"}})},
		{"list what a project has by label", much, list(inProject, task.Filter{Labels: map[string]string{"run": "8"}})},
		{"list the newest", much, list(ann, task.Filter{CreatedAfter: time.Now().Add(-20 * time.Minute)})},
		{"list by schedule", 300, list(ann, task.Filter{ScheduleID: &schedule})},
		{"list what a project has", 300, list(inProject, task.Filter{})},
		{"list what belongs to no project", 300, list(inNone, task.Filter{})},
		{"list children", 300, func(t *testing.T) {
			_, _, err := r.List(ctx, ann, task.Filter{ParentTaskID: &parent}, uuid.Max, 50)
			must(t, err)
		}},
		{"questions", 500, func(t *testing.T) {
			_, _, err := r.Questions(ctx, ann, task.QuestionFilter{}, 1<<62, 50)
			must(t, err)
		}},
		{"schedules", 500, func(t *testing.T) {
			sc := r.hourly(t, ann, nil)
			r.comeUp(t, time.Hour)
			r.sweep(t)
			r.comeUp(t, time.Hour)
			r.sweep(t)
			if len(r.runs(t, sc.ID)) == 0 {
				t.Error("it did not run")
			}
		}},
		{"retention", much, func(t *testing.T) {
			must(t, r.Retain(ctx, false))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { plans.Of(t, pool, tc.most, func() { tc.do(t) }) })
	}
	rows, err := owner.Query(ctx, `SELECT indexname::text FROM pg_indexes WHERE tablename = 'tasks'`)
	must(t, err)
	indexes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	unused := slices.DeleteFunc(indexes, plans.Uses)
	if len(unused) > 0 {
		t.Errorf("nothing uses the indexes %s", strings.Join(unused, ", "))
	}
}

// Else each of them would write to all indexes of the task.
func TestProgressAndHeartbeatsRewriteNoIndex(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := postgres.Open(t.Context(), url, postgres.MaxConns(8), postgres.As(postgres.AppRole))
	if err != nil {
		t.Fatal(err)
	}
	r := rigOn(t, pool)
	r.submit(t, task.New{})
	lease := r.claim(t, "w", 1)[0]
	for i := range 4 {
		if err := r.report(t, lease, task.Report{Progress: new(i), Events: []task.ReportEvent{{Type: task.ProgressEvent, Progress: new(i)}}}); err != nil {
			t.Fatal(err)
		}
		if lost, err := r.Heartbeat(t.Context(), task.InProcess, "w", []uuid.UUID{lease.LeaseToken}, 0); err != nil || len(lost) > 0 {
			t.Fatal(lost, err)
		}
	}
	pool.Close() // what the connections have counted is told when they end
	watcher, err := postgres.Open(t.Context(), url, postgres.MaxConns(1))
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	const writes = 1 + 4 + 4
	for {
		var updates, hot int
		if err := watcher.QueryRow(t.Context(), `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'tasks'`).Scan(&updates, &hot); err != nil {
			t.Fatal(err)
		}
		if updates == writes {
			if hot != writes-1 {
				t.Errorf("%d of %d updates rewrote no index; want all but the claim", hot, updates)
			}
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%d updates were counted, want %d", updates, writes)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
