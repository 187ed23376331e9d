package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/golang-migrate/migrate/v4/database"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// session is golang-migrate's way to the database: one connection that holds
// the migration lock from beginning to end.
//
// It stands in for golang-migrate's own driver, and uses the same lock and the
// same table, for two reasons. That driver writes a version as dirty before
// its file and as clean after it, so that a failed file or a killed process
// leaves a database that a person must repair; here the file and its version
// commit together. And that driver waits for the lock inside a statement,
// whose snapshot CREATE INDEX CONCURRENTLY in turn waits for: a deadlock.
type session struct {
	ctx  context.Context
	conn *pgx.Conn
	all  *migrations

	version int // the one applied last, or database.NilVersion
	target  int // the one that the next file leads to
}

// openSession connects to url, waits for the lock and sees to the version
// table.
func openSession(ctx context.Context, url string, all *migrations) (*session, error) {
	config, err := connConfig(url)
	if err != nil {
		return nil, err
	}
	withDefaults(config.RuntimeParams, map[string]string{
		"application_name":  "coderclaw migrate",
		"timezone":          "UTC",
		"statement_timeout": "0",
		// A migration that waits for a lock makes all that come after it wait too.
		"lock_timeout": "10s",
	})
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, Fault(err)
	}
	s := &session{ctx: ctx, conn: conn, all: all}
	if err := s.prepare(); err != nil {
		s.close()
		return nil, Fault(fmt.Errorf("prepare to migrate: %w", err))
	}
	return s, nil
}

func (s *session) prepare() error {
	if err := s.lock(); err != nil {
		return err
	}
	_, err := s.conn.Exec(s.ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (
		version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)`)
	if err != nil {
		return err
	}
	s.version, _, err = s.Version()
	return err
}

// lock polls for the advisory lock that golang-migrate's other users take.
func (s *session) lock() error {
	var db, schema string
	err := s.conn.QueryRow(s.ctx, `SELECT current_database(), coalesce(current_schema(), '')`).Scan(&db, &schema)
	if err != nil {
		return err
	}
	id, err := database.GenerateAdvisoryLockId(db, schema, "schema_migrations")
	if err != nil {
		return err
	}
	for {
		var locked bool
		if err := s.conn.QueryRow(s.ctx, `SELECT pg_try_advisory_lock($1::text::bigint)`, id).Scan(&locked); err != nil {
			return err
		}
		if locked {
			return nil
		}
		select {
		case <-s.ctx.Done():
			return fmt.Errorf("wait for another migration to end: %w", s.ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// close ends the connection and with it the lock.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), connectTimeout)
	defer cancel()
	s.conn.Close(ctx)
}

// Run executes a file and records the version it leads to.
func (s *session) Run(file io.Reader) error {
	sql, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if concurrent(string(sql)) {
		err = s.runOutside(string(sql))
	} else {
		err = s.runInside(string(sql))
	}
	if err != nil {
		return fmt.Errorf("migration %s: %w", s.fileName(), located(err, string(sql)))
	}
	s.version = s.target
	return nil
}

// runInside runs sql and records its version in one transaction.
func (s *session) runInside(sql string) error {
	return pgx.BeginFunc(s.ctx, s.conn, func(tx pgx.Tx) error {
		if err := s.exec(s.ctx, sql); err != nil {
			return err
		}
		if s.conn.PgConn().TxStatus() != 'T' {
			return errors.New("must not end the transaction that it runs in")
		}
		return s.record(s.ctx, s.target, false)
	})
}

// runOutside runs what refuses to run in a transaction. Neither a lock timeout
// nor the caller may interrupt it: it would leave an invalid index behind.
func (s *session) runOutside(sql string) error {
	ctx := context.WithoutCancel(s.ctx)
	if err := s.record(ctx, s.target, true); err != nil {
		return err
	}
	if err := s.exec(ctx, "SET lock_timeout = 0"); err != nil {
		return err
	}
	if err := s.exec(ctx, sql); err != nil {
		return err
	}
	if err := s.exec(ctx, "RESET lock_timeout"); err != nil {
		return err
	}
	return s.record(ctx, s.target, false)
}

// exec runs several statements at once, as only the simple protocol can.
func (s *session) exec(ctx context.Context, sql string) error {
	return s.conn.PgConn().Exec(ctx, sql).Close()
}

// record stores the version; 0 and database.NilVersion stand for none.
func (s *session) record(ctx context.Context, version int, dirty bool) error {
	return pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM schema_migrations`); err != nil {
			return err
		}
		if version <= 0 && !dirty {
			return nil
		}
		_, err := tx.Exec(ctx, `INSERT INTO schema_migrations (version, dirty) VALUES ($1, $2)`, version, dirty)
		return err
	})
}

// fileName names the file that leads from version to target.
func (s *session) fileName() string {
	if s.target > s.version {
		return s.all.names[uint(s.target)].up
	}
	return s.all.names[uint(s.version)].down
}

// SetVersion is called with dirty before each file and without after it; Run
// records what there is to record.
func (s *session) SetVersion(version int, dirty bool) error {
	s.target = version
	return nil
}

// Version returns what the version table says.
func (s *session) Version() (int, bool, error) {
	version, dirty, err := schemaVersion(s.ctx, s.conn)
	if version == 0 {
		return database.NilVersion, dirty, err
	}
	return int(version), dirty, err
}

// Lock and Unlock do nothing: the session holds the lock while it lives.
func (s *session) Lock() error   { return nil }
func (s *session) Unlock() error { return nil }

// Close does nothing: whoever opened the session closes it.
func (s *session) Close() error { return nil }

func (s *session) Open(string) (database.Driver, error) { return nil, errors.ErrUnsupported }
func (s *session) Drop() error                          { return errors.ErrUnsupported }

var (
	comment      = regexp.MustCompile(`(?s)--[^\n]*|/\*.*?\*/`)
	concurrently = regexp.MustCompile(`(?i)\bconcurrently\b`)
)

// concurrent reports whether sql asks for something that cannot run in a
// transaction.
func concurrent(sql string) bool {
	return concurrently.MatchString(comment.ReplaceAllString(sql, ""))
}

// located adds to a server's error what else it says of the cause.
func located(err error, sql string) error {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return err
	}
	if chars := []rune(sql); pgErr.Position > 0 && int(pgErr.Position) <= len(chars) {
		line := 1 + strings.Count(string(chars[:pgErr.Position-1]), "\n")
		err = fmt.Errorf("line %d: %w", line, err)
	}
	if pgErr.Detail != "" {
		err = fmt.Errorf("%w: %s", err, pgErr.Detail)
	}
	return err
}
