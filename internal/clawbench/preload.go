package clawbench

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// preload is what is in the database before a benchmark begins.
type preload struct {
	finished int
	blocked  int
	by       string // what holds back those that are blocked
}

// The values of --blocked-by.
const (
	byDependency = "dependency"
	byLimit      = "limit"
)

const (
	// preloadChunk is how many tasks a transaction writes: the audit log is
	// sealed by whole transactions.
	preloadChunk = 10_000
	blockedAgent = "clawbench-blocked"
)

// pastSQL numbers tasks of the past, a millisecond apart, the last one now: $1
// and $2 are the first and the last number, $3 when number 0 was, in
// milliseconds. Ids are UUIDv7.
const pastSQL = `
WITH n AS (
	SELECT n, to_timestamp(($3::bigint + n) / 1000.0) AS at,
		(lpad(to_hex($3::bigint + n), 12, '0') || '7' || substr(md5('t' || n), 1, 3) || '8' || substr(md5(n::text), 1, 15))::uuid AS id
	FROM generate_series($1::bigint, $2::bigint) n
)`

// finishedSQL writes what the server leaves of a task that a worker completed.
const finishedSQL = pastSQL + `, t AS (
	INSERT INTO tasks (id, created_at, updated_at, started_at, completed_at, last_seq, last_txid, attempt, progress, claimable,
		status, dispatch, agent_id, user_id, description, input, worker_id, output, tag, rank)
	SELECT id, at, at, at, at, 8, pg_current_xact_id(), 1, 100, false,
		'completed', 'auto', $4, 'local', $5, $6, 'clawbench-0', $7, n, n FROM n
), e AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, progress, data)
	SELECT id, e.seq, pg_current_xact_id(), at, e.type, e.status, e.message, e.progress, e.data::json
	FROM n, (VALUES
		(1, 'status', 'pending', '', NULL::int, NULL), (2, 'status', 'planning', 'attempt 1 on worker clawbench-0', NULL, '{"attempt":1,"worker":"clawbench-0"}'),
		(3, 'status', 'running', '', NULL, NULL), (4, 'progress', 'running', $8, 20, NULL), (5, 'progress', 'running', $8, 40, NULL),
		(6, 'progress', 'running', $8, 60, NULL), (7, 'progress', 'running', $8, 80, NULL), (8, 'status', 'completed', '', 100, NULL)
	) e (seq, type, status, message, progress, data)
)` + pastEntriesSQL + `(VALUES ('task.submit'), ('task.claim')) a (action)`

// pastEntriesSQL writes the audit entries of the tasks; the actions follow.
const pastEntriesSQL = `
INSERT INTO audit_entries (id, created_at, policy_version, user_id, action, resource_type, resource_id, result, layer, reason, address)
SELECT (lpad(to_hex($3::bigint + n), 12, '0') || '7' || substr(md5(a.action), 1, 3) || '9' || substr(md5('a' || n), 1, 15))::uuid,
	at, 1, 'local', a.action, 'task', id::text, 'allowed', 'permission', 'role developer grants task:submit', '127.0.0.1'
FROM n CROSS JOIN `

// blockedSQL writes tasks that wait for $7, if it is a task, else are parked
// by $8.
const blockedSQL = pastSQL + `, t AS (
	INSERT INTO tasks (id, created_at, updated_at, last_seq, last_txid, claimable,
		status, dispatch, agent_id, user_id, description, input, tag, rank, depends_on, blocked_by, parked_by)
	SELECT id, at, at, 1, pg_current_xact_id(), false,
		'pending', 'auto', $4, 'local', $5, $6, n, n, CASE WHEN $7::uuid IS NULL THEN '{}' ELSE ARRAY[$7::uuid] END, CASE WHEN $7::uuid IS NULL THEN 0 ELSE 1 END, $8
	FROM n
), e AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status)
	SELECT id, 1, pg_current_xact_id(), at, 'status', 'pending' FROM n
), d AS (
	INSERT INTO task_dependencies (depends_on_id, task_id) SELECT $7::uuid, id FROM n WHERE $7::uuid IS NOT NULL
)` + pastEntriesSQL + `(VALUES ('task.submit')) a (action)`

// fill writes the preload, and waits until the database and the server are as
// they would be had it come about in time: statistics, vacuumed tables, a
// sealed audit log.
func (b *bench) fill(ctx context.Context, r *rig, p preload) error {
	if p.finished+p.blocked == 0 {
		return nil
	}
	n := payload()
	zero := time.Now().UnixMilli() - int64(p.finished+p.blocked)
	return r.query(ctx, func(conn *pgx.Conn) error {
		err := b.fillTasks(ctx, conn, "finished", finishedSQL, 1, p.finished, zero, noopAgent, n.Description, n.Input, finalOutput, progressMessage)
		if err != nil {
			return err
		}
		if p.blocked > 0 {
			var dependency *string
			parkedBy := "agent:" + blockedAgent
			if p.by == byDependency {
				t, err := r.client.SubmitTask(ctx, n)
				if err != nil {
					return fmt.Errorf("submit the task that others wait for: %w", err)
				}
				dependency, parkedBy = &t.ID, ""
			} else if _, err := conn.Exec(ctx, `INSERT INTO concurrency_limits (kind, name, max_running, updated_by)
				VALUES ('agent', $1, 0, 'clawbench') ON CONFLICT DO NOTHING`, blockedAgent); err != nil {
				return fmt.Errorf("put the limit that holds tasks back: %w", err)
			}
			err := b.fillTasks(ctx, conn, "blocked", blockedSQL, p.finished+1, p.blocked, zero, blockedAgent, n.Description, n.Input, dependency, parkedBy)
			if err != nil {
				return err
			}
		}
		if err := b.awaitSeal(ctx, conn); err != nil {
			return err
		}
		for _, statement := range []string{"VACUUM (ANALYZE) tasks", "VACUUM (ANALYZE) task_events", "VACUUM (ANALYZE) task_dependencies",
			"VACUUM (ANALYZE) audit_entries", "VACUUM (ANALYZE) audit_leaves"} {
			if _, err := conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		// Otherwise it would fall into the first round. Who may not have one made
		// goes without.
		_, _ = conn.Exec(ctx, "CHECKPOINT")
		return ctx.Err()
	})
}

func (b *bench) fillTasks(ctx context.Context, conn *pgx.Conn, what, sql string, first, n int, args ...any) error {
	for done := 0; done < n; done += preloadChunk {
		from, to := first+done, first+min(done+preloadChunk, n)-1
		if _, err := conn.Exec(ctx, sql, append([]any{from, to}, args...)...); err != nil {
			return fmt.Errorf("write %s tasks: %w", what, err)
		}
		if done%(10*preloadChunk) == 0 {
			b.say("writing %s tasks: %d of %d", what, done, n)
		}
	}
	return nil
}

// awaitSeal waits until the server has sealed the entries that are there now.
func (b *bench) awaitSeal(ctx context.Context, conn *pgx.Conn) error {
	var entries, sealed int64
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM audit_entries`).Scan(&entries); err != nil {
		return fmt.Errorf("count audit entries: %w", err)
	}
	for said := time.Now(); ; {
		if err := conn.QueryRow(ctx, `SELECT size FROM audit_seal`).Scan(&sealed); err != nil {
			return fmt.Errorf("look how far the audit log is sealed: %w", err)
		}
		if sealed >= entries {
			return nil
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			b.say("the server is sealing audit entries: %d of %d", sealed, entries)
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
}
