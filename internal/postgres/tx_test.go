package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

func TestInTxCommitsAllOrNothing(t *testing.T) {
	t.Parallel()
	pool := accounts(t)
	refused := errors.New("refused")
	for _, tc := range []struct {
		returns error
		want    int
	}{{refused, 0}, {nil, 1}} {
		err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `UPDATE accounts SET sum = 1 WHERE id = 1`); err != nil {
				return err
			}
			return tc.returns
		})
		if !errors.Is(err, tc.returns) {
			t.Errorf("InTx = %v; want %v", err, tc.returns)
		}
		if got := sum(t, pool, 1); got != tc.want {
			t.Errorf("after %v the sum is %d; want %d", tc.returns, got, tc.want)
		}
	}
}

func TestInTxRollsBackAPanic(t *testing.T) {
	t.Parallel()
	pool := accounts(t)
	func() {
		defer func() { recover() }()
		postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			tx.Exec(t.Context(), `UPDATE accounts SET sum = 1 WHERE id = 1`)
			panic("on purpose")
		})
	}()
	if got := sum(t, pool, 1); got != 0 {
		t.Errorf("the sum is %d; want 0", got)
	}
}

// Two transactions lock two rows in opposite order, and each waits until the
// other has its first: one of them must be given up.
func TestInTxRunsTheVictimOfADeadlockAgain(t *testing.T) {
	t.Parallel()
	pool := accounts(t)
	var both, done sync.WaitGroup
	both.Add(2)
	for _, order := range [][2]int{{1, 2}, {2, 1}} {
		done.Go(func() {
			first := true
			err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
				for _, id := range order {
					if _, err := tx.Exec(t.Context(), `UPDATE accounts SET sum = sum + 1 WHERE id = $1`, id); err != nil {
						return err
					}
					if first {
						first = false
						both.Done()
						both.Wait()
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("update in order %v: %v", order, err)
			}
		})
	}
	done.Wait()
	if a, b := sum(t, pool, 1), sum(t, pool, 2); a != 2 || b != 2 {
		t.Errorf("the sums are %d and %d; want 2 and 2", a, b)
	}
}

func TestInTxTriesNoMoreThanFourTimes(t *testing.T) {
	t.Parallel()
	pool := accounts(t)
	runs := 0
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(t.Context(), `DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$`)
		return err
	})
	if runs != 4 || fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("%d runs, then %v; want 4 and the fault unavailable", runs, err)
	}
}

func TestViolationsAreToldApartByConstraint(t *testing.T) {
	t.Parallel()
	pool := accounts(t)
	for _, tc := range []struct{ sql, constraint string }{
		{`INSERT INTO accounts VALUES (1, 0)`, "accounts_pkey"},
		{`INSERT INTO accounts VALUES (3, -1)`, "accounts_sum_positive"},
	} {
		_, err := pool.Exec(t.Context(), tc.sql)
		if !postgres.Violates(err, tc.constraint) {
			t.Errorf("%s: %v does not count as a violation of %s", tc.sql, err, tc.constraint)
		}
		if postgres.Violates(err, "another") || postgres.Fault(err) != err {
			t.Errorf("%s: %v counts as something else", tc.sql, err)
		}
	}
	if postgres.Violates(nil, "") || postgres.Violates(errors.New("x"), "") {
		t.Error("what does not come from the database counts as a violation")
	}
}

func TestFaultTellsWhatTheCallerCannotHelp(t *testing.T) {
	t.Parallel()
	address := pgtest.EmptyURL(t)
	open := func(settings string) *pgxpool.Pool {
		pool, err := postgres.Open(t.Context(), address+settings, postgres.MaxConns(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return pool
	}
	stranger, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	stranger.User = "stranger"
	_, refused := pgx.ConnectConfig(t.Context(), stranger)

	for _, tc := range []struct {
		what string
		err  error
	}{
		{"a statement that takes too long", exec(t, open("&statement_timeout=10ms"), `SELECT pg_sleep(10)`)},
		{"a read-only server", exec(t, open("&default_transaction_read_only=on"), `CREATE TABLE t ()`)},
		{"a connection that the server ends", exec(t, open(""), `SELECT pg_terminate_backend(pg_backend_pid())`)},
		{"a server that refuses the user", refused},
		{"too many connections", &pgconn.PgError{Code: "53300"}},
		{"a full disk", &pgconn.PgError{Code: "53100"}},
		{"a server that starts", &pgconn.PgError{Code: "57P03"}},
	} {
		err := postgres.Fault(tc.err)
		if fault.CodeOf(err) != fault.Unavailable || !errors.Is(err, tc.err) {
			t.Errorf("%s: Fault(%v) = %v; want it wrapped as unavailable", tc.what, tc.err, err)
		}
	}
	for _, err := range []error{
		nil, pgx.ErrNoRows, context.Canceled, context.DeadlineExceeded,
		fault.New(fault.NotFound, "no such thing"), &pgconn.PgError{Code: "42601"}, &pgconn.PgError{},
	} {
		if got := postgres.Fault(err); got != err {
			t.Errorf("Fault(%v) = %v; want it as it is", err, got)
		}
	}
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string) error {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql)
	if err == nil {
		t.Errorf("%s succeeded", sql)
	}
	return err
}

// accounts returns a pool on a database with two accounts, both of sum 0.
func accounts(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.DB(t, postgres.As("none"))
	_, err := pool.Exec(t.Context(), `
		CREATE TABLE accounts (id int PRIMARY KEY, sum int NOT NULL CONSTRAINT accounts_sum_positive CHECK (sum >= 0))`)
	if err == nil {
		_, err = pool.Exec(t.Context(), `INSERT INTO accounts VALUES (1, 0), (2, 0)`)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func sum(t *testing.T, pool *pgxpool.Pool, id int) (sum int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT sum FROM accounts WHERE id = $1`, id).Scan(&sum); err != nil {
		t.Fatal(err)
	}
	return sum
}
