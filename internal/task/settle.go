package task

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// settleSQL draws the consequences of tasks that ended, for those that depend
// on them: after a completed one there is one thing less to wait for; after a
// failed or cancelled one they fail, and so on along the chain. Tasks that have
// not ended are left out, so asking too often does no harm.
var settleSQL = `
WITH RECURSIVE ended AS (
	SELECT id, status FROM tasks WHERE id = ANY ($1) AND completed_at IS NOT NULL
), doomed (id, because) AS (
	SELECT d.task_id, e.id FROM task_dependencies d JOIN ended e ON d.depends_on_id = e.id WHERE e.status <> 'completed'
	UNION
	-- LATERAL with OFFSET 0 is walked by the index: the planner, which cannot
	-- know how few are doomed, would read the whole table for a join.
	SELECT d.task_id, doomed.id FROM doomed CROSS JOIN LATERAL (
		SELECT task_id FROM task_dependencies WHERE depends_on_id = doomed.id OFFSET 0
	) d
), failed AS (
	UPDATE tasks t SET status = 'failed', status_reason = 'dependency', claimable = false, completed_at = clock_timestamp(), updated_at = clock_timestamp(),
		error = 'task ' || d.because || ', which this one depends on, did not complete',
		last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM (SELECT id, min(because::text) AS because FROM doomed GROUP BY id) d
	WHERE t.id = d.id AND t.id = ANY (ARRAY (SELECT id FROM doomed)) AND t.completed_at IS NULL -- an array goes by the index, too
	RETURNING t.id, t.last_seq, t.last_txid, t.updated_at, t.error
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message)
	SELECT id, last_seq, last_txid, updated_at, 'status', 'failed', error FROM failed
), gone AS (
	DELETE FROM task_dependencies
	WHERE depends_on_id = ANY (ARRAY (SELECT id FROM ended UNION ALL SELECT id FROM doomed))
	RETURNING depends_on_id, task_id
), freed AS (
	UPDATE tasks t SET blocked_by = t.blocked_by - g.done, updated_at = clock_timestamp(),
		claimable = t.blocked_by = g.done AND t.dispatch = 'auto' AND t.status = 'pending'
			AND (t.run_after IS NULL OR t.run_after <= clock_timestamp()), ` + requeueSQL + `
	FROM (SELECT gone.task_id, count(*) AS done FROM gone JOIN ended ON ended.id = gone.depends_on_id
	      WHERE ended.status = 'completed' GROUP BY gone.task_id) g
	WHERE t.id = g.task_id AND t.id = ANY (ARRAY (SELECT task_id FROM gone)) AND t.completed_at IS NULL AND t.id <> ALL (ARRAY (SELECT id FROM doomed))
	RETURNING t.id
)
SELECT id, true AS ended FROM failed UNION ALL SELECT id, false FROM freed`

// settled is a task that settleSQL touched.
type settled struct {
	ID    uuid.UUID
	Ended bool // it failed; otherwise it has one thing less to wait for
}

// queueSettle adds settleSQL for the tasks to a batch. What it touched is
// appended to touched; followUp draws the last consequences after the commit.
func queueSettle(b *pgx.Batch, ended []uuid.UUID, touched *[]settled) {
	b.Queue(settleSQL, ended).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[settled])
		*touched = append(*touched, found...)
		return err
	})
}

// followUp tells of what was settled. A dependent of a task that failed thereby
// may have been submitted at the same moment, unseen; it is settled in turn.
// What fails here is made up for by settleLeftovers: the change that it follows
// stands.
func (s *Service) followUp(ctx context.Context, touched []settled) {
	for len(touched) > 0 {
		var ended []uuid.UUID
		signals := []stream.Signal{{Topic: stream.WorkReady}} // one of them may be free now
		for _, t := range touched {
			signals = append(signals, stream.Signal{Topic: stream.TaskChanged, ID: t.ID.String()})
			if t.Ended {
				ended = append(ended, t.ID)
			}
		}
		s.bus.Publish(signals...)
		var err error
		if touched, err = s.settleOnce(ctx, ended); err != nil {
			s.log.WarnContext(ctx, "dependents left for later", "error", err)
		}
	}
}

// settle draws the consequences of tasks that ended.
func (s *Service) settle(ctx context.Context, ended []uuid.UUID) error {
	touched, err := s.settleOnce(ctx, ended)
	if err == nil {
		s.followUp(ctx, touched)
	}
	return err
}

