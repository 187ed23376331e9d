package audit_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

func TestNothingReadsTheWholeLog(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	r := openRig(t, url, newKey(t), t.TempDir()+"/checkpoints")
	ctx := t.Context()
	const many = 6100 // more than batches of the sealer: the last one ends what it does at the start
	for range many / 100 {
		r.append(t, entries(100)...)
	}
	r.seal(t, many)
	if _, err := r.owner.Exec(ctx, `ANALYZE`); err != nil {
		t.Fatal(err)
	}
	plans := &pgtest.Plans{}
	pool, err := postgres.Open(ctx, url, postgres.MaxConns(8), postgres.As(postgres.AppRole), plans.Keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r.pool = pool
	r.restart(t)
	search := func(q audit.Query) func(*testing.T) {
		return func(t *testing.T) {
			if found, _, err := r.Search(ctx, q, uuid.Max, 20); err != nil || len(found) == 0 {
				t.Errorf("%d entries, %v", len(found), err)
			}
		}
	}
	var resource string
	if err := r.owner.QueryRow(ctx, `SELECT resource_id FROM audit_entries LIMIT 1`).Scan(&resource); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		most float64
		do   func(t *testing.T)
	}{
		{"seal", 1500, func(t *testing.T) {
			r.append(t, entries(10)...)
			r.seal(t, many+10)
		}},
		{"search", 200, search(audit.Query{})},
		{"search by user", 200, search(audit.Query{UserID: "local:user3"})},
		{"search by session", 400, search(audit.Query{SessionID: "session3"})},
		{"search by resource", 200, search(audit.Query{ResourceID: resource})},
		{"search what was refused", 200, search(audit.Query{Result: audit.Denied})},
		{"search in a time", 200, search(audit.Query{Since: time.Now().Add(-time.Hour)})},
		{"proofs", 1000, func(t *testing.T) {
			found, _, err := r.Search(ctx, audit.Query{}, uuid.Max, 20)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Proof(ctx, audit.Query{}, found[19].ID); err != nil {
				t.Error(err)
			}
			if _, err := r.Consistency(ctx, 1000, many); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { plans.Of(t, pool, tc.most, func() { tc.do(t) }) })
	}
}
