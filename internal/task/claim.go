package task

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Lease is a worker's time-limited right to run one attempt of a task.
type Lease struct {
	Task
	LeaseToken     uuid.UUID
	LeaseExpiresAt time.Time // by the database's clock
	// Waited is how long the task could have been claimed before it was.
	Waited time.Duration
	// Resume is what the worker left when it gave the task back until people had
	// answered; nil: it begins anew. Outcomes are what has become of the
	// questions.
	Resume   *Suspension
	Outcomes []Question `db:"-"`
}

// maxLeasesLost is how many workers a task may take down with it before it
// fails.
const maxLeasesLost = 5

// mineSQL says whether worker $1 goes on with a task t from where it left it. A
// failed attempt is followed by one that begins anew.
const mineSQL = `t.resume_worker = $1 AND t.waiting_reason <> 'retry'`

var claimSQL = `
WITH RECURSIVE worker AS MATERIALIZED (
	SELECT * FROM workers WHERE id = $1 AND owner = $2 AND NOT draining
), ` + candidatesSQL + `, picked AS MATERIALIZED (
	SELECT t.id, t.updated_at, t.run_after, t.waiting_reason, t.resume_worker, j.turn, j.held_by FROM tasks t JOIN judged j USING (id)
	WHERE t.claimable FOR UPDATE OF t SKIP LOCKED
), parked AS (
	UPDATE tasks t SET claimable = false, parked_by = p.held_by FROM picked p WHERE t.id = p.id AND p.held_by <> ''
	RETURNING ` + columns + `, t.parked_by
), claimed AS (
	UPDATE tasks t SET
		status = CASE t.status WHEN 'pending' THEN 'planning' ELSE 'running' END,
		waiting_reason = '', claimable = false, worker_id = $1,
		attempt = CASE t.waiting_reason WHEN 'resume' THEN t.attempt ELSE t.attempt + 1 END,
		resume = CASE WHEN ` + mineSQL + ` THEN t.resume END, resume_worker = CASE WHEN ` + mineSQL + ` THEN $1 ELSE '' END,
		lease_token = gen_random_uuid(), lease_expires_at = clock_timestamp() + $4::interval,
		started_at = coalesce(t.started_at, clock_timestamp()), updated_at = clock_timestamp(),
		last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM picked p WHERE t.id = p.id AND p.held_by = ''
	RETURNING ` + columns + `, t.last_txid, t.lease_token, t.lease_expires_at, t.resume, p.waiting_reason AS waited_for, p.resume_worker AS left_by, p.turn, t.tag,
		t.updated_at - greatest(p.updated_at, p.run_after) AS waited
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
	SELECT id, last_seq, last_txid, updated_at, 'status', status, CASE
			WHEN waited_for <> 'resume' THEN 'attempt ' || attempt || ' on worker ' || $1::text
			WHEN resume IS NOT NULL THEN 'attempt ' || attempt || ' goes on with worker ' || $1::text
			ELSE 'attempt ' || attempt || ' begins anew on worker ' || $1::text || ': worker ' || left_by || ', which left it, is gone' END,
		json_build_object('attempt', attempt, 'worker', $1::text) FROM claimed
), advanced AS (
	INSERT INTO turns (project_id, tag) SELECT project_id, max(tag) FROM claimed GROUP BY project_id
	ON CONFLICT (project_id) DO UPDATE SET tag = greatest(turns.tag, excluded.tag)
), spent AS (
	UPDATE concurrency_limits l SET tokens = r.tokens - c.n, filled_at = r.at
	FROM rates r JOIN (SELECT agent_id, count(*) AS n FROM claimed GROUP BY agent_id) c USING (agent_id)
	WHERE l.kind = 'agent' AND l.name = r.agent_id
), audited AS (
	` + audit.InsertSQL(5, `JOIN (SELECT id, project_id, row_number() OVER (ORDER BY id) AS n FROM claimed) c USING (n)`,
	map[string]string{"resource_id": "c.id::text", "project_id": "c.project_id"}) + `
)
SELECT * FROM (
	SELECT ` + columns + `, t.lease_token, t.lease_expires_at, t.resume, t.waited, t.turn, '' AS parked_by FROM claimed t
	UNION ALL
	SELECT ` + columns + `, '00000000-0000-0000-0000-000000000000', now(), NULL, '0', 0, t.parked_by FROM parked t
) found ORDER BY turn`

// found is a task that claimSQL has leased, or that it has parked: then there is
// no lease.
type found struct {
	Lease
	Turn     int
	ParkedBy string
}

