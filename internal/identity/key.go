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
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// MaxKeyLife is how long an API key may be good for.
	MaxKeyLife = 366 * 24 * time.Hour
	keyPrefix  = "ccl_"
	// What a worker's key may be confined to.
	maxWorkerLabels = 64
	maxWorkerIDs    = 1000
)

// Key is an API key, without its secret.
type Key struct {
	ID   string
	Name string // for people
	// UserID is who the key acts as; empty: as a principal of its own, key:<id>.
	UserID     string
	ProjectID  string              // the one that it is confined to
	Roles      []policy.Role       // never more than the user has at the time
	Scopes     []policy.Permission // nil: all that the roles grant
	Worker     *policy.WorkerScope // of a worker's key, which has no roles; nil: it is none
	CreatedBy  string
	CreatedAt  time.Time
	ExpiresAt  time.Time
	LastUsedAt *time.Time // within a minute or so
	RevokedAt  *time.Time
	RevokedBy  string
}

const keyColumns = `id, name, coalesce(user_id, '') AS user_id, project_id, roles, scopes, worker, created_by, created_at, expires_at,
	last_used_at, revoked_at, revoked_by`

func toKey(row pgx.CollectableRow) (Key, error) {
	k, err := pgx.RowToStructByName[Key](row)
	k.CreatedAt, k.ExpiresAt, k.LastUsedAt, k.RevokedAt = k.CreatedAt.UTC(), k.ExpiresAt.UTC(), utc(k.LastUsedAt), utc(k.RevokedAt)
	return k, err
}

// NewKey is an API key to make.
type NewKey struct {
	Name string
	// Service makes the key a principal of its own, which outlives whoever made
	// it, instead of acting as the caller.
	Service   bool
	ProjectID string              // "": that of the caller
	Roles     []policy.Role       // nil: those of the caller
	Scopes    []policy.Permission // nil: those of the caller
	// Worker makes it the key of workers, with no right but to serve tasks.
	Worker    *policy.WorkerScope
	ExpiresAt time.Time
}

// CreateKey makes an API key and returns it with its secret, which nobody can
// show again. It never carries more than the caller holds, and no key or
// workflow can make another.
//
// Faults: Forbidden, also for a service unless the caller administers the
// server or its project, and for a worker unless it administers the server;
// Invalid.
func (s *Service) CreateKey(ctx context.Context, c policy.Caller, n NewKey) (Key, string, error) {
	k := Key{
		ID: uuid.Must(uuid.NewV7()).String(), Name: n.Name, UserID: c.UserID, ProjectID: n.ProjectID, Roles: n.Roles, Scopes: n.Scopes,
		Worker: n.Worker, CreatedBy: c.UserID, CreatedAt: s.now().UTC(), ExpiresAt: n.ExpiresAt.UTC().Truncate(time.Microsecond),
	}
	a := act{"key.create", "key", k.ID}
	d, err := s.mayCreateKey(ctx, c, n)
	if err != nil {
		return Key{}, "", err
	}
	if !d.Allowed {
		return Key{}, "", s.refuse(ctx, c, a, &denial{decision: d})
	}
	if n.Service || n.Worker != nil {
		k.UserID = ""
	}
	if n.Worker != nil {
		if n.Roles != nil || n.Scopes != nil || n.ProjectID != "" {
			return Key{}, "", fault.InvalidFields([]fault.Field{{Path: "body.worker", Message: "goes without roles, scopes and projectId"}})
		}
		k.Roles, k.Scopes = []policy.Role{}, []policy.Permission{}
	}
	if k.ProjectID == "" {
		k.ProjectID = c.ProjectID
	}
	if k.Roles == nil {
		k.Roles = c.Roles
	}
	if k.Scopes == nil {
		k.Scopes = c.Scopes
	}
	p, err := s.policies.Policy(ctx, c.ProjectID)
	if err != nil {
		return Key{}, "", err
	}
	if err := k.check(p); err != nil {
		return Key{}, "", err
	}
	plain, hash := token.NewAPIKey(k.ID)
	err = s.change(ctx, c, a, k.within(p, c, d), func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = detail(map[string]any{"name": k.Name, "userId": k.UserID, "roles": k.Roles, "scopes": k.Scopes, "projectId": k.ProjectID, "worker": k.Worker, "expiresAt": k.ExpiresAt})
		_, err := tx.Exec(ctx, `
			INSERT INTO api_keys (id, secret_hash, name, user_id, project_id, roles, scopes, worker, created_by, created_at, expires_at)
			VALUES (@id, @hash, @name, nullif(@user, ''), @project, @roles, @scopes, @worker, @by, @now, @expires)`,
			pgx.NamedArgs{"id": k.ID, "hash": hash, "name": k.Name, "user": k.UserID, "project": k.ProjectID, "roles": k.Roles,
				"scopes": k.Scopes, "worker": k.Worker, "by": k.CreatedBy, "now": k.CreatedAt, "expires": k.ExpiresAt})
		if postgres.Violates(err, "api_keys_user_fkey") {
			return deny(policy.LayerSession, "%s has no account that a key could act for", c.UserID)
		}
		if err != nil {
			return fmt.Errorf("store key: %w", err)
		}
		return nil
	})
	if err != nil {
		return Key{}, "", err
	}
	return k, plain, nil
}

