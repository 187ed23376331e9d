package postgres_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

func TestSessionsAreBoundedAndSpeakUTC(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t, postgres.As("none"))
	for name, want := range map[string]string{
		"application_name":                    "coderclaw",
		"TimeZone":                            "UTC",
		"statement_timeout":                   "30s",
		"lock_timeout":                        "10s",
		"idle_in_transaction_session_timeout": "30s",
	} {
		var got string
		if err := pool.QueryRow(t.Context(), `SELECT current_setting($1)`, name).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestTheURLWinsOverTheDefaults(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), pgtest.EmptyURL(t)+"&statement_timeout=5s&TimeZone=Asia/Kathmandu&pool_max_conns=3")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var timeout, zone string
	err = pool.QueryRow(t.Context(), `SELECT current_setting('statement_timeout'), current_setting('TimeZone')`).Scan(&timeout, &zone)
	if err != nil || timeout != "5s" || zone != "Asia/Kathmandu" {
		t.Errorf("statement_timeout %s, time zone %s, %v; want 5s, Asia/Kathmandu", timeout, zone, err)
	}
	if n := pool.Config().MaxConns; n != 3 {
		t.Errorf("the pool holds up to %d connections; want 3", n)
	}
}

func TestEveryFormOfAURLWillDo(t *testing.T) {
	t.Parallel()
	address := pgtest.EmptyURL(t)
	config, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	pairs := "host='" + config.Host + "' user=" + config.User + " dbname=" + config.Database + " password='" + config.Password + "'"
	for _, form := range []string{address, strings.Replace(address, "postgres://", "postgresql://", 1), pairs} {
		pool, err := postgres.Open(t.Context(), form)
		if err != nil {
			t.Errorf("Open(%s): %v", form, err)
			continue
		}
		pool.Close()
		if _, err := postgres.MigrationStatus(t.Context(), form, two); err != nil {
			t.Errorf("MigrationStatus(%s): %v", form, err)
		}
	}
}

func TestErrorsOfOpenHoldNoPassword(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		url  string
		code fault.Code
	}{
		{"postgres://user:s3cret@" + closedPort(t) + "/db", fault.Unavailable},
		{"host=/nowhere user=u password=s3cret", fault.Unavailable},
		{"postgres://user:s3cret@localhost:port/db", fault.Invalid},
		{"postgres://user:x#s3cret@" + closedPort(t) + "/db", fault.Unavailable},
		{"postgres://user:s3cret%zz@localhost/db", fault.Invalid},
		{"postgres://user:a:s3cret@localhost:1:2/db", fault.Invalid},
		{"postgres://user:s3cret/1@localhost/db", fault.Invalid},
		{"postgres://user:s3cret@localhost/db?sslmode=bogus", fault.Invalid},
		{"postgres://user:s3cret@localhost/db?pool_max_conns=none", fault.Invalid},
		{"host=localhost password=s3cret port=x", fault.Invalid},
		{"host=localhost password='s3cret", fault.Invalid},
		{"s3cret", fault.Invalid},
		{"mysql://user:s3cret@localhost", fault.Invalid},
	} {
		_, err := postgres.Open(t.Context(), tc.url)
		if fault.CodeOf(err) != tc.code {
			t.Errorf("Open(%s) = %v; want the fault %s", tc.url, err, tc.code)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Open(%s) tells the password: %v", tc.url, err)
		}
		err = postgres.Migrate(t.Context(), tc.url, two)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Migrate(%s) tells the password or nothing: %v", tc.url, err)
		}
	}
}

func TestOpenSaysWhatIsWrongWithASetting(t *testing.T) {
	t.Parallel()
	_, err := postgres.Open(t.Context(), "postgres://u:p@localhost/db?sslmode=bogus")
	if err == nil || !strings.Contains(err.Error(), "sslmode") {
		t.Errorf("Open = %v; want it to name sslmode", err)
	}
}

func TestOpenGivesUpWithItsCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := postgres.Open(ctx, pgtest.EmptyURL(t)); err == nil || fault.CodeOf(err) != "" {
		t.Errorf("Open = %v; want the caller's own cancellation", err)
	}
}

// closedPort returns an address that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