// Claim leases up to max tasks to the worker, in the order of their turns, of
// those that it has registered for, that its credential lets it serve and that
// limits have room for. Two workers never get the same task. If there is no work it waits for
// some, at most wait; no lease is not an error. draining says that there will be
// none: the worker is to finish and stop.
//
// It returns NotFound if c has registered no such worker.
func (s *Service) Claim(ctx context.Context, c policy.Caller, workerID string, max int, wait time.Duration) (leases []Lease, draining bool, err error) {
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	p := &poll{caller: c, worker: workerID, max: max, once: wait <= 0, answer: make(chan struct{})}
	s.polls.add(p)
	var timeout <-chan time.Time
	if !p.once {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-p.answer:
	case <-timeout:
		s.polls.leave(p)
	case <-ctx.Done():
		s.polls.leave(p)
	}
	<-p.answer
	if len(p.leases) == 0 {
		return nil, p.seen.draining, cmp.Or(p.err, ctx.Err())
	}
	// Whoever asked may have left meanwhile; what is leased is to be heard of all
	// the same, and given back.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return s.stillAllowed(ctx, c, s.bringOutcomes(ctx, c, p.leases)), p.seen.draining, nil
}

// offer claims tasks for the polls, in one transaction, and tells of them. If it
// fails as a whole each is tried alone, so that a bad one fails alone. Unless
// something is known to be ready it looks for that first, which is cheaper.
func (s *Service) offer(all []*poll, ready bool) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	err := s.tryOffer(ctx, all, ready)
	switch {
	case err == nil:
	case len(all) == 1 || fault.CodeOf(err) == fault.Unavailable || ctx.Err() != nil:
		for _, p := range all {
			p.result = result{err: err} // what was read was not committed
		}
	default:
		for _, p := range all {
			s.offer([]*poll{p}, true)
		}
	}
}

func (s *Service) tryOffer(ctx context.Context, all []*poll, ready bool) error {
	b := &pgx.Batch{}
	if ready {
		b.Queue(takeTurnsSQL, claimLock)
	}
	for _, p := range all {
		p.result = result{}
		queuePresent(b, p.caller, p.worker, &p.seen)
		if ready {
			s.queueClaim(b, p)
		}
	}
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return postgres.Fault(audit.Fault(fmt.Errorf("claim: %w", err)))
	}
	var signals []stream.Signal
	var hopeful []*poll
	for _, p := range all {
		if !p.seen.known {
			p.err = noWorker(p.worker)
		}
		if !ready && p.seen.work && !p.seen.draining {
			hopeful = append(hopeful, p)
		}
		for _, l := range p.leases {
			s.claimed(l.Waited)
			signals = append(signals, stream.Signal{Topic: stream.TaskChanged, ID: l.ID.String()})
		}
		if p.parked && !s.parked.Swap(true) {
			signals = append(signals, stream.Signal{Topic: stream.TasksParked})
		}
		if p.rated { // until a time that no sweep knows of
			poke(s.sweepSoon)
		}
	}
	s.bus.Publish(signals...)
	if len(hopeful) > 0 {
		return s.tryOffer(ctx, hopeful, true)
	}
	return nil
}

// queueClaim adds a poll's claim to a batch.
func (s *Service) queueClaim(b *pgx.Batch, p *poll) {
	entries := make([]audit.Entry, p.max) // of which as many are kept as tasks are found
	for i := range entries {
		entries[i] = audit.NewEntry(p.caller, actionClaim, resourceType, "", policy.Decision{Allowed: true, Reason: "offered to worker " + p.worker})
	}
	b.Queue(claimSQL, append([]any{p.worker, p.caller.UserID, p.max, s.lease}, audit.Args(entries...)...)...).Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, pgx.RowToStructByName[found])
		for _, f := range all {
			if f.LeaseToken != uuid.Nil {
				p.leases = append(p.leases, f.Lease)
				continue
			}
			p.parked = true
			p.rated = p.rated || strings.HasPrefix(f.ParkedBy, "rate:")
		}
		return err
	})
}

// stillAllowed ends the claimed tasks whose submitters may not have them done
// any more, and returns the others.
func (s *Service) stillAllowed(ctx context.Context, worker policy.Caller, leases []Lease) []Lease {
	kept := leases[:0]
	for _, l := range leases {
		c, d, err := s.reconsider(ctx, l.Task)
		switch {
		case err != nil: // undecided is not allowed
			s.giveBack(ctx, worker, l, "whether it may run could not be decided", err)
		case d.Allowed:
			kept = append(kept, l)
		default:
			s.recorder.Record(ctx, audit.NewEntry(c, actionClaim, resourceType, l.ID.String(), d))
			s.endLease(ctx, worker, l, Report{Status: Failed, Reason: ReasonDenied, Error: "not allowed any more: " + d.Reason})
		}
	}
	return kept
}

// giveBack offers a task again that was claimed this moment, for a fault that its
// history calls message.
func (s *Service) giveBack(ctx context.Context, worker policy.Caller, l Lease, message string, err error) {
	s.log.WarnContext(ctx, "claimed task given back", "task", l.ID, "error", err)
	s.endLease(ctx, worker, l, Report{Release: true, Message: message})
}

// endLease ends a lease that was given this moment.
func (s *Service) endLease(ctx context.Context, worker policy.Caller, l Lease, r Report) {
	if err := s.Report(ctx, worker, l.ID, l.LeaseToken, r); err != nil {
		s.log.WarnContext(ctx, "claimed task left to its lease's end", "task", l.ID, "error", err)
	}
}