// mayCreateKey denies to what could otherwise outlive its own revocation.
func (s *Service) mayCreateKey(ctx context.Context, c policy.Caller, n NewKey) (policy.Decision, error) {
	if id, err := uuid.Parse(c.SessionID); err == nil {
		st, err := s.standing(ctx, id)
		if _, ended := errors.AsType[errEnded](err); ended {
			return policy.Decision{}, unauthenticated(err)
		}
		if err != nil {
			return policy.Decision{}, err
		}
		if st.method == keyMethod || st.method == actionsMethod {
			return policy.Decision{Layer: policy.LayerSession, Reason: "a key is made by people, not by a key or a workflow"}, nil
		}
	}
	if n.Service || n.Worker != nil {
		return s.administers(ctx, c, n.ProjectID)
	}
	return s.decide(ctx, c, policy.Request{Permission: policy.Admitted, Action: "key.create"})
}

func (k Key) check(p *policy.Policy) error {
	var f faults
	f.text("name", k.Name, maxNameBytes, true)
	if k.ProjectID != "" {
		f.id("projectId", k.ProjectID)
	}
	for i, r := range k.Roles {
		if !p.KnownRole(r) {
			f.bad(fmt.Sprintf("roles[%d]", i), "%.40q is not a role", r)
		}
	}
	if w := k.Worker; w != nil {
		for path, ids := range map[string][]string{"worker.projects": w.Projects, "worker.agents": w.Agents} {
			if len(ids) > maxWorkerIDs {
				f.bad(path, "must name at most %d", maxWorkerIDs)
			}
			for i, id := range ids {
				if id != "" || path == "worker.agents" { // tasks without a project are one
					f.id(fmt.Sprintf("%s[%d]", path, i), id)
				}
			}
		}
		if len(w.Labels) > maxWorkerLabels {
			f.bad("worker.labels", "must hold at most %d labels", maxWorkerLabels)
		}
		for name, value := range w.Labels {
			f.text("worker.labels", name, maxNameBytes, true)
			f.text("worker.labels", value, maxNameBytes, false)
		}
	} else if len(k.Roles) == 0 {
		f.bad("roles", "there must be one")
	}
	for i, scope := range k.Scopes {
		if !slices.Contains(policy.Permissions, scope) {
			f.bad(fmt.Sprintf("scopes[%d]", i), "%.40q is not a permission", scope)
		}
	}
	switch life := k.ExpiresAt.Sub(k.CreatedAt); {
	case k.ExpiresAt.IsZero():
		f.bad("expiresAt", "is required")
	case life <= 0:
		f.bad("expiresAt", "is past")
	case life > MaxKeyLife:
		f.bad("expiresAt", "must be at most 366 days away")
	}
	return f.err()
}

// within turns d into a denial if the key would hold what the caller does not.
func (k Key) within(p *policy.Policy, c policy.Caller, d policy.Decision) policy.Decision {
	if c.ProjectID != "" && k.ProjectID != c.ProjectID {
		d.Allowed, d.Layer, d.Reason = false, policy.LayerProject, fmt.Sprintf("the session is confined to project %s", c.ProjectID)
		return d
	}
	for _, r := range k.Roles {
		// A key that acts as its maker has no role that its maker lacks.
		if k.UserID != "" && !slices.Contains(c.Roles, r) {
			d.Allowed, d.Layer, d.Reason = false, policy.LayerPermission, fmt.Sprintf("%s does not have the role %s", c.UserID, r)
			return d
		}
	}
	given := p.Permissions(policy.Caller{Roles: k.Roles, Scopes: k.Scopes})
	if k.Scopes != nil {
		given = k.Scopes
	}
	return withinOwn(p, c, d, given)
}

