package task

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// ScopeBudget is the budget of a session or a project, and what is used of it.
type ScopeBudget struct {
	Kind BudgetScope // SessionBudget or ProjectBudget
	Name string      // "": of each that has none of its own
	// Most is how much may be used; nil: there is no budget. It may be that of
	// each which has none of its own.
	Most       Amounts
	OnExceeded OnExceeded
	Period     string  // the present one: of a project the month, as 2006-01
	Used       Amounts // in this period, by all tasks; nil: nothing
	Raised     Amounts // by how much people have raised it in this period
	UpdatedAt  *time.Time
	UpdatedBy  string
}

// What the audit log says of budgets.
const (
	budgetResource     = "budget"
	actionPutBudget    = "budget.put"
	actionDeleteBudget = "budget.delete"
)

// budgetsSQL returns the scopes in of with their budgets and what is used.
const budgetsSQL = `
SELECT o.kind, o.name, b.most, coalesce(b.on_exceeded, '') AS on_exceeded, budget_period(o.kind) AS period,
	(SELECT jsonb_object_agg(s.unit, s.used) FROM spending s WHERE s.kind = o.kind AND s.name = o.name AND s.period = budget_period(o.kind)) AS used,
	(SELECT jsonb_object_agg(s.unit, s.raised) FROM spending s WHERE s.kind = o.kind AND s.name = o.name AND s.period = budget_period(o.kind) AND s.raised > 0) AS raised,
	b.updated_at, coalesce(b.updated_by, '') AS updated_by
FROM %s AS o LEFT JOIN LATERAL (
	SELECT * FROM budgets b WHERE b.kind = o.kind AND b.name IN ('', o.name) ORDER BY b.name DESC LIMIT 1
) b ON true ORDER BY o.kind, o.name`

var (
	listBudgetsSQL = fmt.Sprintf(budgetsSQL, `(SELECT kind, name FROM budgets WHERE @scope_all OR name = ''
		OR kind = 'project' AND name = @scope_project OR kind = 'session' AND (name = @session OR `+sessionSeen+`))`)
	getBudgetSQL = fmt.Sprintf(budgetsSQL, `(SELECT @kind::text AS kind, @name::text AS name)`)
)

// sessionSeen is the condition that the caller sees a task of the session name.
var sessionSeen = `EXISTS (SELECT FROM tasks t WHERE t.session_id = name AND t.session_id <> '' AND ` + confined + `)`

// Budgets returns the budgets that concern c, by kind and name.
func (s *Service) Budgets(ctx context.Context, c policy.Caller) ([]ScopeBudget, error) {
	all, err := s.readBudgets(ctx, c, listBudgetsSQL, pgx.NamedArgs{"session": c.SessionID})
	if err != nil {
		return nil, fmt.Errorf("list budgets: %w", err)
	}
	return all, nil
}

func (s *Service) readBudgets(ctx context.Context, c policy.Caller, sql string, args pgx.NamedArgs) (all []ScopeBudget, err error) {
	err = s.read(ctx, c, sql, args, func(rows pgx.Rows) (err error) {
		all, err = pgx.CollectRows(rows, pgx.RowToStructByName[ScopeBudget])
		return err
	})
	return all, err
}

// Budget returns the budget that holds for a session or a project, if there is
// one, and what is used. It returns NotFound for what c does not see.
func (s *Service) Budget(ctx context.Context, c policy.Caller, kind BudgetScope, name string) (ScopeBudget, error) {
	if err := checkScope(kind, name); err != nil {
		return ScopeBudget{}, err
	}
	if err := s.seesScope(ctx, c, kind, name); err != nil {
		return ScopeBudget{}, err
	}
	found, err := s.readBudgets(ctx, c, getBudgetSQL, pgx.NamedArgs{"kind": kind, "name": name})
	if err != nil {
		return ScopeBudget{}, fmt.Errorf("read the budget of %s %s: %w", kind, name, err)
	}
	return found[0], nil
}

