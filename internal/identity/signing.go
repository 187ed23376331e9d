package identity

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// keyLife is how long a key of the database signs.
	keyLife = 30 * 24 * time.Hour
	// keyOverlap is how long a key verifies after it was retired: longer than
	// another server goes on signing with it and than its last token lives.
	keyOverlap = time.Hour
	// keyAge is how long what was read of the keys is good for.
	keyAge = 5 * time.Minute
	// keyPause is the least time between two looks for a key that is not known,
	// because strangers can name keys.
	keyPause = time.Second
)

// keyring holds the keys that access tokens are signed with, one of which
// signs. All servers share those of the database; a key of a file is the only
// one.
type keyring struct {
	pool  *pgxpool.Pool
	now   func() time.Time
	fixed bool

	flight singleflight.Group

	mu      sync.Mutex
	keys    []token.Key // newest first
	readAt  time.Time
	changes int // by this server
}

func newKeyring(pool *pgxpool.Pool, now func() time.Time, file string) (*keyring, error) {
	k := &keyring{pool: pool, now: now}
	if file == "" {
		return k, nil
	}
	key, err := token.ReadKeyFile(file)
	k.keys, k.fixed = []token.Key{key}, true
	return k, err
}

// all returns the keys as they were read at most age ago.
func (k *keyring) all(ctx context.Context, age time.Duration) ([]token.Key, error) {
	k.mu.Lock()
	keys, changes := k.keys, k.changes
	fresh := k.fixed || recent(k.readAt, k.now(), age)
	k.mu.Unlock()
	if fresh {
		return keys, nil
	}
	read := k.flight.DoChan(strconv.Itoa(changes), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		at := k.now()
		keys, err := readKeys(ctx, k.pool)
		if err != nil {
			return keys, postgres.Fault(err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.keys, k.readAt = keys, at
		return keys, nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-read:
		return r.Val.([]token.Key), r.Err
	}
}

func readKeys(ctx context.Context, db querier) ([]token.Key, error) {
	rows, err := db.Query(ctx, `SELECT private_key, created_at, retired_at FROM signing_keys ORDER BY created_at DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (token.Key, error) {
		var text string
		var created time.Time
		var retired *time.Time
		if err := row.Scan(&text, &created, &retired); err != nil {
			return token.Key{}, err
		}
		key, err := token.ParseKey([]byte(text))
		key.CreatedAt, key.RetiredAt = created.UTC(), utc(retired)
		return key, err
	})
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return keys, nil
}

// signing returns the key that signs, and makes the first one.
func (k *keyring) signing(ctx context.Context) (token.Key, error) {
	key, ok, err := k.current(ctx, keyAge)
	if err != nil || ok {
		return key, err
	}
	if err := k.rotate(ctx); err != nil {
		return token.Key{}, err
	}
	key, ok, err = k.current(ctx, 0)
	if err == nil && !ok {
		err = errors.New("no signing key is there right after one was made")
	}
	return key, err
}

// current returns the key that signs, if there is one.
func (k *keyring) current(ctx context.Context, age time.Duration) (token.Key, bool, error) {
	keys, err := k.all(ctx, age)
	for _, key := range keys {
		if key.RetiredAt == nil {
			return key, true, err
		}
	}
	return token.Key{}, false, err
}

// rotate retires a key that has signed for long enough, sees to it that there
// is one that signs, and removes those whose tokens have all expired.
func (k *keyring) rotate(ctx context.Context) error {
	if k.fixed {
		return nil
	}
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.changes++
	}()
	now := k.now().Truncate(time.Microsecond)
	return postgres.InTx(ctx, k.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE signing_keys SET retired_at = $1 WHERE retired_at IS NULL AND created_at <= $2`,
			now, now.Add(-keyLife)); err != nil {
			return fmt.Errorf("retire signing key: %w", err)
		}
		if _, err := tx.Exec(ctx, `DELETE FROM signing_keys WHERE retired_at <= $1`, now.Add(-keyOverlap)); err != nil {
			return fmt.Errorf("remove signing keys: %w", err)
		}
		var signs bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM signing_keys WHERE retired_at IS NULL)`).Scan(&signs); err != nil || signs {
			return err
		}
		key, err := token.NewKey(now)
		if err != nil {
			return err
		}
		text, err := key.Marshal()
		if err != nil {
			return err
		}
		// Another server may be as fast.
		if _, err := tx.Exec(ctx, `INSERT INTO signing_keys (id, private_key, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			key.ID, string(text), now); err != nil {
			return fmt.Errorf("store signing key: %w", err)
		}
		return nil
	})
}

// verify checks an access token against the keys, old and new.
func (s *Service) verify(ctx context.Context, raw string) (token.Claims, error) {
	claims, unknown, err := s.verifyWith(ctx, raw, keyAge)
	if unknown { // to us: another server may have begun to sign with it
		claims, _, err = s.verifyWith(ctx, raw, keyPause)
	}
	return claims, err
}

// verifyWith checks an access token against the keys as they were at most age
// ago, and reports whether its key was not among them.
func (s *Service) verifyWith(ctx context.Context, raw string, age time.Duration) (claims token.Claims, unknown bool, err error) {
	keys, err := s.keys.all(ctx, age)
	if err != nil {
		return token.Claims{}, false, err
	}
	claims, err = s.issuer.Verify(raw, func(id string) (ed25519.PublicKey, bool) {
		i := slices.IndexFunc(keys, func(k token.Key) bool { return k.ID == id })
		if unknown = i < 0; unknown {
			return nil, false
		}
		return keys[i].Public(), true
	}, s.now())
	return claims, unknown, err
}

// JWKS returns the public keys that verify access tokens, as a JWK set (RFC
// 7517).
func (s *Service) JWKS(ctx context.Context) ([]byte, error) {
	if _, err := s.keys.signing(ctx); err != nil { // the first one is made when it is needed
		return nil, err
	}
	keys, err := s.keys.all(ctx, keyAge)
	if err != nil {
		return nil, err
	}
	return token.JWKS(keys)
}
