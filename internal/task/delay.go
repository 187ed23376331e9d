package task

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
)

// Delay says why a task does not run.
type Delay struct {
	Reason PendingReason
	// Limit is, with PendingLimit, the one that has no room, as kind:name, and
	// with PendingBudget whose nothing is left of.
	Limit string
	// Pause is, with PendingPaused, what is paused.
	Pause *Pause
	// Ahead is, with PendingTurn, how many tasks of the project come before, up
	// to 1,000.
	Ahead int
}

// PendingReason is the kind of reason.
type PendingReason string

// The reasons.
const (
	PendingDependency PendingReason = "dependency" // tasks that it depends on have not completed
	PendingNotBefore  PendingReason = "not-before" // its time has not come
	PendingLimit      PendingReason = "limit"      // a limit on what runs at once is reached
	PendingRate       PendingReason = "rate"       // as many tasks of the agent were begun as may be for now
	PendingPaused     PendingReason = "paused"     // its agent or session is paused
	PendingBudget     PendingReason = "budget"     // nothing is left of the session's or project's
	PendingNoWorker   PendingReason = "no-worker"  // no worker is there that could be given it
	PendingTurn       PendingReason = "turn"       // others come before, or the workers are busy
)

const maxAhead = 1000

// pendingSQL finds the first reason that holds for a task that waits for a
// worker; no row for any other.
var pendingSQL = fmt.Sprintf(`
SELECT CASE
	WHEN t.blocked_by > 0 THEN 'dependency'
	WHEN t.parked_by LIKE 'paused-%%' THEN 'paused'
	WHEN t.parked_by LIKE 'rate:%%' THEN 'rate'
	WHEN t.parked_by ~ '^(project|session)-budget:' THEN 'budget'
	WHEN t.parked_by <> '' THEN 'limit'
	WHEN t.run_after > clock_timestamp() THEN 'not-before'
	WHEN NOT EXISTS (
		SELECT FROM workers w WHERE %s
	) THEN 'no-worker'
	ELSE 'turn' END AS reason,
	regexp_replace(t.parked_by, '^(project|session)-budget:', '\1:') AS "limit",
	(SELECT count(*) FROM (
		SELECT FROM tasks a WHERE a.claimable AND a.project_id = t.project_id AND (a.rank, a.id) < (t.rank, t.id) LIMIT %d
	) ahead)::int AS ahead
FROM tasks t WHERE t.id = @id AND t.dispatch = 'auto' AND t.lease_token IS NULL AND t.completed_at IS NULL
	AND (t.status = 'pending' OR t.waiting_reason IN ('retry', 'worker-lost', 'resume'))`, servesSQL, maxAhead)

// Delay explains why a task that waits for a worker does not run. It is
// nil for one that does not wait for one.
func (s *Service) Delay(ctx context.Context, t Task) (*Delay, error) {
	if t.Dispatch != Auto || t.Status != Pending && t.WaitingReason != ForRetry && t.WaitingReason != ForWorker && t.WaitingReason != ForResumption {
		return nil, nil
	}
	return s.delay(ctx, t.ID)
}

func (s *Service) delay(ctx context.Context, id uuid.UUID) (*Delay, error) {
	rows, err := s.pool.Query(ctx, pendingSQL, pgx.NamedArgs{"id": id})
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("explain why task %s waits: %w", id, err))
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByNameLax[Delay])
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("explain why task %s waits: %w", id, err))
	}
	if len(found) == 0 { // it was claimed meanwhile
		return nil, nil
	}
	p := found[0]
	if p.Reason != PendingTurn {
		p.Ahead = 0
	}
	if p.Reason == PendingPaused {
		kind, name, _ := strings.Cut(strings.TrimPrefix(p.Limit, "paused-"), ":")
		p.Limit = ""
		if p.Pause, err = s.pause(ctx, PauseKind(kind), name); err != nil {
			return nil, err
		}
	}
	return &p, nil
}
