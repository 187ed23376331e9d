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

// Collect removes the contents that nobody needs any more, now.
func (s *Service) Collect(ctx context.Context) error { return s.collect(ctx) }

// Retain forgets what is too old, now.
func (s *Service) Retain(ctx context.Context, whole bool) error { return s.retain(ctx, whole) }

// Sweep does what is due now.
func (s *Service) Sweep(ctx context.Context) (next time.Duration, err error) { return s.sweep(ctx) }

// What the tests of plans run.
var (
	ClaimSQL     = claimSQL
	UnparkSQL    = unparkSQL
	TakeTurnsSQL = takeTurnsSQL
)

// ClaimLock is what TakeTurnsSQL takes.
const ClaimLock = claimLock

// FlushesUnderWay is how many groups of reports are being written, Queued how
// many reports wait for that.
func (s *Service) FlushesUnderWay() int {
	n, _ := s.reports.Load()
	return n
}

func (s *Service) Queued() int {
	_, n := s.reports.Load()
	return n
}

// Waiting is how many claims wait for work, having looked for it.
func (s *Service) Waiting() (n int) {
	s.polls.mu.Lock()
	defer s.polls.mu.Unlock()
	for _, p := range s.polls.waiting {
		if p.scope != 0 && !p.due && !p.looking {
			n++
		}
	}
	return n
}
