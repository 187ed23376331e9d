package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// User is someone who has an account here or has come from a provider.
type User struct {
	ID          string // e.g. local:ann, github:583231
	Provider    string
	Subject     string // the provider's own, unchanging name
	Name        string // for people; nothing depends on it
	Email       string
	Groups      []string // as of the last login
	CreatedAt   time.Time
	LastLoginAt *time.Time
	DisabledAt  *time.Time
	DisabledBy  string
}

const userColumns = `id, provider, subject, name, email, groups, created_at, last_login_at, disabled_at, disabled_by`

func toUser(row pgx.CollectableRow) (User, error) {
	u, err := pgx.RowToStructByName[User](row)
	u.CreatedAt, u.LastLoginAt, u.DisabledAt = u.CreatedAt.UTC(), utc(u.LastLoginAt), utc(u.DisabledAt)
	return u, err
}

func utc(t *time.Time) *time.Time {
	if t != nil {
		u := t.UTC()
		t = &u
	}
	return t
}

// NewUser is an account to make.
type NewUser struct {
	Login    string // as in local:<login>
	Password string
	Name     string
	Email    string
}

// CreateUser makes a local account, which has the default roles until others
// are bound to it.
//
// Faults: Forbidden unless the caller administers the server, Invalid, Conflict
// when there is such an account.
func (s *Service) CreateUser(ctx context.Context, c policy.Caller, n NewUser) (User, error) {
	d, err := s.administers(ctx, c, "")
	if err != nil {
		return User{}, err
	}
	id, a := localUserID(n.Login), act{"user.create", "user", localUserID(n.Login)}
	if !d.Allowed { // and does not learn what is wrong with the request
		return User{}, s.refuse(ctx, c, a, &denial{decision: d})
	}
	hash, err := n.check(ctx)
	if err != nil {
		return User{}, err
	}
	var u User
	err = s.change(ctx, c, a, d, func(tx pgx.Tx, _ *audit.Entry) error {
		u, err = s.insertUser(ctx, tx, n, hash)
		return err
	})
	return u, taken(err, id)
}

func localUserID(login string) string { return localProvider + ":" + login }

// check returns the hash of the password.
func (n NewUser) check(ctx context.Context) (string, error) {
	var f faults
	if !loginNameForm.MatchString(n.Login) {
		f.bad("login", "must be at most 63 small letters, digits and . _ -, the first a letter or digit")
	}
	f.text("name", n.Name, maxNameBytes, false)
	f.text("email", n.Email, maxEmailBytes, false)
	if err := f.err(); err != nil {
		return "", err
	}
	return token.HashPassword(ctx, n.Password)
}

func (s *Service) insertUser(ctx context.Context, tx pgx.Tx, n NewUser, hash string) (User, error) {
	rows, err := tx.Query(ctx, `
		INSERT INTO users (id, provider, issuer, subject, name, email, password_hash, created_at)
		VALUES (@id, @provider, '', @login, @name, @email, @hash, @now) RETURNING `+userColumns,
		pgx.NamedArgs{"id": localUserID(n.Login), "provider": localProvider, "login": n.Login,
			"name": n.Name, "email": n.Email, "hash": hash, "now": s.now()})
	if err != nil {
		return User{}, fmt.Errorf("store user: %w", err)
	}
	u, err := pgx.CollectExactlyOneRow(rows, toUser)
	if err != nil {
		return User{}, fmt.Errorf("store user: %w", err)
	}
	return u, nil
}

// Users returns up to limit users by id, after the one with the given id; ""
// begins. more says that there are further ones. Forbidden unless the caller
// administers the server.
func (s *Service) Users(ctx context.Context, c policy.Caller, after string, limit int) (users []User, more bool, err error) {
	d, err := s.administers(ctx, c, "")
	if err != nil {
		return nil, false, err
	}
	if !d.Allowed {
		return nil, false, d.Err()
	}
	if !storable(after) {
		return nil, false, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT `+userColumns+` FROM users WHERE id > $1 ORDER BY id LIMIT $2`, after, limit+1)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list users: %w", err))
	}
	users, err = pgx.CollectRows(rows, toUser)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list users: %w", err))
	}
	users, more = page(users, limit)
	return users, more, nil
}

// page cuts off the one item that shows that there are more.
func page[T any](items []T, limit int) (cut []T, more bool) {
	if len(items) > limit {
		return items[:limit], true
	}
	return items, false
}

// User returns a user: to others than itself only if they administer the
// server, else NotFound.
func (s *Service) User(ctx context.Context, c policy.Caller, id string) (User, error) {
	if c.UserID != id {
		switch d, err := s.administers(ctx, c, ""); {
		case err != nil:
			return User{}, err
		case !d.Allowed:
			return User{}, missing("user", id)
		}
	}
	if !storable(id) {
		return User{}, missing("user", id)
	}
	rows, err := s.pool.Query(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1`, id)
	if err != nil {
		return User{}, postgres.Fault(fmt.Errorf("read user: %w", err))
	}
	u, err := pgx.CollectExactlyOneRow(rows, toUser)
	if errors.Is(err, pgx.ErrNoRows) {
		return User{}, missing("user", id)
	}
	if err != nil {
		return User{}, postgres.Fault(fmt.Errorf("read user: %w", err))
	}
	return u, nil
}

// UserPatch is what to change of a user; nil leaves things as they are.
type UserPatch struct {
	// Disabled users cannot log in, and what they are logged in with ends.
	Disabled *bool
	// Password replaces that of a local user, who is logged out everywhere.
	Password *string
	// Name and Email are for people; a provider replaces them at the next login.
	Name, Email *string
}

