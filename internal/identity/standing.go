package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// standing is what a session stands for now, with everything that it rests on.
type standing struct {
	id uuid.UUID
	// caller lacks only what differs from request to request.
	caller policy.Caller
	held   []policy.Role // by the user in the project, before any narrowing
	method string
	keyID  string
	// thumbprint is that of the key that signs every request, if there is one.
	thumbprint string
	expiresAt  time.Time
	generation int64 // of access when it was read, or before
}

// batcher is a pool or a transaction.
type batcher interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}

// errEnded is why a session, or what it rests on, is not valid any more. It is
// for logs: outside, every bad credential looks the same.
type errEnded string

func (e errEnded) Error() string { return string(e) }

const errNoSession = errEnded("no such session")

type standingRow struct {
	UserID        string
	DeviceID      *uuid.UUID
	Method        string
	KeyID         *string
	ProjectID     string
	KeyThumbprint string
	ExpiresAt     time.Time
	DefaultRoles  bool
	GivenRoles    []policy.Role
	Roles         []policy.Role
	Scopes        []policy.Permission
	BoundRoles    []policy.Role
	Bound         bool
	Trust         *string
	Worker        *policy.WorkerScope
	Local         bool
	Ended         string
}

// standingSQL reads a session with all that it rests on. Default roles are for
// users without any role, not for those whose roles are in other projects. What
// the provider said last of a user counts for sessions from before, too; services
// and workflows have what their session was opened with. With $2, a session that
// its own user has ended counts as one that has not.
const standingSQL = `
	SELECT s.user_id, s.device_id, s.method, s.key_id, s.project_id, s.key_thumbprint,
		least(s.expires_at, k.expires_at) AS expires_at,
		s.default_roles AND (NOT users_own OR u.roles = '{}') AS default_roles,
		CASE WHEN users_own THEN ARRAY(
			SELECT jsonb_array_elements_text(u.roles -> project) FROM unnest(ARRAY['', s.project_id]) project
		) ELSE s.given_roles END AS given_roles,
		s.roles, s.scopes, b.roles AS bound_roles, b.bound, d.trust, k.worker, s.local,
		CASE
			WHEN s.revoked_at IS NOT NULL AND NOT ($2 AND s.revoked_by = s.user_id) THEN 'the session was revoked'
			WHEN k.revoked_at IS NOT NULL THEN 'its key was revoked'
			WHEN d.revoked_at IS NOT NULL THEN 'its device was revoked'
			WHEN u.disabled_at IS NOT NULL THEN 'its user is disabled'
			WHEN u.id IS NULL AND (k.id IS NULL OR k.user_id IS NOT NULL) THEN 'its user is gone'
			ELSE ''
		END AS ended
	FROM sessions s
	LEFT JOIN users u ON u.id = s.user_id
	LEFT JOIN api_keys k ON k.id = s.key_id
	LEFT JOIN devices d ON d.id = s.device_id
	CROSS JOIN LATERAL (SELECT s.method <> '` + actionsMethod + `' AND (k.id IS NULL OR k.user_id IS NOT NULL) AS users_own) whose
	LEFT JOIN LATERAL (
		SELECT coalesce(array_agg(DISTINCT role) FILTER (WHERE project_id IN ('', s.project_id)), '{}') AS roles,
			count(*) > 0 AS bound
		FROM role_bindings
		WHERE subject_kind = 'user' AND subject = s.user_id OR subject_kind = 'group' AND subject = ANY (u.groups)
	) b ON true
	WHERE s.id = $1`

// readStanding returns the standing of a session, or an errEnded. That the time
// is not up is for the caller to see.
func (s *Service) readStanding(ctx context.Context, db batcher, id uuid.UUID) (*standing, error) {
	return s.readStandingOf(ctx, db, id, false)
}

func (s *Service) readStandingOf(ctx context.Context, db batcher, id uuid.UUID, loggedOut bool) (*standing, error) {
	var batch pgx.Batch
	// Before the rows, so that what changes them after does not go unnoticed.
	batch.Queue(`SELECT n FROM access_generation`)
	batch.Queue(standingSQL, id, loggedOut)
	results := db.SendBatch(ctx, &batch)
	defer func() { _ = results.Close() }() // errors were seen with the rows

	var generation int64
	if err := results.QueryRow().Scan(&generation); err != nil {
		return nil, fmt.Errorf("read the generation of access: %w", err)
	}
	rows, err := results.Query()
	if err != nil {
		return nil, fmt.Errorf("read session: %w", err)
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[standingRow])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, errNoSession
	case err != nil:
		return nil, fmt.Errorf("read session: %w", err)
	case row.Ended != "":
		return nil, errEnded(row.Ended)
	}
	return row.standing(id, generation, s.defaultRoles)
}

func (row standingRow) standing(id uuid.UUID, generation int64, defaults []policy.Role) (*standing, error) {
	st := &standing{
		id: id,
		caller: policy.Caller{
			UserID: row.UserID, SessionID: id.String(), Local: row.Local, ProjectID: row.ProjectID, Scopes: row.Scopes, Worker: row.Worker,
		},
		held: union(row.BoundRoles, row.GivenRoles), method: row.Method,
		thumbprint: row.KeyThumbprint, expiresAt: row.ExpiresAt.UTC(), generation: generation,
	}
	if !row.Bound && len(row.GivenRoles) == 0 && row.DefaultRoles {
		st.held = defaults
	}
	st.caller.Roles = st.held
	if row.Roles != nil {
		st.caller.Roles = intersection(st.held, row.Roles)
	}
	if row.KeyID != nil {
		st.keyID = *row.KeyID
	}
	if row.DeviceID != nil {
		st.caller.DeviceID = row.DeviceID.String()
		if err := st.caller.Trust.UnmarshalText([]byte(*row.Trust)); err != nil {
			return nil, fmt.Errorf("read device %s: %w", *row.DeviceID, err)
		}
	}
	return st, nil
}

// standing returns what a session stands for, from memory while nothing has
// changed. Every error but those of the database is an errEnded.
func (s *Service) standing(ctx context.Context, id uuid.UUID) (*standing, error) {
	generation, err := s.generation.current(ctx)
	if err != nil {
		return nil, err
	}
	st, ok := s.sessions.Get(id)
	if !ok || st.generation < generation {
		if st, err = s.reread(ctx, id); err != nil {
			return nil, err
		}
	}
	if !s.now().Before(st.expiresAt) {
		s.sessions.Remove(id)
		return nil, errEnded("the session has expired")
	}
	return st, nil
}

// reread reads a session into memory; only one that is valid stays there.
func (s *Service) reread(ctx context.Context, id uuid.UUID) (*standing, error) {
	st, err := s.readStanding(ctx, s.pool, id)
	if err != nil {
		s.sessions.Remove(id)
		return nil, postgres.Fault(err)
	}
	s.sessions.Add(id, st)
	return st, nil
}

// union is never nil, which would mean something else.
func union(a, b []policy.Role) []policy.Role {
	all := append(append([]policy.Role{}, a...), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

func intersection(a, b []policy.Role) []policy.Role {
	both := []policy.Role{}
	for _, r := range a {
		if slices.Contains(b, r) {
			both = append(both, r)
		}
	}
	return both
}
