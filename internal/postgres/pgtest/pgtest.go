// Package pgtest gives each test a PostgreSQL database of its own: real,
// migrated, empty, dropped when the test ends.
//
//	pool := pgtest.DB(t)
//
// All test processes of a user share one private server, which the first of
// them starts and which goes away by itself: half a minute after the last test
// and the go command that ran it have ended, or at once where the environment
// variable CI is set. Its data is in memory where there is room, and not
// crash-safe. Its time zone is an odd one, to show code that relies on the
// session's.
//
// CODERCLAW_TEST_DATABASE_URL names a server to use instead, by a role that
// may create databases; CODERCLAW_POSTGRES_BIN the programs to run.
package pgtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/postgres"
)

// maxConns is small, because many tests share the server; more than one test
// needs them for long is a leak.
const maxConns = 8

// cleanUpTimeout bounds what happens after a test.
const cleanUpTimeout = 20 * time.Second

// DB returns a pool on a new database with the schema of package migrations,
// which works as the server does, as [postgres.AppRole]. It holds up to eight connections unless an option says otherwise. When the
// test ends the pool is closed and the database dropped; a connection that the
// test did not give back by then fails it.
func DB(t testing.TB, opts ...postgres.Option) *pgxpool.Pool {
	t.Helper()
	url := URL(t)
	pool, err := postgres.Open(t.Context(), url, append([]postgres.Option{postgres.MaxConns(maxConns), postgres.As(postgres.AppRole)}, opts...)...)
	if err != nil {
		t.Fatalf("pgtest: open %s: %v", url, err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			pool.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(cleanUpTimeout):
			t.Errorf("pgtest: %d connections of the pool were never given back", pool.Stat().AcquiredConns())
		}
	})
	return pool
}

// URL returns how to reach a new database with the schema of package
// migrations, for what opens its own connections or is a process of its own.
// The database is dropped when the test ends, whoever is still connected.
func URL(t testing.TB) string {
	t.Helper()
	return database(t, (*server).migrated)
}

// EmptyURL is URL without the schema: a database with nothing in it.
func EmptyURL(t testing.TB) string {
	t.Helper()
	return database(t, func(*server, context.Context) (string, error) { return "template0", nil })
}

// database makes a copy of what template names.
func database(t testing.TB, template func(*server, context.Context) (string, error)) string {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	source, err := template(s, t.Context())
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	name := s.newName()
	if err := s.exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+source+s.strategy); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanUpTimeout)
		defer cancel()
		if err := s.exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return s.url(name)
}

// exec runs one statement on a connection of its own, since a pool would leave
// goroutines behind in every test.
func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(sql), err)
	}
	return nil
}

func (s *server) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, s.admin.Copy())
}
