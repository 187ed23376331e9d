package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
)

// dispatchLimit is how many events are looked through at a time.
const dispatchLimit = 1000

// concerns is the condition that a webhook w is about a status event e of a
// task t.
const concerns = `(w.project_id IS NULL OR w.project_id = t.project_id AND (t.project_id <> '' OR w.user_id = t.user_id))
	AND (w.statuses = '{}' OR e.status = ANY (w.statuses)) AND (w.agent_id = '' OR w.agent_id = t.agent_id) AND t.labels @> w.labels`

// dispatchSQL queues what follows a place in the log and moves the cursor on.
// Only what is below the oldest running transaction is passed: nothing can be
// committed before it any more.
const dispatchSQL = `
WITH horizon AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS txid
), recent AS MATERIALIZED (
	SELECT task_id, seq, txid, position, type, status, created_at FROM task_events
	WHERE (txid, position) > ($1, $2) ORDER BY txid, position LIMIT $3
), settled AS MATERIALIZED (SELECT * FROM recent WHERE txid < (SELECT txid FROM horizon)
), queued AS (
	INSERT INTO webhook_deliveries (task_id, seq, webhook_id)
	SELECT e.task_id, e.seq, w.id FROM settled e JOIN tasks t ON t.id = e.task_id JOIN webhooks w ON ` + concerns + `
	WHERE e.type = 'status' AND w.enabled AND e.created_at >= w.begins_at
	ON CONFLICT DO NOTHING RETURNING 1
), moved AS (
	UPDATE webhook_cursor SET (txid, position) = (SELECT txid, position FROM settled ORDER BY txid DESC, position DESC LIMIT 1)
	WHERE EXISTS (SELECT FROM settled)
)
SELECT (SELECT count(*) FROM queued), (SELECT count(*) FROM settled) = $3, (SELECT count(*) FROM recent) > (SELECT count(*) FROM settled)`

// dispatch queues events whenever the log has grown, until ctx ends.
func (s *Service) dispatch(ctx context.Context) {
	for wait := minPause; pause(ctx, wait); {
		select {
		case <-s.logGrown:
		case <-ctx.Done():
			return
		}
		queued, more, unsettled, err := s.queueNext(ctx)
		if queued > 0 {
			poke(s.dueSoon)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil && postgres.Violates(err, "webhook_deliveries_webhook_fkey"):
			poke(s.logGrown) // a webhook was deleted this very moment
		case err != nil:
			s.log.WarnContext(ctx, "webhooks: events not queued", "error", err)
			poke(s.logGrown)
			wait = min(max(2*wait, time.Second), maxPause)
			continue
		case unsettled:
			poke(s.logGrown)
			wait = min(2*wait, 500*time.Millisecond)
			continue
		case more:
			poke(s.logGrown)
		}
		wait = minPause
	}
}

// queueNext queues what comes next in the log, unless another server is at it.
// more says that there is more; unsettled, that there are events whose place is
// not final yet.
func (s *Service) queueNext(ctx context.Context) (queued int, more, unsettled bool, err error) {
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		queued, more, unsettled = 0, false, false
		var txid uint64
		var position int64
		var enabled, restored bool
		// A statement of its own, so that the next one sees all that was committed
		// before the lock was had.
		err := tx.QueryRow(ctx, `SELECT txid, position, EXISTS (SELECT FROM webhooks WHERE enabled), txid > pg_snapshot_xmax(pg_current_snapshot())
			FROM webhook_cursor FOR UPDATE SKIP LOCKED`).Scan(&txid, &position, &enabled, &restored)
		if errors.Is(err, pgx.ErrNoRows) {
			// Whoever holds it was told of what it may have looked too early for, or
			// is making a webhook.
			s.active.Store(true)
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the cursor of webhooks: %w", err)
		}
		if s.active.Store(enabled); !enabled {
			return nil
		}
		if restored {
			// From a dump, into another cluster: the engine has moved all events
			// from before to transaction 3.
			if _, err := tx.Exec(ctx, `UPDATE webhook_cursor SET txid = '3'`); err != nil {
				return fmt.Errorf("restore the cursor of webhooks: %w", err)
			}
			txid = 3
		}
		if err := tx.QueryRow(ctx, dispatchSQL, txid, position, dispatchLimit).Scan(&queued, &more, &unsettled); err != nil {
			return fmt.Errorf("queue events: %w", err)
		}
		return nil
	})
	return queued, more, unsettled, err
}
