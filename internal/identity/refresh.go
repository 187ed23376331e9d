package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Refresh exchanges a refresh token for a new one and an access token. It is
// good for that once: who comes with it again is not who it was given to, or
// was not the only one, and the session ends (RFC 9700, section 4.14.2). A
// session that is bound to a key wants a proof by it, without access token.
//
// Faults: Unauthenticated, Unavailable.
func (s *Service) Refresh(ctx context.Context, refreshToken string, o Origin) (Opened, error) {
	opened, err := s.refresh(ctx, refreshToken, o)
	if err != nil {
		return Opened{}, s.refused(ctx, o.caller("", ""), err)
	}
	return opened, nil
}

func (s *Service) refresh(ctx context.Context, refreshToken string, o Origin) (opened Opened, err error) {
	hash, ok := token.ParseSecret(refreshPrefix, refreshToken)
	if !ok {
		return Opened{}, errEnded("there is no such refresh token")
	}
	id, used, err := s.findRefresh(ctx, hash)
	if err != nil {
		return Opened{}, err
	}
	st, err := s.standing(ctx, id)
	if err != nil {
		return Opened{}, err
	}
	proof, err := s.proof(o, "")
	switch {
	case err != nil:
		return Opened{}, err
	case st.thumbprint != "" && (proof == nil || proof.Thumbprint != st.thumbprint):
		return Opened{}, errEnded("the session wants a proof by its key")
	case used:
		return Opened{}, s.reused(ctx, st, o)
	}
	key, err := s.keys.signing(ctx)
	if err != nil {
		return Opened{}, err
	}
	next, nextHash := token.NewSecret(refreshPrefix)
	opened = Opened{RefreshToken: next}
	opened.Session, err = s.rotate(ctx, st, o, proof, hash, nextHash)
	if errors.Is(err, errUsed) {
		return Opened{}, s.reused(ctx, st, o)
	}
	if err != nil {
		return Opened{}, err
	}
	opened.AccessToken, opened.ExpiresIn, err = s.sign(key, opened.Session)
	return opened, err
}

const errUsed = errEnded("the refresh token was used before")

func (s *Service) findRefresh(ctx context.Context, hash []byte) (session uuid.UUID, used bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT session_id, used_at IS NOT NULL FROM refresh_tokens WHERE hash = $1`, hash).Scan(&session, &used)
	if errors.Is(err, pgx.ErrNoRows) {
		return session, used, errEnded("there is no such refresh token")
	}
	if err != nil {
		return session, used, postgres.Fault(fmt.Errorf("look for refresh token: %w", err))
	}
	return session, used, nil
}

// rotate uses up one refresh token and stores the next.
func (s *Service) rotate(ctx context.Context, st *standing, o Origin, proof *dpop.Proof, hash, next []byte) (opened Session, err error) {
	c, err := s.current(ctx, st, o)
	if err != nil {
		return Session{}, err
	}
	err = s.change(ctx, c, act{"session.refresh", "session", c.SessionID}, refreshable, func(tx pgx.Tx, _ *audit.Entry) error {
		tag, err := tx.Exec(ctx, `UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1 AND used_at IS NULL`, hash, s.now())
		if err != nil {
			return fmt.Errorf("use refresh token: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errUsed
		}
		if proof != nil {
			if err := useProof(ctx, tx, *proof); err != nil {
				return err
			}
		}
		if err := s.insertRefresh(ctx, tx, st.id, next); err != nil {
			return err
		}
		// As it is now, not as it was when it was read into memory.
		if _, err := s.readStanding(ctx, tx, st.id); err != nil {
			return err
		}
		found, err := s.findSession(ctx, tx, st.id)
		if err == nil {
			opened = *found
		}
		return err
	})
	return opened, err
}

var refreshable = policy.Decision{Allowed: true, Layer: policy.LayerSession, Reason: "the session is valid"}

// reused ends the session whose refresh token came a second time, and returns
// why.
func (s *Service) reused(ctx context.Context, st *standing, o Origin) error {
	c := o.caller(st.caller.UserID, st.caller.ProjectID)
	c.SessionID, c.DeviceID = st.caller.SessionID, st.caller.DeviceID
	d := policy.Decision{Allowed: true, Layer: policy.LayerSession, Reason: "its refresh token was used twice"}
	err := s.changeAccess(ctx, c, act{"session.revoke", "session", c.SessionID}, c.SessionID, d, func(tx pgx.Tx, _ *audit.Entry) error {
		_, err := s.endSessions(ctx, tx, c, d.Reason, `id = $4`, st.id)
		return err
	})
	if err != nil {
		return postgres.Fault(err)
	}
	return errUsed
}

func (s *Service) insertRefresh(ctx context.Context, tx pgx.Tx, session uuid.UUID, hash []byte) error {
	if _, err := tx.Exec(ctx, `INSERT INTO refresh_tokens (hash, session_id, created_at) VALUES ($1, $2, $3)`,
		hash, session, s.now()); err != nil {
		return fmt.Errorf("store refresh token: %w", err)
	}
	return nil
}