// KeyFilter selects API keys; what is zero selects all.
type KeyFilter struct {
	UserID string
	Ended  bool // those that have expired or were revoked, too
}

// Keys returns up to limit API keys that the filter selects, by id, newest
// first, older than the one with the id before; "" begins. more says that there
// are further ones. A caller sees its user's, an administrator everyone's; one
// who is confined to a project only those of the project.
func (s *Service) Keys(ctx context.Context, c policy.Caller, f KeyFilter, before string, limit int) (keys []Key, more bool, err error) {
	whose, err := s.visible(ctx, c)
	if err != nil {
		return nil, false, err
	}
	if !storable(f.UserID + before) {
		return nil, false, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT `+keyColumns+` FROM api_keys
		WHERE (@before = '' OR id < @before) AND (@whose = '' OR user_id = @whose) AND (@project = '' OR project_id = @project)
			AND (@user = '' OR user_id = @user) AND (@ended OR revoked_at IS NULL AND expires_at > @now)
		ORDER BY id DESC LIMIT @limit`,
		pgx.NamedArgs{"before": before, "whose": whose, "project": c.ProjectID, "user": f.UserID, "ended": f.Ended,
			"now": s.now(), "limit": limit + 1})
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list keys: %w", err))
	}
	keys, err = pgx.CollectRows(rows, toKey)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list keys: %w", err))
	}
	keys, more = page(keys, limit)
	return keys, more, nil
}

// RevokeKey ends an API key, and the sessions opened with it, at once. NotFound
// unless it is the caller's own or the caller administers the server, or the
// key's project.
func (s *Service) RevokeKey(ctx context.Context, c policy.Caller, id string) error {
	k, err := s.findKey(ctx, id)
	if err != nil {
		return err
	}
	var d policy.Decision
	if k.UserID == c.UserID && c.UserID != "" && (c.ProjectID == "" || c.ProjectID == k.ProjectID) {
		d, err = s.serves(ctx, c)
	} else {
		d, err = s.administers(ctx, c, k.ProjectID)
	}
	a := act{"key.revoke", "key", id}
	switch {
	case err != nil:
		return err
	case !d.Allowed:
		return s.refuse(ctx, c, a, hide(d, "key", id))
	case k.ID == "":
		return missing("key", id)
	}
	return s.changeAccess(ctx, c, a, "", d, func(tx pgx.Tx, e *audit.Entry) error {
		if _, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $2, revoked_by = $3 WHERE id = $1 AND revoked_at IS NULL`,
			id, s.now(), c.UserID); err != nil {
			return fmt.Errorf("revoke key: %w", err)
		}
		n, err := s.endSessions(ctx, tx, c, "its key was revoked", `key_id = $4`, id)
		e.Details = detail(map[string]any{"sessions": n})
		return err
	})
}

// findKey returns the zero Key if there is none.
func (s *Service) findKey(ctx context.Context, id string) (Key, error) {
	if len(id) > maxIDBytes || !idForm.MatchString(id) {
		return Key{}, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT `+keyColumns+` FROM api_keys WHERE id = $1`, id)
	if err != nil {
		return Key{}, postgres.Fault(fmt.Errorf("read key: %w", err))
	}
	k, err := pgx.CollectExactlyOneRow(rows, toKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return Key{}, nil
	}
	if err != nil {
		return Key{}, postgres.Fault(fmt.Errorf("read key: %w", err))
	}
	return k, nil
}

// proveKey finds out who an API key speaks for.
func (s *Service) proveKey(ctx context.Context, plain string) (*claimant, error) {
	id, hash, ok := token.ParseAPIKey(plain)
	if !ok {
		return nil, errEnded("it is not an API key")
	}
	var stored []byte
	err := s.pool.QueryRow(ctx, `SELECT secret_hash FROM api_keys WHERE id = $1`, id).Scan(&stored)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, postgres.Fault(fmt.Errorf("read key: %w", err))
	}
	if !token.Equal(stored, hash) {
		return nil, errEnded("there is no such key")
	}
	k, err := s.findKey(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case k.RevokedAt != nil:
		return nil, errEnded("the key was revoked")
	case !s.now().Before(k.ExpiresAt):
		return nil, errEnded("the key has expired")
	}
	cl := &claimant{
		userID: k.UserID, method: keyMethod, keyID: id, projectID: k.ProjectID, roles: k.Roles, scopes: k.Scopes,
		defaults: true, expiresAt: k.ExpiresAt,
	}
	if k.UserID == "" {
		cl.userID, cl.given, cl.defaults = "key:"+id, k.Roles, false
	}
	return cl, nil
}