// Heartbeat renews the worker's leases and returns those that it holds no
// more. If all are held it waits for that to change, at most wait. It returns
// NotFound if c has registered no such worker.
func (s *Service) Heartbeat(ctx context.Context, c policy.Caller, workerID string, leases []uuid.UUID, wait time.Duration) (lost []uuid.UUID, err error) {
	changed := make(chan struct{}, 1)
	s.mu.Lock()
	s.leases[changed] = workerID
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.leases, changed)
		s.mu.Unlock()
	}()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		lost, err = s.renew(ctx, c, workerID, leases)
		if err != nil || len(lost) > 0 {
			return lost, err
		}
		select {
		case <-changed:
		case <-timeout.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// renewSQL extends what is still held and returns the rest. It locks the tasks in
// the order in which flushes of reports do, so that they do not wait for each
// other.
const renewSQL = `
WITH held AS MATERIALIZED (
	SELECT id FROM tasks
	WHERE worker_id = $1 AND lease_token = ANY ($2) AND EXISTS (SELECT FROM workers WHERE id = $1 AND owner = $4)
	ORDER BY id FOR UPDATE
), renewed AS (
	UPDATE tasks t SET lease_expires_at = clock_timestamp() + $3::interval FROM held WHERE t.id = held.id
	RETURNING t.lease_token
)
SELECT l FROM unnest($2::uuid[]) AS l WHERE l NOT IN (SELECT lease_token FROM renewed)`

// renew extends what is still held and returns the rest.
func (s *Service) renew(ctx context.Context, c policy.Caller, workerID string, leases []uuid.UUID) (lost []uuid.UUID, err error) {
	var seen sighting
	err = postgres.Retry(ctx, func() error {
		b := &pgx.Batch{}
		queuePresent(b, c, workerID, &seen)
		b.Queue(planSQL)
		b.Queue(renewSQL, workerID, leases, s.lease, c.UserID).Query(func(rows pgx.Rows) (err error) {
			lost, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
			return err
		})
		return s.pool.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("renew leases: %w", err)
	}
	if !seen.known {
		return nil, noWorker(workerID)
	}
	return lost, nil
}

// loseLeases takes the leases away for which the condition holds. Their tasks
// wait for the next claim, or fail if they have lost too many workers.
var loseLeasesSQL = `
WITH lost AS MATERIALIZED (
	SELECT id FROM tasks WHERE lease_token IS NOT NULL AND %s FOR UPDATE SKIP LOCKED
), changed AS (
	UPDATE tasks t SET
		status = CASE WHEN t.leases_lost + 1 >= $1 THEN 'failed' ELSE 'waiting' END,
		waiting_reason = CASE WHEN t.leases_lost + 1 >= $1 THEN '' ELSE 'worker-lost' END,
		error = CASE WHEN t.leases_lost + 1 >= $1 THEN 'its worker was lost ' || $1 || ' times' ELSE t.error END,
		completed_at = CASE WHEN t.leases_lost + 1 >= $1 THEN clock_timestamp() END,
		claimable = t.leases_lost + 1 < $1, ` + requeueSQL + `,
		status_reason = 'worker-lost', leases_lost = t.leases_lost + 1, lease_token = NULL, lease_expires_at = NULL,
		updated_at = clock_timestamp(),
		last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM lost WHERE t.id = lost.id
	RETURNING t.id, t.status, t.last_seq, t.last_txid, t.updated_at, t.worker_id
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
	SELECT id, last_seq, last_txid, updated_at, 'status', status, 'worker ' || worker_id || ' is gone', '{"reason":"worker-lost"}' FROM changed
)
SELECT id, status, worker_id FROM changed`

var (
	expireSQL  = fmt.Sprintf(loseLeasesSQL, "lease_expires_at < clock_timestamp()")
	abandonSQL = fmt.Sprintf(loseLeasesSQL, "worker_id = $2")
)

func (s *Service) loseLeases(ctx context.Context, sql string, args ...any) error {
	type row struct {
		ID       uuid.UUID
		Status   Status
		WorkerID string
	}
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return postgres.Fault(fmt.Errorf("take leases away: %w", err))
	}
	changed, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		return postgres.Fault(fmt.Errorf("take leases away: %w", err))
	}
	if len(changed) == 0 {
		return nil
	}
	signals := []stream.Signal{{Topic: stream.WorkReady}}
	var failed []uuid.UUID
	for _, r := range changed {
		signals = append(signals,
			stream.Signal{Topic: stream.TaskChanged, ID: r.ID.String()},
			stream.Signal{Topic: stream.LeaseLost, ID: r.WorkerID})
		if r.Status == Failed {
			failed = append(failed, r.ID)
		}
	}
	s.bus.Publish(signals...)
	s.leftRoom()
	return s.settle(ctx, failed)
}
