package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// SQLSTATEs of transactions that may be tried again as they were.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

// maxRetries is how often InTx runs fn again.
const maxRetries = 3

// InTx runs fn in a transaction and commits it if fn returns nil; otherwise,
// or when fn panics, it rolls back. It returns fn's error or the commit's,
// through [Fault].
//
// When the server gives the transaction up in favour of another (a deadlock or
// a serialization failure), InTx runs fn again in a new one, up to three
// times. So fn must do nothing outside tx that may not happen twice, and set
// its results afresh on each run.
//
// An Unavailable fault from a connection lost during the commit leaves open
// whether it took place.
func InTx(ctx context.Context, pool *pgxpool.Pool, fn func(tx pgx.Tx) error) error {
	return Retry(ctx, func() error { return pgx.BeginFunc(ctx, pool, fn) })
}

// Retry is for a single statement, or a batch, that is a transaction of its
// own: it runs fn, and again as InTx does, and returns its error through
// [Fault].
func Retry(ctx context.Context, fn func() error) error {
	for retry := 0; ; retry++ {
		err := fn()
		if retry == maxRetries || !retryable(err) {
			return Fault(err)
		}
		// Apart by chance, so that the same transactions do not meet again.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(10*time.Millisecond) << retry):
		}
	}
}

// Violates reports whether err comes from a violation of the named constraint:
// unique, foreign key, check, exclusion or not null.
func Violates(err error, constraint string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) &&
		class(pgErr) == "23" && pgErr.ConstraintName == constraint
}

func retryable(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) &&
		(pgErr.Code == serializationFailure || pgErr.Code == deadlockDetected)
}
