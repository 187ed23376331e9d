package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

const (
	// sweepInterval is the longest that passes without a look at what is due. It
	// is no longer than a lease, so that each is known before it runs out, and
	// what comes then has a timer.
	sweepInterval = 30 * time.Second
	// lookInterval bounds how late a change is noticed whose signal was lost.
	lookInterval = 2 * time.Second
	// idleLookInterval is the same while nobody follows and no worker has work.
	idleLookInterval = 10 * time.Second
	// minRefill is how often it is looked at most whether rates let tasks go.
	minRefill = 50 * time.Millisecond
	// tidyInterval is how often partitions and leftovers are looked after.
	tidyInterval = 10 * time.Minute
)

// Prepare makes the database ready for this process: the order of events after
// a restore from a dump, partitions for the coming weeks, and what a killed
// process left undone.
func (s *Service) Prepare(ctx context.Context) error {
	if err := s.restoreOrder(ctx); err != nil {
		return err
	}
	if err := s.ensurePartitions(ctx); err != nil {
		return err
	}
	if err := s.settleLeftovers(ctx); err != nil {
		return err
	}
	return s.unpark(ctx)
}

// Run keeps time-bound things going until ctx ends: leases that run out, tasks
// whose time has come, schedules, partitions. Faults of the database are logged and tried
// again.
func (s *Service) Run(ctx context.Context) error {
	sweep := time.NewTimer(0)
	tidy := time.NewTicker(tidyInterval)
	defer sweep.Stop()
	defer tidy.Stop()
	var look <-chan time.Time
	var seen uint64
	var looked time.Time
	if s.shared {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		look = ticker.C
		seen, _ = s.look(ctx, 0) // without a place yet, the first tick tries again
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			var wait time.Duration
			wait, err = s.sweep(ctx)
			sweep.Reset(wait)
		case <-s.sweepSoon:
			sweep.Reset(0)
		case <-s.unparkSoon:
			err = s.unpark(ctx)
		case <-s.recheckSoon:
			err = s.recheck(ctx)
		case <-look:
			if s.busy() || time.Since(looked) >= idleLookInterval {
				looked = time.Now()
				seen, err = s.look(ctx, seen)
			}
		case <-tidy.C:
			err = errors.Join(s.ensurePartitions(ctx), s.settleLeftovers(ctx), s.forgetWorkers(ctx), s.forgetGrants(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "housekeeping interrupted", "error", err)
		}
	}
}

// busy reports whether anybody here waits to hear of a change.
func (s *Service) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.leases) > 0 || s.watched()
}