// seesScope returns NotFound for the projects and sessions that c does not see:
// all but its own, and the sessions of which it sees tasks.
func (s *Service) seesScope(ctx context.Context, c policy.Caller, kind BudgetScope, name string) error {
	switch {
	case c.AllProjects, name == "",
		kind == ProjectBudget && name == c.ProjectID,
		kind == SessionBudget && name == c.SessionID:
		return nil
	case kind == SessionBudget:
		seen := false
		err := s.read(ctx, c, `SELECT `+sessionSeen+` FROM (SELECT @name::text AS name) o`, pgx.NamedArgs{"name": name}, func(rows pgx.Rows) (err error) {
			seen, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
			return err
		})
		if err != nil {
			return fmt.Errorf("look for session %s: %w", name, err)
		}
		if seen {
			return nil
		}
	}
	return fault.New(fault.NotFound, "no %s %s", kind, name)
}

func checkScope(kind BudgetScope, name string) error {
	var found []fault.Field
	if kind != SessionBudget && kind != ProjectBudget {
		found = append(found, fault.Field{Path: "path.kind", Message: "must be session or project"})
	}
	if name != "" && !IsID(name) {
		found = append(found, fault.Field{Path: "query.name", Message: "must be an id"})
	}
	return fault.InvalidFields(found)
}

// PutBudget bounds what the tasks of a session or a project use together, or
// those of each that has no budget of its own. What they have used already counts.
//
// Faults: Invalid; NotFound for what c does not see; Forbidden unless c may
// change the configuration, and for name "" unless it is confined to nothing.
func (s *Service) PutBudget(ctx context.Context, c policy.Caller, kind BudgetScope, name string, b Budget) (ScopeBudget, error) {
	if b.OnExceeded == "" {
		b.OnExceeded = FailExceeded
	}
	if err := checkScope(kind, name); err != nil {
		return ScopeBudget{}, err
	}
	if err := fault.InvalidFields(b.faults("body")); err != nil {
		return ScopeBudget{}, err
	}
	err := s.changeBudget(ctx, c, actionPutBudget, kind, name, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO budgets (kind, name, most, on_exceeded, updated_by) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (kind, name) DO UPDATE SET most = $3, on_exceeded = $4, updated_by = $5, updated_at = now()`,
			kind, name, b.Most, b.OnExceeded, c.UserID)
		return err
	})
	if err != nil {
		return ScopeBudget{}, err
	}
	return s.Budget(ctx, c, kind, name)
}

// DeleteBudget removes the budget of a session or a project; what they have used
// is still counted. Faults: as of PutBudget, and NotFound if there is none.
func (s *Service) DeleteBudget(ctx context.Context, c policy.Caller, kind BudgetScope, name string) error {
	if err := checkScope(kind, name); err != nil {
		return err
	}
	return s.changeBudget(ctx, c, actionDeleteBudget, kind, name, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM budgets WHERE kind = $1 AND name = $2`, kind, name)
		if err == nil && tag.RowsAffected() == 0 {
			return fault.New(fault.NotFound, "%s %s has no budget of its own", kind, name)
		}
		return err
	})
}

// changeBudget runs fn and writes the entry of the decision that allows it in one
// transaction.
func (s *Service) changeBudget(ctx context.Context, c policy.Caller, action string, kind BudgetScope, name string, fn func(pgx.Tx) error) error {
	if err := s.seesScope(ctx, c, kind, name); err != nil {
		return err
	}
	r := policy.Request{Permission: policy.ConfigWrite, Action: action, ProjectID: c.ProjectID}
	if kind == ProjectBudget && name != "" {
		r.ProjectID = name
	}
	on := subject{kind: budgetResource, id: string(kind) + ":" + name}
	if name == "" {
		on.whole = "what holds for each " + string(kind) + " holds for the whole server"
	}
	entry, err := s.allowOn(ctx, c, r, on)
	if err != nil {
		return err
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return audit.Fault(err)
	}
	poke(s.unparkSoon)
	return nil
}
