package pgtest_test

import (
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

func TestDBGivesEachTestItsOwnMigratedDatabase(t *testing.T) {
	t.Parallel()
	for range 3 {
		start := time.Now()
		pool := pgtest.DB(t)
		var count int
		if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM tasks`).Scan(&count); err != nil || count != 0 {
			t.Fatalf("count of tasks: %d, %v; want 0", count, err)
		}
		t.Logf("a database took %v", time.Since(start))
	}
}

func BenchmarkURL(b *testing.B) {
	for b.Loop() {
		pgtest.URL(b)
	}
}
