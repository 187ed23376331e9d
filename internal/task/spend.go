package task

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Use counts what the agent of a leased task has used so far: on the task, its
// session and its project, in one transaction with the event that tells of it. A
// report that is repeated, or comes late, counts nothing twice.
//
// When four fifths of a budget are used it writes one event of that. When more
// than a budget has is used, the task fails, and Use returns LeaseLost; or people
// are asked whether the budget may be raised, and Use returns that question: the
// agent must be held until it is approved, for otherwise the task fails. Final
// says that the agent has ended: then there is nothing to stop any more.
//
// It returns LeaseLost, and counts nothing, if the lease is held no more, or by
// another principal's worker, Invalid for what is no amount, and Conflict for more
// sources than a task can have.
func (s *Service) Use(ctx context.Context, c policy.Caller, id, lease uuid.UUID, reported []Used, final bool) (held *Question, err error) {
	if err := checkUsed(reported); err != nil {
		return nil, err
	}
	var asked, changed bool
	var lostBy string
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		held, asked, changed, lostBy = nil, false, false, ""
		t, err := lockLeased(ctx, tx, c, id, lease)
		if err != nil {
			return err
		}
		if t.Usage == nil {
			t.Usage = &Usage{Used: Amounts{}, Sources: map[string]Amounts{}}
		}
		more, err := t.Usage.take(lease, reported)
		if err != nil {
			return err
		}
		standings, err := t.spend(ctx, tx, more)
		if err != nil {
			return err
		}
		var told []note
		if len(more) > 0 {
			told = append(told, note{"used so far: " + t.Usage.Used.String(), map[string]any{"used": t.Usage.Used}})
		}
		told = append(told, t.Usage.warn(standings)...)
		if changed = len(told) > 0; changed {
			if err := t.writeUsage(ctx, tx, told); err != nil {
				return err
			}
		}
		over := worst(standings)
		switch {
		case over == nil || final:
		case over.onExceeded == FailExceeded:
			lostBy, err = failExceeded(ctx, tx, id, over.String())
		default:
			held, asked, err = t.askToRaise(ctx, tx, lease, *over)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if changed || asked || lostBy != "" {
		s.announceChanged(id)
	}
	if asked {
		poke(s.sweepSoon)
	}
	if lostBy == "" {
		return held, nil
	}
	s.announceExceeded(ctx, id, lostBy)
	return nil, leaseLost(id)
}

// note is an event for people, with data for programs.
type note struct {
	message string
	data    any
}

// warn returns what is to be told of budgets that come to their end, each once.
func (u *Usage) warn(standings []BudgetUse) (told []note) {
	for _, st := range standings {
		if st.warns() && !slices.Contains(u.Warned, st.key()) {
			u.Warned = append(u.Warned, st.key())
			told = append(told, note{st.String(), map[string]any{"budget": st}})
		}
	}
	return told
}

// worst returns a budget that is exceeded, one that fails the task before one
// that people may raise; nil: none is.
func worst(standings []BudgetUse) (over *BudgetUse) {
	for i, st := range standings {
		if st.exceeded() && (over == nil || st.onExceeded == FailExceeded && over.onExceeded != FailExceeded) {
			over = &standings[i]
		}
	}
	return over
}

// Sums are written in one order, so that two tasks do not wait for each other.
const spendSQL = `
INSERT INTO spending AS s (kind, name, period, unit, used)
SELECT k.kind, k.name, budget_period(k.kind), u.unit, u.more
FROM (VALUES ('project', $1::text), ('session', $2)) AS k (kind, name), unnest($3::text[], $4::bigint[]) AS u (unit, more)
WHERE k.name <> '' ORDER BY k.kind, u.unit
ON CONFLICT (kind, name, period, unit) DO UPDATE SET used = least(s.used, $5 - excluded.used) + excluded.used`

const standingsSQL = `
SELECT k.kind, k.name, s.period, m.unit, s.used, m.most::bigint + s.raised, b.on_exceeded
FROM (VALUES ('project', $1::text), ('session', $2)) AS k (kind, name)
CROSS JOIN LATERAL (
	SELECT b.most, b.on_exceeded FROM budgets b WHERE b.kind = k.kind AND b.name IN ('', k.name) ORDER BY b.name DESC LIMIT 1
) b CROSS JOIN LATERAL jsonb_each_text(b.most) AS m (unit, most)
JOIN spending s ON s.kind = k.kind AND s.name = k.name AND s.period = budget_period(k.kind) AND s.unit = m.unit
WHERE k.name <> '' ORDER BY k.kind, m.unit`

// spend adds what was used to the sums of the task's session and project, and
// returns how all its budgets stand then.
func (t Task) spend(ctx context.Context, tx pgx.Tx, more Amounts) ([]BudgetUse, error) {
	b := &pgx.Batch{}
	if len(more) > 0 {
		units := slices.Sorted(maps.Keys(more))
		amounts := make([]int64, len(units))
		for i, unit := range units {
			amounts[i] = more[unit]
		}
		b.Queue(spendSQL, t.ProjectID, t.SessionID, units, amounts, int64(maxTotal))
	}
	all := t.standings()
	b.Queue(standingsSQL, t.ProjectID, t.SessionID).Query(func(rows pgx.Rows) error {
		var st BudgetUse
		_, err := pgx.ForEachRow(rows, []any{&st.Scope, &st.Name, &st.Period, &st.Unit, &st.Used, &st.Limit, &st.onExceeded}, func() error {
			all = append(all, st)
			return nil
		})
		return err
	})
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("count what task %s uses: %w", t.ID, err)
	}
	return all, nil
}

