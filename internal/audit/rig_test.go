package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// rig is a log with what an operator has of it.
type rig struct {
	*audit.Log
	pool  *pgxpool.Pool // as the server
	owner *pgxpool.Pool // as who owns the database
	key   *audit.Key
	file  string
	said  *bytes.Buffer
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return openRig(t, pgtest.URL(t), newKey(t), filepath.Join(t.TempDir(), "checkpoints"))
}

func newKey(t testing.TB) *audit.Key {
	t.Helper()
	key, err := audit.LoadOrCreateKey(filepath.Join(t.TempDir(), "audit.key"), "claw.example.com/audit")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func openRig(t testing.TB, url string, key *audit.Key, file string) *rig {
	t.Helper()
	open := func(opts ...postgres.Option) *pgxpool.Pool {
		pool, err := postgres.Open(t.Context(), url, append(opts, postgres.MaxConns(8))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return pool
	}
	r := &rig{pool: open(postgres.As(postgres.AppRole)), owner: open(), key: key, file: file, said: new(bytes.Buffer)}
	r.restart(t)
	if err := r.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// restart begins anew, with what is in the database and the file.
func (r *rig) restart(testing.TB) {
	r.Log = audit.New(r.pool, audit.Options{
		Logger: slog.New(slog.NewTextHandler(r.said, nil)), Key: r.key, CheckpointFile: r.file,
	})
}

// seal seals all n entries, whatever else runs in the cluster: a transaction
// of another database too holds the order of entries open.
func (r *rig) seal(t testing.TB, n int64) {
	t.Helper()
	for {
		if err := r.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c, err := r.Checkpoint(t.Context()); err == nil && c.Size >= n {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("not sealed in time")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// verify compares the database with the file, or with nothing.
func (r *rig) verify(t testing.TB) *audit.Report {
	t.Helper()
	kept, err := os.ReadFile(r.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	report, err := audit.Verify(t.Context(), r.pool, audit.VerifyOptions{
		Verifiers: []string{r.key.Public()}, Checkpoints: bytes.NewReader(kept),
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// clean fails unless the log has that size and nothing is wrong with it.
func (r *rig) clean(t testing.TB, size int64) *audit.Report {
	t.Helper()
	report := r.verify(t)
	if !report.OK() || report.Size != size {
		t.Errorf("verified %d entries, want %d; findings %+v", report.Size, size, report.Findings)
	}
	return report
}

func (r *rig) verifier(t testing.TB) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(r.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// append writes entries in a transaction of their own, as an allowed action
// does.
func (r *rig) append(t testing.TB, entries ...audit.Entry) {
	t.Helper()
	err := postgres.InTx(t.Context(), r.pool, func(tx pgx.Tx) error { return audit.Append(t.Context(), tx, entries...) })
	if err != nil {
		t.Fatal(err)
	}
}

// asOwner runs statements past the triggers.
func (r *rig) asOwner(t testing.TB, sql string, args ...any) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), r.owner, func(tx pgx.Tx) error { return pastTriggers(t.Context(), tx, sql, args...) })
	if err != nil {
		t.Fatal(err)
	}
}

func pastTriggers(ctx context.Context, tx pgx.Tx, sql string, args ...any) error {
	if _, err := tx.Exec(ctx, `SET LOCAL session_replication_role = replica`); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, sql, args...)
	return err
}

func caller(n int) policy.Caller {
	return policy.Caller{
		UserID: fmt.Sprintf("local:user%d", n%7), SessionID: fmt.Sprintf("session%d", n%11), DeviceID: "device",
		ProjectID: "shop", RequestID: fmt.Sprintf("request%d", n), Address: "192.0.2.7",
	}
}

func entry(n int) audit.Entry {
	e := audit.NewEntry(caller(n), "task.submit", "task", uuid.NewString(), policy.Decision{
		Allowed: n%5 != 0, Layer: policy.LayerPermission, Rule: "roles.developer", Reason: "a reason, \"quoted\"\n", PolicyVersion: int64(n % 3),
	})
	if n%2 == 0 {
		e.Details = json.RawMessage(fmt.Sprintf(`{ "n": %d, "text": "<ü\u0001>" }`, n))
	}
	return e
}

func entries(n int) []audit.Entry {
	all := make([]audit.Entry, n)
	for i := range all {
		all[i] = entry(i)
	}
	return all
}

func query(session string) audit.Query { return audit.Query{SessionID: session} }
