package webhook_test

import (
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

// manyDeliveries fills a database with the tasks of a month, their events, and
// what the webhook $1 was sent of them.
const manyDeliveries = `
WITH many AS MATERIALIZED (
	SELECT gen_random_uuid() AS id, now() - (20001 - n) * interval '2 minutes' AS at, n FROM generate_series(1, 20000) n
), kept AS (
	INSERT INTO tasks (id, created_at, updated_at, completed_at, last_seq, last_txid, claimable, status, dispatch, agent_id, user_id, description, input)
	SELECT id, at, at, at, 3, '5', false, 'completed', 'manual', 'a', 'ann', 'd', repeat('x', 200) FROM many ORDER BY n
), sent AS (
	INSERT INTO webhook_deliveries (task_id, seq, webhook_id, status, created_at, due_at, ended_at)
	SELECT id, seq, $1, (ARRAY['delivered', 'delivered', 'dead'])[1 + n % 3], at, NULL, at FROM many, generate_series(1, 2) seq WHERE n > 500 ORDER BY n, seq
)
INSERT INTO task_events (task_id, seq, txid, created_at, type, status)
SELECT id, seq, (100 + n / 100)::text::xid8, at + seq * interval '1 second', 'status', 'running' FROM many, generate_series(1, 3) seq ORDER BY n, seq`

func TestNothingReadsAllThereIs(t *testing.T) {
	t.Parallel()
	owner, pool, plans := pgtest.PlansDB(t)
	r := rigOn(t, pool, true)
	to := newTarget(t, nil)
	w, _ := r.create(root, webhook.New{URL: to.URL})
	ctx := t.Context()
	if _, err := owner.Exec(ctx, manyDeliveries, w.ID); err != nil {
		t.Fatal(err)
	}
	// As the server's own vacuums do, by which the ranges of new pages get into
	// the index of what happened when.
	if _, err := owner.Exec(ctx, `VACUUM (ANALYZE)`); err != nil {
		t.Fatal(err)
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		most float64
		do   func(t *testing.T)
	}{
		{"list deliveries", 200, func(t *testing.T) {
			for _, status := range []string{"", "dead"} {
				all, _, err := r.Deliveries(ctx, root, w.ID, status, 30_000, 20)
				if must(t, err); len(all) != 20 {
					t.Errorf("%d deliveries", len(all))
				}
			}
		}},
		{"replay an hour", 4000, func(t *testing.T) {
			end := time.Now().Add(-20 * 24 * time.Hour)
			n, _, err := r.Replay(ctx, root, w.ID, end.Add(-time.Hour), &end)
			if must(t, err); n != 90 {
				t.Errorf("%d events of an hour, want 90", n)
			}
		}},
		{"dispatch and send", 4000, func(t *testing.T) {
			stop := r.start()
			r.submit(root, task.New{})
			to.take(t, 91) // with those of the hour
			stop()
		}},
		{"look, and what is due", 200, func(t *testing.T) {
			must(t, webhook.Look(r.Service, ctx))
			_, err := r.OldestDue(ctx)
			must(t, err)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { plans.Of(t, pool, tc.most, func() { tc.do(t) }) })
	}
}
