package task

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
)

// A partition of task_events holds the events of the tasks of one week, from
// Monday, 00:00 UTC.
const partitionAge = 7 * 24 * time.Hour

// partitionsAhead is for how many weeks partitions are made beforehand, beside
// the current one.
const partitionsAhead = 2

// Partitions are named by the Monday.
const (
	partitionPrefix = "task_events_"
	partitionLayout = "20060102"
)

// partitionLock keeps two servers from making the same partition at once.
const partitionLock = 0x7461736b // "task"

// ensurePartitions makes the partitions for this week and the next ones.
func (s *Service) ensurePartitions(ctx context.Context) error {
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var now time.Time
		if err := tx.QueryRow(ctx, `SELECT pg_advisory_xact_lock($1), now()`, partitionLock).Scan(nil, &now); err != nil {
			return err
		}
		week := weekOf(now)
		for range partitionsAhead + 1 {
			if err := ensurePartition(ctx, tx, week); err != nil {
				return fmt.Errorf("of %s: %w", week.Format(time.DateOnly), err)
			}
			week = week.Add(partitionAge)
		}
		return nil
	})
	if err != nil {
		return postgres.Fault(fmt.Errorf("make partitions: %w", err))
	}
	return nil
}

func ensurePartition(ctx context.Context, tx pgx.Tx, week time.Time) error {
	name := partitionPrefix + week.Format(partitionLayout)
	from, to := postgres.FirstID(week), postgres.FirstID(week.Add(partitionAge))
	var exists, needed bool
	// Events that fell to the default partition stay there, with those that
	// follow: a new partition must not overlap them.
	err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL,
		EXISTS (SELECT FROM task_events_default WHERE task_id >= $2 AND task_id < $3)`, name, from, to).Scan(&exists, &needed)
	if err != nil || exists || needed {
		return err
	}
	_, err = tx.Exec(ctx, `SELECT add_task_events_partition($1, $2, $3)`, name, from, to)
	return err
}

// weekOf returns the Monday, 00:00 UTC, of t's week.
func weekOf(t time.Time) time.Time {
	t = t.UTC()
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
}
