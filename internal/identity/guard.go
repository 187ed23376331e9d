package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/postgres"
)

// A tolerance is how many wrong passwords in a row go unpunished, and the most
// that the next attempt must wait after: a second at first, twice as long after
// each further one.
type tolerance struct {
	free int
	most time.Duration
}

var (
	// An account must not be kept from its owner for long by others.
	accountTolerance = tolerance{free: 5, most: 30 * time.Second}
	// Behind an address there may be many people.
	addressTolerance = tolerance{free: 20, most: 15 * time.Minute}
)

const (
	// guarded bounds how many accounts and addresses are remembered.
	guarded = 10_000
	// forgiveness is how long after the last attempt all is forgotten.
	forgiveness = time.Hour
)

// guard slows down the guessing of passwords at this server. It treats names
// that do not exist as it does others.
type guard struct {
	mu       sync.Mutex
	attempts *lru.Cache[string, attempts]
}

type attempts struct {
	wrong  int
	last   time.Time
	closed time.Time // until then
}

// begin counts an attempt as a wrong one in advance, so that many at once count
// too, or returns how long to wait before the next. until is how long there may
// be no other because of this one.
func (g *guard) begin(key string, t tolerance, now time.Time) (until time.Time, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a, _ := g.attempts.Get(key)
	if now.Sub(a.last) > forgiveness {
		a = attempts{}
	}
	if now.Before(a.closed) {
		return time.Time{}, a.closed.Sub(now)
	}
	a.wrong++
	a.last, a.closed = now, time.Time{}
	if over := a.wrong - t.free; over >= 0 {
		a.closed = now.Add(min(t.most, time.Second<<min(over, 20)))
	}
	g.attempts.Add(key, a)
	return a.closed, 0
}

// right takes the attempt back for which begin returned until. What others have
// brought about meanwhile stands, unless all is to be forgiven.
func (g *guard) right(key string, until time.Time, all bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a, ok := g.attempts.Get(key)
	if !ok {
		return
	}
	if all || a.wrong <= 1 {
		g.attempts.Remove(key)
		return
	}
	a.wrong--
	if a.closed.Equal(until) {
		a.closed = time.Time{}
	}
	g.attempts.Add(key, a)
}

// checkPassword returns nil if it is the user's. To those who guess, a wrong
// password, a user that does not exist and one without password cost and look
// the same: an errEnded, or TooMany after several.
func (s *Service) checkPassword(ctx context.Context, userID, password, address string) error {
	now := s.now()
	account, from := "user "+userID, "address "+address
	ofAccount, wait := s.guard.begin(account, accountTolerance, now)
	var ofAddress time.Time
	if wait == 0 && address != "" {
		if ofAddress, wait = s.guard.begin(from, addressTolerance, now); wait > 0 {
			s.guard.right(account, ofAccount, false)
		}
	}
	if wait > 0 {
		return fault.New(fault.TooMany, "too many wrong passwords; try again in %s", (wait + time.Second - 1).Truncate(time.Second))
	}
	err := s.comparePassword(ctx, userID, password)
	if _, wrong := errors.AsType[errEnded](err); !wrong {
		s.guard.right(account, ofAccount, err == nil)
		// Who has an account of its own must not clear its address by it.
		s.guard.right(from, ofAddress, false)
	}
	return err
}

func (s *Service) comparePassword(ctx context.Context, userID, password string) error {
	var hash string
	err := s.pool.QueryRow(ctx, `SELECT password_hash FROM users WHERE id = $1 AND password_hash IS NOT NULL`, userID).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := token.DummyVerify(ctx, password); err != nil {
			return err
		}
		return errEnded("there is no such local user")
	}
	if err != nil {
		return postgres.Fault(fmt.Errorf("read password: %w", err))
	}
	ok, outdated, err := token.VerifyPassword(ctx, hash, password)
	switch {
	case err != nil:
		return err
	case !ok:
		return errEnded("the password is wrong")
	case outdated:
		return s.rehash(ctx, userID, hash, password)
	}
	return nil
}

// rehash stores a password at today's cost, unless it was changed meanwhile.
func (s *Service) rehash(ctx context.Context, userID, old, password string) error {
	hash, err := token.HashPassword(ctx, password)
	if fault.CodeOf(err) == fault.Invalid {
		return nil // by rules that are younger than the password
	}
	if err != nil {
		return err
	}
	if _, err := s.pool.Exec(ctx, `UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2`, userID, old, hash); err != nil {
		return postgres.Fault(fmt.Errorf("store password: %w", err))
	}
	return nil
}
