package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// settleSQL draws the consequences of tasks that ended, for those that depend
// on them: after a completed one there is one thing less to wait for; after a
// failed or cancelled one they fail, and so on along the chain. Tasks that have
// not ended are left out, so asking too often does no harm.
const settleSQL = `
WITH RECURSIVE ended AS (
	SELECT id, status FROM tasks WHERE id = ANY ($1) AND completed_at IS NOT NULL
), doomed (id, because) AS (
	SELECT d.task_id, e.id FROM task_dependencies d JOIN ended e ON d.depends_on_id = e.id WHERE e.status <> 'completed'
	UNION
	SELECT d.task_id, d.depends_on_id FROM task_dependencies d JOIN doomed ON d.depends_on_id = doomed.id
), failed AS (
	UPDATE tasks t SET status = 'failed', claimable = false, completed_at = clock_timestamp(), updated_at = clock_timestamp(),
		error = 'task ' || d.because || ', which this one depends on, did not complete',
		last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM (SELECT id, min(because::text) AS because FROM doomed GROUP BY id) d
	WHERE t.id = d.id AND t.completed_at IS NULL
	RETURNING t.id, t.last_seq, t.last_txid, t.updated_at, t.error
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message)
	SELECT id, last_seq, last_txid, updated_at, 'status', 'failed', error FROM failed
), gone AS (
	DELETE FROM task_dependencies
	WHERE depends_on_id IN (SELECT id FROM ended UNION ALL SELECT id FROM doomed)
	RETURNING depends_on_id, task_id
), freed AS (
	UPDATE tasks t SET blocked_by = t.blocked_by - g.done,
		claimable = t.blocked_by = g.done AND t.dispatch = 'auto' AND t.status = 'pending'
			AND (t.run_after IS NULL OR t.run_after <= clock_timestamp())
	FROM (SELECT gone.task_id, count(*) AS done FROM gone JOIN ended ON ended.id = gone.depends_on_id
	      WHERE ended.status = 'completed' GROUP BY gone.task_id) g
	WHERE t.id = g.task_id AND t.completed_at IS NULL AND t.id NOT IN (SELECT id FROM doomed)
	RETURNING t.id
)
SELECT id FROM failed UNION ALL SELECT id FROM freed`

// queueSettle adds settleSQL for the tasks to a batch; the ids of those that it
// touched are appended to touched.
func queueSettle(b *pgx.Batch, ended []uuid.UUID, touched *[]uuid.UUID) {
	b.Queue(settleSQL, ended).Query(func(rows pgx.Rows) error {
		ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		*touched = append(*touched, ids...)
		return err
	})
}

const cancelSQL = `
WITH RECURSIVE tree (id) AS (
	SELECT id FROM tasks WHERE id = $1 AND completed_at IS NULL
	UNION
	SELECT t.id FROM tasks t JOIN tree ON t.parent_task_id = tree.id
), locked AS MATERIALIZED (
	SELECT t.id, t.worker_id, t.lease_token IS NOT NULL AS leased
	FROM tasks t JOIN tree USING (id) WHERE t.completed_at IS NULL ORDER BY t.id FOR UPDATE OF t
), cancelled AS (
	UPDATE tasks t SET status = 'cancelled', waiting_reason = '', claimable = false,
		lease_token = NULL, lease_expires_at = NULL,
		completed_at = clock_timestamp(), updated_at = clock_timestamp(),
		last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM locked l WHERE t.id = l.id
	RETURNING ` + columns + `, t.last_txid, CASE WHEN l.leased THEN l.worker_id ELSE '' END AS lost_by
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message)
	SELECT id, last_seq, last_txid, updated_at, 'status', 'cancelled',
		CASE WHEN id = $1 THEN '' ELSE 'cancelled with task ' || $1::uuid END
	FROM cancelled
)
SELECT ` + columns + `, t.lost_by FROM cancelled t`

// Cancel ends a task and its open descendants. Workers that run them hear of it
// at once. It returns InvalidTransition if the task is terminal.
func (s *Service) Cancel(ctx context.Context, _ policy.Caller, id uuid.UUID) (Task, error) {
	type row struct {
		Task
		LostBy string
	}
	var root Task
	var changed []uuid.UUID
	var signals []stream.Signal
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		root, changed, signals = Task{}, nil, nil
		rows, err := tx.Query(ctx, cancelSQL, id)
		if err != nil {
			return fmt.Errorf("cancel task %s: %w", id, err)
		}
		cancelled, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
		if err != nil {
			return fmt.Errorf("cancel task %s: %w", id, err)
		}
		for _, r := range cancelled {
			if r.ID == id {
				root = r.Task
			}
			changed = append(changed, r.ID)
			if r.LostBy != "" {
				signals = append(signals, stream.Signal{Topic: stream.LeaseLost, ID: r.LostBy})
			}
		}
		if root.ID == uuid.Nil {
			// It ended before we got hold of it: its descendants stay as they were.
			return s.explainCancel(ctx, tx, id)
		}
		b := &pgx.Batch{}
		queueSettle(b, changed, &changed)
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return Task{}, postgres.Fault(err)
	}
	s.announceChanged(changed...)
	s.bus.Publish(signals...)
	return root, nil
}

func (s *Service) explainCancel(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	var st Status
	err := tx.QueryRow(ctx, `SELECT status FROM tasks WHERE id = $1`, id).Scan(&st)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return noTask(id)
	case err != nil:
		return fmt.Errorf("read task %s: %w", id, err)
	}
	return fault.New(fault.InvalidTransition, "task %s is %s, which is final", id, st)
}
