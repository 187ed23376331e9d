package task

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// The reasons why a task, or an attempt of it, did not succeed, besides those
// that executors give (exit:75, signal:9, …).
const (
	ReasonExpired    = "expired"              // nothing had begun at its ExpiresAt
	ReasonDeadline   = "deadline"             // it had not ended at its DeadlineAt
	ReasonTimeout    = "timeout"              // an attempt took longer than its TimeoutSeconds
	ReasonSilent     = "silent"               // its agent said nothing for its SilenceSeconds
	ReasonWorkerLost = "worker-lost"          // its worker was not heard of any more
	ReasonReleased   = "released"             // its worker gave it back
	ReasonPeople     = "waiting-for-a-person" // likewise, until its questions are answered
	ReasonDependency = "dependency"           // what it depends on did not complete
	ReasonDenied     = "denied"               // it is not allowed any more
	ReasonBudget     = "budget-exceeded"
)

// timeUpSQL fails the tasks whose time is up, some at a time. Workers that hold
// one of them have lost it.
const timeUpSQL = `
WITH due AS MATERIALIZED (
	SELECT id, worker_id, lease_token IS NOT NULL AS leased,
		CASE WHEN deadline_at <= now() THEN 'deadline' ELSE 'expired' END AS reason
	FROM tasks
	WHERE id IN (
		(SELECT id FROM tasks WHERE expires_at <= now() AND status = 'pending' ORDER BY expires_at LIMIT 500)
		UNION
		(SELECT id FROM tasks WHERE deadline_at <= now() AND completed_at IS NULL ORDER BY deadline_at LIMIT 500)
	) AND completed_at IS NULL FOR UPDATE SKIP LOCKED
), ended AS (
	UPDATE tasks t SET status = 'failed', waiting_reason = '', claimable = false, status_reason = d.reason,
		error = CASE d.reason WHEN 'deadline' THEN 'it had not ended by its deadline' ELSE 'nothing had begun when it expired' END,
		lease_token = NULL, lease_expires_at = NULL, completed_at = clock_timestamp(), updated_at = clock_timestamp(),
		last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM due d WHERE t.id = d.id AND t.completed_at IS NULL AND (d.reason = 'deadline' OR t.status = 'pending')
	RETURNING t.id, t.last_seq, t.last_txid, t.updated_at, t.error, d.reason, CASE WHEN d.leased THEN d.worker_id ELSE '' END AS lost_by
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
	SELECT id, last_seq, last_txid, updated_at, 'status', 'failed', error, json_build_object('reason', reason) FROM ended
)
SELECT id, lost_by FROM ended`

// endOverdue fails the tasks whose time is up.
func (s *Service) endOverdue(ctx context.Context) error {
	type row struct {
		ID     uuid.UUID
		LostBy string
	}
	rows, err := s.pool.Query(ctx, timeUpSQL)
	if err != nil {
		return postgres.Fault(fmt.Errorf("end overdue tasks: %w", err))
	}
	ended, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		return postgres.Fault(fmt.Errorf("end overdue tasks: %w", err))
	}
	var ids []uuid.UUID
	var signals []stream.Signal
	for _, r := range ended {
		ids = append(ids, r.ID)
		signals = append(signals, stream.Signal{Topic: stream.TaskChanged, ID: r.ID.String()})
		if r.LostBy != "" {
			s.leftRoom()
			signals = append(signals, stream.Signal{Topic: stream.LeaseLost, ID: r.LostBy})
		}
	}
	s.bus.Publish(signals...)
	return s.settle(ctx, ids)
}
