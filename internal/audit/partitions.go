package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
)

// monthsAhead is for how many months partitions are made beforehand, beside
// the current one.
const monthsAhead = 2

// partitionLock keeps two servers from making the same partition at once.
const partitionLock = 0x61756470 // "audp"

// Prepare makes the partitions for this month and the next ones.
func (l *Log) Prepare(ctx context.Context) error {
	err := postgres.InTx(ctx, l.pool, func(tx pgx.Tx) error {
		var now time.Time
		if err := tx.QueryRow(ctx, `SELECT pg_advisory_xact_lock($1), now()`, partitionLock).Scan(nil, &now); err != nil {
			return err
		}
		for i := range monthsAhead + 1 {
			if _, err := tx.Exec(ctx, `SELECT add_audit_partition($1)`, monthOf(now).AddDate(0, i, 0)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return postgres.Fault(fmt.Errorf("make partitions of the audit log: %w", err))
	}
	return nil
}

// monthOf returns the first moment of t's month, in UTC.
func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}
