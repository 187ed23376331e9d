package task

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
)

// ReadAs runs a query as it stands on behalf of the caller.
func (s *Service) ReadAs(ctx context.Context, c policy.Caller, sql string, scan func(pgx.Rows) error) error {
	return s.read(ctx, c, sql, pgx.NamedArgs{}, scan)
}

// Sweep does what is due now.
func (s *Service) Sweep(ctx context.Context) (next time.Duration, err error) { return s.sweep(ctx) }
