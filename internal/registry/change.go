package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// act is something that a caller asks for, as the audit log names it, and what
// was decided about it.
type act struct {
	caller       policy.Caller
	action       string // resource and verb
	resourceType string
	resourceID   string
	projectID    string // that it is about; empty: about all of them
	decision     policy.Decision
}

func (a act) entry() audit.Entry {
	e := audit.NewEntry(a.caller, a.action, a.resourceType, a.resourceID, a.decision)
	if a.projectID != "" {
		e.ProjectID = a.projectID
	}
	return e
}

// permit asks p whether the caller may act with a permission, and returns the
// act with the decision. A denial is recorded and comes back as Forbidden, or
// as NotFound if the caller is confined to another project.
func (r *Registry) permit(ctx context.Context, a act, p *policy.Policy, need policy.Permission) (act, error) {
	c := a.caller
	a.decision = p.Decide(c, policy.Request{Permission: need, Action: a.action, ProjectID: a.projectID})
	if d := &a.decision; d.Allowed && a.projectID == "" && !c.Sees("", c.UserID) {
		d.Allowed, d.Layer, d.Rule = false, policy.LayerProject, ""
		d.Reason = fmt.Sprintf("the session is confined to project %s, and this concerns all projects", c.ProjectID)
	}
	if a.decision.Allowed {
		return a, nil
	}
	err := r.deny(ctx, a)
	if a.projectID != "" && !c.Sees(a.projectID, c.UserID) {
		err = noPolicy(a.projectID)
	}
	return a, err
}

// permitShared is permit for changes of what all projects share.
func (r *Registry) permitShared(ctx context.Context, a act) (act, error) {
	p, err := r.Policy(ctx, "")
	if err != nil {
		return a, err
	}
	return r.permit(ctx, a, p, policy.ConfigWrite)
}

// deny records that an act is denied and returns that as a fault.
func (r *Registry) deny(ctx context.Context, a act) error {
	r.recorder.Record(ctx, a.entry())
	return a.decision.Err()
}

// denial is a decision against the caller that was found while acting.
type denial struct{ policy.Decision }

func (d *denial) Error() string { return d.Reason }

// commit runs fn and keeps the entry of the act in one transaction, and lets
// everyone know, this registry too. fn may complete the entry; it runs again
// when the database asks for it. If it comes to a denial, nothing is changed
// and the denial is recorded.
func (r *Registry) commit(ctx context.Context, a act, fn func(pgx.Tx, *audit.Entry) error) error {
	entry, written := a.entry(), false
	err := postgres.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		e := entry
		if err := fn(tx, &e); err != nil {
			return err
		}
		written = true
		return audit.Append(ctx, tx, e)
	})
	if d, ok := errors.AsType[*denial](err); ok {
		a.decision = d.Decision
		return r.deny(ctx, a)
	}
	// Even after an error: a commit whose answer was lost may have happened.
	if written {
		r.bus.Publish(stream.Signal{Topic: stream.AccessChanged})
	}
	return err
}

// lock makes changes of a table wait for each other. Readers go on.
func lock(ctx context.Context, tx pgx.Tx, t table) error {
	if _, err := tx.Exec(ctx, `LOCK TABLE `+string(t)+` IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return fmt.Errorf("lock %s: %w", t, err)
	}
	return nil
}