// usageSQL keeps what a task has used, with the events that tell of it as far as
// its history has room.
const usageSQL = `
WITH changed AS (
	UPDATE tasks t SET usage = $2, updated_at = clock_timestamp(), last_txid = greatest(t.last_txid, pg_current_xact_id()),
		last_seq = t.last_seq + CASE WHEN t.last_seq < $5 THEN cardinality($3::text[]) ELSE 0 END
	FROM tasks was WHERE t.id = $1 AND was.id = t.id
	RETURNING t.id, t.status, was.last_seq, t.last_txid, t.updated_at
)
INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
SELECT c.id, c.last_seq + e.place, c.last_txid, c.updated_at, 'log', c.status, e.message, e.data::json
FROM changed c, unnest($3, $4::text[]) WITH ORDINALITY AS e (message, data, place) WHERE c.last_seq < $5`

func (t Task) writeUsage(ctx context.Context, tx pgx.Tx, told []note) error {
	messages, data := make([]string, len(told)), make([]string, len(told))
	for i, n := range told {
		messages[i], data[i] = n.message, string(encoded(n.data))
	}
	if _, err := tx.Exec(ctx, usageSQL, t.ID, t.Usage, messages, data, MaxEvents); err != nil {
		return fmt.Errorf("keep what task %s uses: %w", t.ID, err)
	}
	return nil
}

// askToRaise asks people whether the exceeded budget may be raised, unless they
// are being asked about a budget already.
func (t Task) askToRaise(ctx context.Context, tx pgx.Tx, lease uuid.UUID, over BudgetUse) (q *Question, asked bool, err error) {
	rows, err := tx.Query(ctx, `SELECT `+questionColumns+` FROM questions q
		WHERE q.task_id = $1 AND q.lease_token = $2 AND q.status = 'open' AND q.budget IS NOT NULL`, t.ID, lease)
	if err != nil {
		return nil, false, fmt.Errorf("look for a question about a budget: %w", err)
	}
	open, err := pgx.CollectExactlyOneRow(rows, toQuestion)
	if err == nil || !errors.Is(err, pgx.ErrNoRows) {
		return &open, false, err
	}
	n := NewQuestion{
		ID: uuid.New(), Kind: Approval, Expires: usualExpiry, budget: &over,
		Text: over.String() + ". May it use as much again?",
	}
	open, err = t.ask(ctx, tx, lease, n)
	return &open, true, err
}

// raiseTaskSQL lets a task use a figure more, or as much as its budget has.
const raiseTaskSQL = `
UPDATE tasks SET usage = jsonb_set(usage, '{raised}', coalesce(usage -> 'raised', '{}') ||
	jsonb_build_object($2::text, (usage -> 'used' ->> $2)::bigint + coalesce($3::bigint - (budget -> 'most' ->> $2)::bigint, 0)))
WHERE id = $1`

// raiseSQL lets the tasks of a session or project use as much again as their
// budget has, unless it has been raised meanwhile; or a figure more, of which
// what others have raised it by is part.
const raiseSQL = `
UPDATE spending s SET raised = greatest(s.raised, s.used + coalesce($5::bigint - b.most, 0))
FROM (SELECT (most ->> $4)::bigint AS most FROM budgets WHERE kind = $1 AND name IN ('', $2) ORDER BY name DESC LIMIT 1) b
WHERE s.kind = $1 AND s.name = $2 AND s.period = $3 AND s.unit = $4 AND ($5::bigint IS NOT NULL OR s.used > b.most + s.raised)`

// raise lets a figure more be used from what is used by now; "": as much as the
// budget has. The transaction holds the task.
func (u BudgetUse) raise(ctx context.Context, tx pgx.Tx, id uuid.UUID, figure string) error {
	var more *int64
	if amount, ok := u.Figure(figure); ok {
		more = &amount
	}
	var err error
	if u.Scope == TaskBudget {
		_, err = tx.Exec(ctx, raiseTaskSQL, id, u.Unit, more)
	} else {
		_, err = tx.Exec(ctx, raiseSQL, u.Scope, u.Name, u.Period, u.Unit, more)
	}
	if err != nil {
		return fmt.Errorf("raise the budget of %s %s: %w", u.Scope, u.Name, err)
	}
	return nil
}

const failExceededSQL = `
WITH ended AS (
	UPDATE tasks t SET status = 'failed', waiting_reason = '', claimable = false, status_reason = '` + ReasonBudget + `', error = $2,
		lease_token = NULL, lease_expires_at = NULL, completed_at = clock_timestamp(), updated_at = clock_timestamp(),
		last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	WHERE t.id = $1
	RETURNING t.id, t.last_seq, t.last_txid, t.updated_at, t.worker_id
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
	SELECT id, last_seq, last_txid, updated_at, 'status', 'failed', $2, json_build_object('reason', '` + ReasonBudget + `') FROM ended
)
SELECT worker_id FROM ended`

// failExceeded fails a leased task that the transaction holds, and returns the
// worker that has lost it thereby.
func failExceeded(ctx context.Context, tx pgx.Tx, id uuid.UUID, why string) (lostBy string, err error) {
	if err := tx.QueryRow(ctx, failExceededSQL, id, why).Scan(&lostBy); err != nil {
		return "", fmt.Errorf("fail task %s: %w", id, err)
	}
	return lostBy, nil
}

// announceExceeded tells the worker of a task that has failed, and settles what
// depends on it. What fails here is made up for by settleLeftovers.
func (s *Service) announceExceeded(ctx context.Context, id uuid.UUID, lostBy string) {
	s.leftRoom()
	s.bus.Publish(stream.Signal{Topic: stream.LeaseLost, ID: lostBy})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := s.settle(ctx, []uuid.UUID{id}); err != nil {
		s.log.WarnContext(ctx, "dependents left for later", "error", err)
	}
}
