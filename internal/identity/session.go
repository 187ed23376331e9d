package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Session is the time in which a credential that was accepted once speaks for
// its user.
type Session struct {
	ID        uuid.UUID
	UserID    string
	Method    string // how it was opened: local, key, or the name of a provider
	KeyID     string // of the API key, if that is how
	ProjectID string // the one that it is confined to
	DeviceID  *uuid.UUID
	// KeyThumbprint is that of the key that must sign every request (RFC 7638).
	KeyThumbprint string
	Direct        bool                // stands for a credential that is used without login
	Local         bool                // was opened on the server's own machine
	Roles         []policy.Role       // those it is narrowed to; nil: all that the user has
	Scopes        []policy.Permission // those it is narrowed to; nil: all that the roles grant
	Address       string
	UserAgent     string
	CreatedAt     time.Time
	ExpiresAt     time.Time
	LastSeenAt    *time.Time // within a minute or so
	// RevokedAt is when it ended before its time.
	RevokedAt      *time.Time
	RevokedBy      string
	RevokedBecause string
}

const sessionColumns = `id, user_id, method, coalesce(key_id, '') AS key_id, project_id, device_id, key_thumbprint, direct, local,
	roles, scopes, address, user_agent, created_at, expires_at, last_seen_at, revoked_at, revoked_by, revoked_because`

func toSession(row pgx.CollectableRow) (Session, error) {
	s, err := pgx.RowToStructByName[Session](row)
	s.CreatedAt, s.ExpiresAt = s.CreatedAt.UTC(), s.ExpiresAt.UTC()
	s.LastSeenAt, s.RevokedAt = utc(s.LastSeenAt), utc(s.RevokedAt)
	return s, err
}

// SessionFilter selects sessions; what is zero selects all.
type SessionFilter struct {
	UserID   string
	DeviceID *uuid.UUID
	Ended    bool // those that have ended, too
}

// Sessions returns up to limit sessions that the filter selects, newest first,
// older than the one with the id before; uuid.Max begins. more says that there
// are further ones. A caller sees its user's, an administrator everyone's; one
// who is confined to a project only those of the project.
func (s *Service) Sessions(ctx context.Context, c policy.Caller, f SessionFilter, before uuid.UUID, limit int) (sessions []Session, more bool, err error) {
	whose, err := s.visible(ctx, c)
	if err != nil {
		return nil, false, err
	}
	if !storable(f.UserID) {
		return nil, false, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT `+sessionColumns+` FROM sessions
		WHERE id < @before AND (@whose = '' OR user_id = @whose) AND (@project = '' OR project_id = @project)
			AND (@user = '' OR user_id = @user) AND (@device::uuid IS NULL OR device_id = @device)
			AND (@ended OR revoked_at IS NULL AND expires_at > @now)
		ORDER BY id DESC LIMIT @limit`,
		pgx.NamedArgs{"before": before, "whose": whose, "project": c.ProjectID, "user": f.UserID,
			"device": f.DeviceID, "ended": f.Ended, "now": s.now(), "limit": limit + 1})
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list sessions: %w", err))
	}
	sessions, err = pgx.CollectRows(rows, toSession)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list sessions: %w", err))
	}
	sessions, more = page(sessions, limit)
	return sessions, more, nil
}

// visible returns the user whose sessions, devices and keys the caller may see,
// or "" if it may see everyone's that are in its project.
func (s *Service) visible(ctx context.Context, c policy.Caller) (userID string, err error) {
	d, err := s.administers(ctx, c, c.ProjectID)
	if err != nil {
		return "", err
	}
	if d.Allowed {
		return "", nil
	}
	d, err = s.serves(ctx, c)
	if err != nil {
		return "", err
	}
	return c.UserID, d.Err()
}

// Session returns a session that Sessions would list, ended or not, or NotFound.
func (s *Service) Session(ctx context.Context, c policy.Caller, id uuid.UUID) (Session, error) {
	whose, err := s.visible(ctx, c)
	if err != nil {
		return Session{}, err
	}
	found, err := s.findSession(ctx, s.pool, id)
	if err != nil {
		return Session{}, postgres.Fault(err)
	}
	if found == nil || whose != "" && found.UserID != whose || c.ProjectID != "" && found.ProjectID != c.ProjectID {
		return Session{}, missing("session", id.String())
	}
	return *found, nil
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// findSession returns nil if there is none.
func (s *Service) findSession(ctx context.Context, db querier, id uuid.UUID) (*Session, error) {
	rows, err := db.Query(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE id = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("read session: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, toSession)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read session: %w", err)
	}
	return &found, nil
}

// Revoke ends a session at once, here and, within two seconds, on every other
// server: its tokens are refused and its streams end. To revoke the session of
// a credential that is used directly is to refuse that credential.
//
// NotFound unless it is the caller's own or the caller administers the server,
// or the project that the session is confined to.
func (s *Service) Revoke(ctx context.Context, c policy.Caller, id uuid.UUID) error {
	d, err := s.serves(ctx, c)
	if err != nil {
		return err
	}
	a := act{"session.revoke", "session", id.String()}
	if d.Allowed {
		if d, err = s.mayEnd(ctx, c, id, d); err != nil {
			return err
		}
		if !d.Allowed {
			return s.refuse(ctx, c, a, hide(d, "session", id.String()))
		}
	}
	return s.changeAccess(ctx, c, a, id.String(), d, func(tx pgx.Tx, _ *audit.Entry) error {
		_, err := s.endSessions(ctx, tx, c, "it was revoked", `id = $4`, id)
		return err
	})
}

// mayEnd decides about one session: one's own, or by administration. own is
// the decision about the first.
func (s *Service) mayEnd(ctx context.Context, c policy.Caller, id uuid.UUID, own policy.Decision) (policy.Decision, error) {
	found, err := s.findSession(ctx, s.pool, id)
	switch {
	case err != nil:
		return policy.Decision{}, postgres.Fault(err)
	case found == nil:
		return policy.Decision{Reason: "there is no such session"}, nil
	case found.UserID == c.UserID && (c.ProjectID == "" || c.ProjectID == found.ProjectID):
		return own, nil
	}
	return s.administers(ctx, c, found.ProjectID)
}

// endSessions revokes the sessions that a condition selects, whose parameters
// begin with $4, and returns how many there were.
func (s *Service) endSessions(ctx context.Context, tx pgx.Tx, c policy.Caller, because, where string, args ...any) (int64, error) {
	tag, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1, revoked_by = $2, revoked_because = $3
		WHERE revoked_at IS NULL AND `+where, append([]any{s.now(), c.UserID, because}, args...)...)
	if err != nil {
		return 0, fmt.Errorf("end sessions: %w", err)
	}
	return tag.RowsAffected(), nil
}
