package task

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
)

// Counts is how many tasks there are, by status. Statuses without a task are
// absent.
type Counts map[Status]int64

// Active is how many tasks are planning, running or waiting.
func (c Counts) Active() int64 { return c[Planning] + c[Running] + c[Waiting] }

// Total is how many tasks there are.
func (c Counts) Total() (n int64) {
	for _, k := range c {
		n += k
	}
	return n
}

// Counting takes longer the more tasks there are; a count is good for this
// many times as long as it took, so that asking often costs a bounded share of
// the database.
const countFreshness = 20

// Count counts the tasks. On a large database the answer may be some seconds
// old. The result must not be changed.
func (s *Service) Count(ctx context.Context) (Counts, error) {
	s.counting.Lock() // one counts, the others take its answer
	defer s.counting.Unlock()
	start := time.Now()
	if start.Before(s.countEnd) {
		return s.counted, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT status, count(*) FROM tasks GROUP BY status`)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("count tasks: %w", err))
	}
	counts := Counts{}
	var st Status
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&st, &n}, func() error { counts[st] = n; return nil }); err != nil {
		return nil, postgres.Fault(fmt.Errorf("count tasks: %w", err))
	}
	took := time.Since(start)
	s.counted, s.countEnd = counts, time.Now().Add(min(countFreshness*took, 10*time.Second))
	return counts, nil
}
