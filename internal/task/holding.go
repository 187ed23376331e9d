package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Holding is how a task stands, to the worker that was the last to hold it.
type Holding struct {
	Held          bool // by the lease that is asked about
	Status        Status
	WaitingReason WaitingReason
	StatusReason  string
	LastSeq       int64 // the number of its newest event
}

// Holding returns how the task stands that a worker of the caller's holds, or
// held last, by the lease. While it is held and has no event after the number
// after it waits for that to change, at most wait. It returns LeaseLost if
// another principal's worker has it, or none had it.
func (s *Service) Holding(ctx context.Context, c policy.Caller, id, lease uuid.UUID, after int64, wait time.Duration) (Holding, error) {
	changed, forget := s.follow(id)
	defer forget()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		rows, err := s.pool.Query(ctx, `SELECT t.lease_token IS NOT DISTINCT FROM $2 AS held, t.status, t.waiting_reason, t.status_reason, t.last_seq
			FROM tasks t WHERE t.id = $1 AND EXISTS (SELECT FROM workers w WHERE w.id = t.worker_id AND $3 IN ('', w.owner))`, id, lease, ownerOf(c))
		if err != nil {
			return Holding{}, postgres.Fault(fmt.Errorf("read task %s: %w", id, err))
		}
		st, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Holding])
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return st, leaseLost(id)
		case err != nil:
			return st, postgres.Fault(fmt.Errorf("read task %s: %w", id, err))
		case !st.Held || st.LastSeq > after:
			return st, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return st, nil
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

// Leased returns the task to who holds its lease, a worker or the agent that the
// worker gave it to, or LeaseLost.
func (s *Service) Leased(ctx context.Context, c policy.Caller, id, lease uuid.UUID) (Task, error) {
	return leased(ctx, s.pool, c, id, lease)
}

// Lease returns the token of the lease by which a task is held now, or
// LeaseLost, also if there is no such task. It is for whoever has to compare
// it, and to be shown to nobody.
func (s *Service) Lease(ctx context.Context, id uuid.UUID) (lease uuid.UUID, err error) {
	err = s.pool.QueryRow(ctx, `SELECT lease_token FROM tasks WHERE id = $1 AND lease_token IS NOT NULL`, id).Scan(&lease)
	if errors.Is(err, pgx.ErrNoRows) {
		return lease, leaseLost(id)
	}
	if err != nil {
		return lease, postgres.Fault(fmt.Errorf("read the lease of task %s: %w", id, err))
	}
	return lease, nil
}

// tellHolder lets the worker that held the task hear that its agent has ended the
// attempt: with its next heartbeat it would anyway.
func (s *Service) tellHolder(ctx context.Context, id uuid.UUID) {
	var worker string
	if err := s.pool.QueryRow(ctx, `SELECT worker_id FROM tasks WHERE id = $1`, id).Scan(&worker); err != nil {
		s.log.WarnContext(ctx, "a worker hears late that its agent has ended a task", "task", id, "error", err)
		return
	}
	s.bus.Publish(stream.Signal{Topic: stream.LeaseLost, ID: worker})
}
