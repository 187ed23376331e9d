package identity

import (
	"context"
	"errors"
	"fmt"
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
	bootstrapTTL    = 24 * time.Hour
	bootstrapPrefix = "ccb_"

	forAdministrator = "administrator"
	forDevice        = "device"
)

// EnsureBootstrap returns, where nobody is bound to the role admin, a new
// one-time code with which Bootstrap makes the first administrator. It is good
// for a day and is to be shown to whoever runs the server.
func (s *Service) EnsureBootstrap(ctx context.Context) (code string, needed bool, err error) {
	if needed, err = s.needsAdministrator(ctx, s.pool); err != nil || !needed {
		return "", false, postgres.Fault(err)
	}
	code, hash := token.NewSecret(bootstrapPrefix)
	if _, err := s.pool.Exec(ctx, `INSERT INTO enrolment_codes (hash, purpose, created_by, created_at, expires_at)
		VALUES ($1, $2, '', $3, $4)`, hash, forAdministrator, s.now(), s.now().Add(bootstrapTTL)); err != nil {
		return "", false, postgres.Fault(fmt.Errorf("store one-time code: %w", err))
	}
	return code, true, nil
}

func (s *Service) needsAdministrator(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) (needed bool, err error) {
	err = db.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM role_bindings WHERE role = $1 AND project_id = '')`, policy.Admin).Scan(&needed)
	if err != nil {
		return false, fmt.Errorf("look for an administrator: %w", err)
	}
	return needed, nil
}

// Bootstrap makes a local account with the role admin, for the code that
// EnsureBootstrap has returned. The code is good for that once, and while there
// is no administrator.
//
// Faults: Unauthenticated, Invalid, Conflict when there is such an account.
func (s *Service) Bootstrap(ctx context.Context, code, login, password string, o Origin) (User, error) {
	u, err := s.bootstrap(ctx, code, NewUser{Login: login, Password: password}, o)
	if err != nil {
		return User{}, s.refused(ctx, o.caller("", ""), err)
	}
	return u, nil
}

func (s *Service) bootstrap(ctx context.Context, code string, n NewUser, o Origin) (u User, err error) {
	hash, ok := token.ParseSecret(bootstrapPrefix, code)
	if !ok {
		return User{}, errNoCode
	}
	// Passwords are costly to hash, and for strangers nothing is.
	var known bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM enrolment_codes WHERE hash = $1)`, hash).Scan(&known); err != nil {
		return User{}, postgres.Fault(fmt.Errorf("look for one-time code: %w", err))
	}
	if !known {
		return User{}, errNoCode
	}
	password, err := n.check(ctx)
	if err != nil {
		return User{}, err
	}
	id := localUserID(n.Login)
	a := act{"user.create", "user", id}
	err = s.changeAccess(ctx, o.caller(id, ""), a, "", bootstrapped, func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = detail(map[string]any{"role": policy.Admin})
		if _, err := s.redeem(ctx, tx, hash, forAdministrator, ""); err != nil {
			return err
		}
		switch needed, err := s.needsAdministrator(ctx, tx); {
		case err != nil:
			return err
		case !needed:
			return errEnded("there is an administrator already")
		}
		if _, err := tx.Exec(ctx, `DELETE FROM enrolment_codes WHERE purpose = $1`, forAdministrator); err != nil {
			return fmt.Errorf("remove one-time codes: %w", err)
		}
		if u, err = s.insertUser(ctx, tx, n, password); err != nil {
			return err
		}
		return s.insertBinding(ctx, tx, Binding{
			ID: uuid.Must(uuid.NewV7()), Kind: UserSubject, Subject: id, Role: policy.Admin, CreatedBy: id, CreatedAt: s.now(),
		})
	})
	return u, taken(err, id)
}

var bootstrapped = policy.Decision{Allowed: true, Layer: policy.LayerSession, Reason: "the one-time code for the first administrator was redeemed"}

const errNoCode = errEnded("the code is not known, was used or has expired")

// redeem uses up a code and returns who made it; of two who do at once, one
// succeeds.
func (s *Service) redeem(ctx context.Context, tx pgx.Tx, hash []byte, purpose, userID string) (by string, err error) {
	err = tx.QueryRow(ctx, `DELETE FROM enrolment_codes
		WHERE hash = $1 AND purpose = $2 AND (user_id = '' OR user_id = $3) AND expires_at > $4 RETURNING created_by`,
		hash, purpose, userID, s.now()).Scan(&by)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", errNoCode
	}
	if err != nil {
		return "", fmt.Errorf("redeem code: %w", err)
	}
	return by, nil
}

// taken says that there is such a user, if that is the error.
func taken(err error, id string) error {
	if postgres.Violates(err, "users_pkey") {
		return fault.New(fault.Conflict, "there is a user %s", id)
	}
	return err
}
