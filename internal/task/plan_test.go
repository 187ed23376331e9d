package task_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// However many tasks have ended, wait or are held back, and before the database
// has counted any of them.
func TestTurnsAreTakenByIndexesAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.register(t, task.NewWorker{ID: "w"})
	const insert = `INSERT INTO tasks (id, status, description, input, agent_id, user_id, dispatch, created_at, updated_at, last_seq, last_txid,
		claimable, completed_at, parked_by, concurrency_key, concurrency_limit, tag, rank) SELECT gen_random_uuid(), `
	for _, sql := range []string{
		insert + `'completed', 'd', 'i', 'a', 'ann', 'auto', now(), now(), 1, '5', false, now(), '', '', 0, 0, 0 FROM generate_series(1, 20000)`,
		insert + `'pending', 'd', 'i', 'a', 'ann', 'auto', now(), now(), 1, '5', false, NULL, 'key:/k', 'k', 1, n, n FROM generate_series(1, 5000) n`,
		insert + `'pending', 'd', 'i', 'a', 'ann', 'auto', now(), now(), 1, '5', true, NULL, '', '', 0, n, n FROM generate_series(1, 5000) n`,
	} {
		if _, err := r.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	entry := audit.NewEntry(task.InProcess, "task.claim", "task", "", policy.Decision{Allowed: true})
	err := pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), task.TakeTurnsSQL, task.ClaimLock); err != nil {
			return err
		}
		for name, q := range map[string]struct {
			sql  string
			args []any
		}{
			"claim":  {task.ClaimSQL, append([]any{"w", task.InProcess.UserID, 1, "30 s"}, audit.Args(entry)...)},
			"unpark": {task.UnparkSQL, nil},
		} {
			rows, err := tx.Query(t.Context(), "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) "+q.sql, q.args...)
			if err != nil {
				return err
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			for _, line := range plan {
				if strings.Contains(line, "Seq Scan on tasks") || strings.Contains(line, "rows=5000") || strings.Contains(line, "rows=20000") {
					t.Errorf("%s reads all there are: %s", name, strings.TrimSpace(line))
				}
			}
			if t.Failed() {
				t.Logf("the plan:\n%s", strings.Join(plan, "\n"))
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
