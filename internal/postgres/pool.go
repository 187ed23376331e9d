// Package postgres reaches the database: the pool, transactions, the schema's
// migrations and what driver errors mean to callers.
//
// It owns no table of the domain and knows none; the one it keeps is
// golang-migrate's schema_migrations.
package postgres

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"

	"github.com/coderclaw/runtime/internal/fault"
)

const connectTimeout = 5 * time.Second

// Option changes the pool's configuration after the defaults are set.
type Option func(*pgxpool.Config)

// MaxConns bounds how many connections the pool holds.
func MaxConns(n int32) Option {
	return func(c *pgxpool.Config) { c.MaxConns = n }
}

// AppRole is the database role that the server works as: it owns nothing and so
// can neither change the schema nor what is only to be appended to.
const AppRole = "coderclaw_app"

// As makes the sessions work as another role than the one that logs in.
func As(role string) Option {
	return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["role"] = role }
}

// Open returns a pool whose first connection works. The url has any form that
// PostgreSQL's own clients take: a postgres:// URL, one with ?host=/directory
// for a Unix socket, or keyword=value pairs.
//
// Sessions speak UTC, are named coderclaw and are bounded by the server in how
// long they run a statement (30 s), wait for a lock (10 s) or sit idle in a
// transaction (30 s); what the url itself sets wins. Unless the url
// (pool_max_conns) or an option says otherwise, the pool holds at most four
// connections per CPU, but no fewer than ten.
//
// The error is a fault: Invalid for a url that cannot be understood,
// Unavailable when the server cannot be reached. Neither holds the password.
func Open(ctx context.Context, url string, opts ...Option) (*pgxpool.Pool, error) {
	conn, err := connConfig(url)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, badURL(err)
	}
	if _, chosen := conn.RuntimeParams["pool_max_conns"]; !chosen {
		config.MaxConns = int32(max(10, 4*runtime.NumCPU()))
	}
	config.ConnConfig.ConnectTimeout = conn.ConnectTimeout
	withDefaults(config.ConnConfig.RuntimeParams, map[string]string{
		"application_name":                    "coderclaw",
		"timezone":                            "UTC",
		"statement_timeout":                   "30s",
		"lock_timeout":                        "10s",
		"idle_in_transaction_session_timeout": "30s",
		// No statement here runs long enough to be worth compiling.
		"jit": "off",
		// Each has indexes to go by, and its plan is kept: one that was made when a
		// table was new must still be good when it has grown.
		"enable_seqscan": "off",
	})
	// Without it each id goes through its text, which for an element of an array
	// comes with an error that is made and thrown away.
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		return nil
	}
	for _, opt := range opts {
		opt(config)
	}

	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, Fault(err)
	}
	return pool, nil
}

// connConfig parses url for a single connection.
func connConfig(url string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, badURL(err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	return config, nil
}

// withDefaults adds those defaults that params does not have, by names in any
// case.
func withDefaults(params, defaults map[string]string) {
	for name := range params {
		delete(defaults, strings.ToLower(name))
	}
	maps.Copy(params, defaults)
}

// badURL keeps of a parser's error what cannot hold a part of the password.
// The driver redacts as best it can, but in what it cannot parse it cannot
// tell what is the password.
func badURL(err error) error {
	const shape = "the database URL is not valid: expected postgres://user:password@host:port/database, " +
		"special characters in the password percent-encoded, or key=value pairs"
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); !ok {
		return fault.New(fault.Invalid, shape)
	}
	_, reason, found := strings.Cut(err.Error(), "`: ")
	if !found || strings.Contains(reason, "`: ") ||
		strings.HasPrefix(reason, "failed to parse as") || strings.HasPrefix(reason, "could not match") {
		return fault.New(fault.Invalid, shape)
	}
	return fault.New(fault.Invalid, "the database URL is not valid: %s", reason)
}