// sweep takes expired leases away, offers tasks whose time has come, ends
// questions that nobody answered in time and runs schedules. It returns when to
// sweep next.
func (s *Service) sweep(ctx context.Context) (time.Duration, error) {
	var due int
	var next, tick, bound, expiry, lease, refill *float64
	var queued bool
	err := postgres.Retry(ctx, func() error {
		return s.pool.QueryRow(ctx, `
		WITH due AS (
			UPDATE tasks t SET claimable = true, `+requeueSQL+`
			WHERE NOT claimable AND dispatch = 'auto' AND blocked_by = 0 AND parked_by = ''
				AND (status = 'pending' OR waiting_reason = 'retry') AND run_after <= now()
			RETURNING id
		)
		SELECT (SELECT count(*) FROM due),
			(SELECT extract(epoch FROM min(run_after) - clock_timestamp())::float8 FROM tasks
			WHERE NOT claimable AND dispatch = 'auto' AND blocked_by = 0 AND parked_by = ''
				AND (status = 'pending' OR waiting_reason = 'retry') AND run_after > now()),
			(SELECT extract(epoch FROM min(next_at) - clock_timestamp())::float8 FROM schedules WHERE next_at IS NOT NULL),
			EXISTS (SELECT FROM schedules s WHERE s.queued_at IS NOT NULL AND `+readySQL+`),
			(SELECT extract(epoch FROM min(at) - clock_timestamp())::float8 FROM (
				(SELECT expires_at AS at FROM tasks WHERE expires_at IS NOT NULL AND status = 'pending' ORDER BY 1 LIMIT 1)
				UNION ALL
				(SELECT deadline_at FROM tasks WHERE deadline_at IS NOT NULL AND completed_at IS NULL ORDER BY 1 LIMIT 1)
			) bounds),
			(SELECT extract(epoch FROM min(expires_at) - clock_timestamp())::float8 FROM questions WHERE status = 'open'),
			(SELECT extract(epoch FROM min(lease_expires_at) - clock_timestamp())::float8 FROM tasks WHERE lease_token IS NOT NULL),
			(WITH `+ratesSQL+` SELECT min((floor(tokens) + 1 - tokens) / per_second)::float8 FROM rates r
			WHERE EXISTS (SELECT FROM tasks WHERE parked_by = 'rate:' || r.agent_id AND parked_by <> '' AND completed_at IS NULL))`).
			Scan(&due, &next, &tick, &queued, &bound, &expiry, &lease, &refill)
	})
	if err != nil {
		return min(s.lease, sweepInterval), fmt.Errorf("offer tasks whose time has come: %w", err)
	}
	if due > 0 {
		s.bus.Publish(stream.Signal{Topic: stream.WorkReady})
	}
	wait := min(s.lease, sweepInterval)
	for _, seconds := range []*float64{next, expiry} {
		if seconds != nil {
			wait = min(wait, max(0, time.Duration(*seconds*float64(time.Second)))+time.Millisecond)
		}
	}
	if refill != nil { // one task of an agent with a rate can be begun then
		wait = min(wait, max(minRefill, time.Duration(*refill*float64(time.Second))))
	}
	if s.parked.Load() { // signals can be lost
		poke(s.unparkSoon)
	}
	var faults []error
	if expiry != nil && *expiry <= 0 {
		faults = append(faults, s.expireQuestions(ctx))
	}
	switch {
	case queued || tick != nil && *tick <= 0:
		some, err := s.runDue(ctx)
		faults = append(faults, err)
		if some {
			wait = 0 // until nothing is due, and the time of the next tick is known
		}
	case tick != nil:
		wait = min(wait, time.Duration(*tick*float64(time.Second))+time.Millisecond)
	}
	switch {
	case bound != nil && *bound <= 0:
		faults = append(faults, s.endOverdue(ctx))
		wait = 0 // until the time of the next one is known
	case bound != nil:
		wait = min(wait, time.Duration(*bound*float64(time.Second))+time.Millisecond)
	}
	switch {
	case lease != nil && *lease <= 0:
		faults = append(faults, s.loseLeases(ctx, expireSQL, maxLeasesLost))
		wait = 0 // until the time of the next one is known
	case lease != nil:
		wait = min(wait, time.Duration(*lease*float64(time.Second))+time.Millisecond)
	}
	return wait, errors.Join(faults...)
}

// look tells this process of the tasks that changed since the transaction that
// was the oldest one running at the last look. It makes up for signals that were
// lost, with their sender or on the way.
func (s *Service) look(ctx context.Context, since uint64) (now uint64, err error) {
	rows, err := s.pool.Query(ctx, `
		SELECT pg_snapshot_xmin(pg_current_snapshot()), coalesce(
			(SELECT array_agg(DISTINCT task_id) FROM task_events WHERE txid >= $1 AND $1 <> '0'::xid8), '{}')`, since)
	if err != nil {
		return since, postgres.Fault(fmt.Errorf("look for changes: %w", err))
	}
	var changed []uuid.UUID
	if _, err = pgx.ForEachRow(rows, []any{&now, &changed}, func() error { return nil }); err != nil {
		return since, postgres.Fault(fmt.Errorf("look for changes: %w", err))
	}
	if len(changed) > 0 {
		s.bus.Deliver(stream.Signal{Topic: stream.WorkReady})
		for _, id := range changed {
			s.bus.Deliver(stream.Signal{Topic: stream.TaskChanged, ID: id.String()})
		}
	}
	return now, nil
}