// UpdateUser changes a user.
//
// Faults: Forbidden unless the caller administers the server, NotFound,
// Invalid, Conflict for what would leave nobody who does.
func (s *Service) UpdateUser(ctx context.Context, c policy.Caller, id string, p UserPatch) (User, error) {
	d, err := s.administers(ctx, c, "")
	if err != nil {
		return User{}, err
	}
	var hash string
	if d.Allowed {
		if hash, err = p.check(ctx); err != nil {
			return User{}, err
		}
	}
	err = s.changeAccess(ctx, c, act{"user.update", "user", id}, "", d, func(tx pgx.Tx, e *audit.Entry) error {
		if !storable(id) {
			return missing("user", id)
		}
		e.Details = detail(map[string]any{"disabled": p.Disabled, "password": p.Password != nil, "name": p.Name, "email": p.Email})
		tag, err := tx.Exec(ctx, `UPDATE users SET name = coalesce($2, name), email = coalesce($3, email) WHERE id = $1`, id, p.Name, p.Email)
		switch {
		case err != nil:
			return fmt.Errorf("rename user: %w", err)
		case tag.RowsAffected() == 0:
			return missing("user", id)
		}
		if p.Password != nil {
			if err := s.setPassword(ctx, tx, c, id, hash); err != nil {
				return err
			}
		}
		if p.Disabled == nil {
			return nil
		}
		return keepAdministrator(ctx, tx, func() error { return s.setDisabled(ctx, tx, c, id, *p.Disabled) })
	})
	if err != nil {
		return User{}, err
	}
	return s.User(ctx, c, id)
}

// check returns the hash of the password, if there is one.
func (p UserPatch) check(ctx context.Context) (hash string, err error) {
	var f faults
	if p.Name != nil {
		f.text("name", *p.Name, maxNameBytes, false)
	}
	if p.Email != nil {
		f.text("email", *p.Email, maxEmailBytes, false)
	}
	if err := f.err(); err != nil || p.Password == nil {
		return "", err
	}
	return token.HashPassword(ctx, *p.Password)
}

func (s *Service) setDisabled(ctx context.Context, tx pgx.Tx, c policy.Caller, id string, disabled bool) error {
	if !disabled {
		if _, err := tx.Exec(ctx, `UPDATE users SET disabled_at = NULL, disabled_by = '' WHERE id = $1`, id); err != nil {
			return fmt.Errorf("enable user: %w", err)
		}
		return nil
	}
	if _, err := tx.Exec(ctx, `UPDATE users SET disabled_at = $2, disabled_by = $3 WHERE id = $1 AND disabled_at IS NULL`,
		id, s.now(), c.UserID); err != nil {
		return fmt.Errorf("disable user: %w", err)
	}
	_, err := s.endSessions(ctx, tx, c, "the user was disabled", `user_id = $4 AND NOT direct`, id)
	return err
}

// setPassword replaces a password and ends what was opened with the old one.
func (s *Service) setPassword(ctx context.Context, tx pgx.Tx, c policy.Caller, id, hash string) error {
	tag, err := tx.Exec(ctx, `UPDATE users SET password_hash = $2 WHERE id = $1 AND provider = 'local'`, id, hash)
	if err != nil {
		return fmt.Errorf("store password: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return missing("local user", id)
	}
	_, err = s.endSessions(ctx, tx, c, "the password was changed",
		`user_id = $4 AND NOT direct AND id::text <> $5`, id, c.SessionID)
	return err
}

// ChangePassword replaces the caller's own password, which it must prove to
// know. All its other sessions end.
//
// Faults: Unauthenticated for a wrong password, TooMany after several, Invalid,
// NotFound for who has none.
func (s *Service) ChangePassword(ctx context.Context, c policy.Caller, old, password string) error {
	d, err := s.serves(ctx, c)
	if err != nil {
		return err
	}
	a := act{"user.update", "user", c.UserID}
	if !d.Allowed {
		return s.refuse(ctx, c, a, &denial{decision: d})
	}
	if err := s.checkPassword(ctx, c.UserID, old, c.Address); err != nil {
		return s.refused(ctx, c, err)
	}
	hash, err := token.HashPassword(ctx, password)
	if err != nil {
		return err
	}
	return s.changeAccess(ctx, c, a, "", d, func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = detail(map[string]any{"password": true})
		return s.setPassword(ctx, tx, c, c.UserID, hash)
	})
}

// DeleteUser removes a user with all sessions, keys, devices and role bindings.
// A user of an external provider can log in again, as a new one; to keep
// someone out, disable.
//
// Faults: Forbidden unless the caller administers the server, NotFound,
// Conflict for what would leave nobody who does.
func (s *Service) DeleteUser(ctx context.Context, c policy.Caller, id string) error {
	d, err := s.administers(ctx, c, "")
	if err != nil {
		return err
	}
	return s.changeAccess(ctx, c, act{"user.delete", "user", id}, "", d, func(tx pgx.Tx, _ *audit.Entry) error {
		if !storable(id) {
			return missing("user", id)
		}
		return keepAdministrator(ctx, tx, func() error {
			tag, err := tx.Exec(ctx, `DELETE FROM users WHERE id = $1`, id)
			if err != nil {
				return fmt.Errorf("delete user: %w", err)
			}
			if tag.RowsAffected() == 0 {
				return missing("user", id)
			}
			if _, err := tx.Exec(ctx, `DELETE FROM role_bindings WHERE subject_kind = 'user' AND subject = $1`, id); err != nil {
				return fmt.Errorf("delete role bindings: %w", err)
			}
			if _, err := tx.Exec(ctx, `DELETE FROM sessions WHERE user_id = $1`, id); err != nil {
				return fmt.Errorf("delete sessions: %w", err)
			}
			return nil
		})
	})
}