func (s *Service) settleOnce(ctx context.Context, ended []uuid.UUID) (touched []settled, err error) {
	if len(ended) == 0 {
		return nil, nil
	}
	err = postgres.Retry(ctx, func() error {
		touched = nil
		b := &pgx.Batch{}
		b.Queue(planSQL)
		queueSettle(b, ended, &touched)
		return s.pool.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("settle dependents: %w", err)
	}
	return touched, nil
}

// settleLeftovers draws the consequences that were left undone by a process
// that was killed, or while the database was away.
func (s *Service) settleLeftovers(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, `SELECT DISTINCT d.depends_on_id FROM task_dependencies d
		JOIN tasks t ON t.id = d.depends_on_id WHERE t.completed_at IS NOT NULL`)
	if err != nil {
		return postgres.Fault(fmt.Errorf("look for unsettled dependents: %w", err))
	}
	ended, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return postgres.Fault(fmt.Errorf("look for unsettled dependents: %w", err))
	}
	return s.settle(ctx, ended)
}

const cancelSQL = `
WITH RECURSIVE tree (id) AS (
	SELECT $1::uuid
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

// cancelled is a task that cancelSQL ended, and the worker that held it.
type cancelled struct {
	Task
	LostBy string
}

// Cancel ends a task and its open descendants. Workers that run them hear of it
// at once. It returns NotFound if c does not see the task, Forbidden if the
// policies do not let c cancel it, and InvalidTransition if it is terminal.
func (s *Service) Cancel(ctx context.Context, c policy.Caller, id uuid.UUID) (Task, error) {
	t, err := s.Get(ctx, c, id)
	if err != nil {
		return Task{}, err
	}
	r := policy.Request{Permission: policy.TaskCancel, Action: actionCancel, ProjectID: t.ProjectID, Labels: t.Labels}
	entry, err := s.allow(ctx, c, r, id.String())
	if err != nil {
		return Task{}, err
	}
	return s.cancel(ctx, id, entry)
}

// cancel ends a task and its open descendants, for the reason that the entry
// states.
func (s *Service) cancel(ctx context.Context, id uuid.UUID, entry audit.Entry) (Task, error) {
	var all []cancelled
	var touched []settled
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		// The lock comes first and the tree after it: a child that is being
		// submitted either stands in the tree by then or finds its parent
		// cancelled.
		var st Status
		err = tx.QueryRow(ctx, `SELECT status FROM tasks WHERE id = $1 FOR UPDATE`, id).Scan(&st)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return noTask(id)
		case err != nil:
			return fmt.Errorf("cancel task %s: %w", id, err)
		case st.Terminal():
			return fault.New(fault.InvalidTransition, "task %s is %s, which is final", id, st)
		}
		if all, touched, err = endTree(ctx, tx, id); err != nil {
			return err
		}
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return Task{}, err
	}
	s.announceCancelled(all)
	s.followUp(ctx, touched)
	root := slices.IndexFunc(all, func(c cancelled) bool { return c.ID == id })
	return all[root].Task, nil
}

// announceCancelled tells followers and workers of cancelled tasks.
func (s *Service) announceCancelled(tasks []cancelled) {
	signals := make([]stream.Signal, 0, 2*len(tasks))
	for _, c := range tasks {
		signals = append(signals, stream.Signal{Topic: stream.TaskChanged, ID: c.ID.String()})
		if c.LostBy != "" {
			s.leftRoom()
			signals = append(signals, stream.Signal{Topic: stream.LeaseLost, ID: c.LostBy})
		}
	}
	s.bus.Publish(signals...)
}

// endTree cancels what is open of a tree whose root the transaction holds, and
// settles what depends on any of it.
func endTree(ctx context.Context, tx pgx.Tx, root uuid.UUID) (all []cancelled, touched []settled, err error) {
	if all, err = cancelTree(ctx, tx, root); err != nil {
		return nil, nil, fmt.Errorf("cancel task %s: %w", root, err)
	}
	ended := []uuid.UUID{root}
	for _, c := range all {
		ended = append(ended, c.ID)
	}
	b := &pgx.Batch{}
	b.Queue(planSQL)
	queueSettle(b, ended, &touched)
	return all, touched, tx.SendBatch(ctx, b).Close()
}

// cancelTree cancels what is open of a tree whose root the transaction holds.
// Each pass holds the tasks that it met; it is repeated until it meets no new
// ones, for what it had to wait for may have had a child meanwhile.
func cancelTree(ctx context.Context, tx pgx.Tx, root uuid.UUID) (all []cancelled, err error) {
	for {
		rows, err := tx.Query(ctx, cancelSQL, root)
		if err != nil {
			return nil, err
		}
		pass, err := pgx.CollectRows(rows, pgx.RowToStructByName[cancelled])
		if err != nil {
			return nil, err
		}
		all = append(all, pass...)
		if len(pass) == 0 || len(pass) == 1 && pass[0].ID == root { // the root alone: its children were all seen
			return all, nil
		}
	}
}
