package task

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// Retry submits a task like one that failed or was cancelled. Each names the
// other. A task is retried once: after that, its retry is. The new task is of the
// caller's session, and does not wait for the time that the first waited for.
//
// It returns NotFound if c does not see the task, Conflict if it did not fail, or
// has been retried, and otherwise the faults of Submit; key is as there.
func (s *Service) Retry(ctx context.Context, c policy.Caller, id uuid.UUID, key string) (Task, error) {
	t, err := s.Get(ctx, c, id)
	if err != nil {
		return t, err
	}
	if t.Status != Failed && t.Status != Cancelled {
		return t, fault.New(fault.Conflict, "task %s is %s: only what failed or was cancelled is retried", id, t.Status)
	}
	n := New{
		Description: t.Description, Input: t.Input, AgentID: t.AgentID, SkillID: t.SkillID, Model: t.Model, Thinking: t.Thinking,
		ProjectID: t.ProjectID, ParentTaskID: t.ParentTaskID, DependsOn: t.DependsOn, Dispatch: t.Dispatch, Priority: t.Priority,
		ConcurrencyKey: t.ConcurrencyKey, ConcurrencyLimit: t.ConcurrencyLimit,
		TimeoutSeconds: t.TimeoutSeconds, MaxAttempts: t.MaxAttempts, Budget: t.Budget, Labels: t.Labels, Requires: t.Requires, Metadata: t.Metadata,
		RetryOf: &id,
	}
	return s.Submit(ctx, c, n, key)
}

// link ties a new task to the one that it retries.
func (t *Task) link(ctx context.Context, tx pgx.Tx) error {
	if t.RetryOf == nil {
		return nil
	}
	tag, err := tx.Exec(ctx, `
		WITH first AS (
			UPDATE tasks SET retried_by = $2 WHERE id = $1 AND retried_by IS NULL AND status IN ('failed', 'cancelled') RETURNING id
		)
		UPDATE tasks SET retry_of = $1 WHERE id = $2 AND EXISTS (SELECT FROM first)`, t.RetryOf, t.ID)
	if err != nil {
		return fmt.Errorf("link task %s to its retry: %w", t.RetryOf, err)
	}
	if tag.RowsAffected() == 0 {
		return fault.New(fault.Conflict, "task %s has been retried already: retry its retry, retriedBy", t.RetryOf)
	}
	return nil
}
