package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// SubjectKind is what a role is bound to.
type SubjectKind string

// The kinds of subjects.
const (
	UserSubject  SubjectKind = "user"
	GroupSubject SubjectKind = "group" // all users whose provider says that they are in it
)

// Binding gives a role to a user or a group.
type Binding struct {
	ID        uuid.UUID
	Kind      SubjectKind
	Subject   string // id of a user, or of a group such as github:acme/core
	Role      policy.Role
	ProjectID string // where; empty: everywhere
	CreatedBy string
	CreatedAt time.Time
}

const bindingColumns = `id, subject_kind AS kind, subject, role, project_id, created_by, created_at`

func toBinding(row pgx.CollectableRow) (Binding, error) {
	b, err := pgx.RowToStructByName[Binding](row)
	b.CreatedAt = b.CreatedAt.UTC()
	return b, err
}

// Bind gives a role to a subject, at once. The subject need not have been here
// yet. Of b the id, author and time are set here.
//
// Faults: Forbidden unless the caller administers the project, or the server
// where there is none, and holds every permission of the role; Invalid, as for
// unknown roles; Conflict when the subject has the role there.
func (s *Service) Bind(ctx context.Context, c policy.Caller, b Binding) (Binding, error) {
	b.ID, b.CreatedBy, b.CreatedAt = uuid.Must(uuid.NewV7()), c.UserID, s.now().UTC()
	a := act{"binding.create", "binding", b.ID.String()}
	d, err := s.administers(ctx, c, b.ProjectID)
	if err != nil {
		return Binding{}, err
	}
	p, err := s.policies.Policy(ctx, b.ProjectID)
	if err != nil {
		return Binding{}, err
	}
	if d.Allowed {
		if err := b.check(p); err != nil {
			return Binding{}, err
		}
		d = withinOwn(p, c, d, p.Grants(b.Role))
	}
	err = s.changeAccess(ctx, c, a, "", d, func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = b.detail()
		return s.insertBinding(ctx, tx, b)
	})
	if postgres.Violates(err, "role_bindings_once") {
		return Binding{}, fault.New(fault.Conflict, "%s %s has the role %s there", b.Kind, b.Subject, b.Role)
	}
	if err != nil {
		return Binding{}, err
	}
	return b, nil
}

func (b Binding) check(p *policy.Policy) error {
	var f faults
	if b.Kind != UserSubject && b.Kind != GroupSubject {
		f.bad("kind", "must be user or group")
	}
	f.subject("subject", b.Subject)
	if !p.KnownRole(b.Role) {
		f.bad("role", "%.40q is not a role", b.Role)
	}
	if b.ProjectID != "" {
		f.id("projectId", b.ProjectID)
	}
	return f.err()
}

// withinOwn turns d into a denial if the caller does not itself hold what it
// would give to others.
func withinOwn(p *policy.Policy, c policy.Caller, d policy.Decision, given []policy.Permission) policy.Decision {
	own := p.Permissions(c)
	for _, permission := range given {
		if !slices.Contains(own, permission) {
			d.Allowed, d.Layer, d.Rule = false, policy.LayerPermission, ""
			d.Reason = fmt.Sprintf("%s is not held by %s, who cannot give it", permission, c.UserID)
			return d
		}
	}
	return d
}

func (b Binding) detail() []byte {
	return detail(map[string]any{"kind": b.Kind, "subject": b.Subject, "role": b.Role, "projectId": b.ProjectID})
}

func (s *Service) insertBinding(ctx context.Context, tx pgx.Tx, b Binding) error {
	if _, err := tx.Exec(ctx, `
		INSERT INTO role_bindings (id, subject_kind, subject, role, project_id, created_by, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, b.ID, b.Kind, b.Subject, b.Role, b.ProjectID, b.CreatedBy, b.CreatedAt); err != nil {
		return fmt.Errorf("store role binding: %w", err)
	}
	return nil
}

// BindingFilter selects role bindings; what is zero selects all.
type BindingFilter struct {
	Subject   string
	Role      policy.Role
	ProjectID string
}

// Bindings returns up to limit role bindings that the filter selects, newest
// first, older than the one with the id before; uuid.Max begins. more says that
// there are further ones. An administrator sees all, or those of the project
// that it is confined to; others those of their own user.
func (s *Service) Bindings(ctx context.Context, c policy.Caller, f BindingFilter, before uuid.UUID, limit int) (bindings []Binding, more bool, err error) {
	whose, err := s.visible(ctx, c)
	if err != nil {
		return nil, false, err
	}
	if !storable(f.Subject + string(f.Role) + f.ProjectID) {
		return nil, false, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT `+bindingColumns+` FROM role_bindings
		WHERE id < @before AND (@whose = '' OR subject_kind = 'user' AND subject = @whose) AND (@own = '' OR project_id = @own)
			AND (@subject = '' OR subject = @subject) AND (@role = '' OR role = @role) AND (@project = '' OR project_id = @project)
		ORDER BY id DESC LIMIT @limit`,
		pgx.NamedArgs{"before": before, "whose": whose, "own": c.ProjectID, "subject": f.Subject, "role": string(f.Role),
			"project": f.ProjectID, "limit": limit + 1})
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list role bindings: %w", err))
	}
	bindings, err = pgx.CollectRows(rows, toBinding)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list role bindings: %w", err))
	}
	bindings, more = page(bindings, limit)
	return bindings, more, nil
}

// Unbind takes a role away, at once.
//
// Faults: NotFound, also for one whose project the caller does not administer;
// Conflict for what would leave nobody who administers the server.
func (s *Service) Unbind(ctx context.Context, c policy.Caller, id uuid.UUID) error {
	rows, err := s.pool.Query(ctx, `SELECT `+bindingColumns+` FROM role_bindings WHERE id = $1`, id)
	if err != nil {
		return postgres.Fault(fmt.Errorf("read role binding: %w", err))
	}
	b, err := pgx.CollectExactlyOneRow(rows, toBinding)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return postgres.Fault(fmt.Errorf("read role binding: %w", err))
	}
	a := act{"binding.delete", "binding", id.String()}
	d, derr := s.administers(ctx, c, b.ProjectID)
	switch {
	case derr != nil:
		return derr
	case !d.Allowed:
		return s.refuse(ctx, c, a, hide(d, "role binding", id.String()))
	case err != nil:
		return missing("role binding", id.String())
	}
	return s.changeAccess(ctx, c, a, "", d, func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = b.detail()
		return keepAdministrator(ctx, tx, func() error {
			tag, err := tx.Exec(ctx, `DELETE FROM role_bindings WHERE id = $1`, id)
			if err != nil {
				return fmt.Errorf("delete role binding: %w", err)
			}
			if tag.RowsAffected() == 0 {
				return missing("role binding", id.String())
			}
			return nil
		})
	})
}
