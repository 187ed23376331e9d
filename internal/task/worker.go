package task

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// InProcess is who the server's own worker speaks as.
var InProcess = policy.Caller{UserID: "server", Worker: &policy.WorkerScope{}}

const (
	// presence is how long a worker counts as there after it was last heard of.
	// A claim, which a worker without work repeats, waits a minute at most.
	presence = 90 * time.Second
	// seenInterval is how exactly it is known when that was.
	seenInterval = 5 * time.Second
	// forgetAfter is how long a worker that has gone is still listed.
	forgetAfter = 24 * time.Hour

	// servedFor is how long it is remembered which agents workers can run.
	servedFor = 30 * time.Second

	maxWorkerAgents   = 1000
	maxWorkerCapacity = 10_000
)

// NewWorker is what a worker says of itself.
type NewWorker struct {
	ID string
	// Instance names the process: another one of the same id holds no lease of
	// this one's.
	Instance uuid.UUID
	Agents   []string // that it can run; nil: any
	Labels   map[string]string
	Capacity int // how many tasks it runs at once
	Version  string
}

// Worker is a worker as it is now.
type Worker struct {
	ID           string
	Owner        string // the principal that it speaks as
	Agents       []string
	Labels       map[string]string
	Projects     []string // whose tasks it may be given; nil: of any
	Capacity     int
	Running      int
	Version      string
	Draining     bool
	RegisteredAt time.Time
	LastSeenAt   time.Time // within a few seconds
	Present      bool      // it was heard of lately
}

func (w *NewWorker) check() error {
	var found []fault.Field
	bad := func(field, format string, args ...any) {
		found = append(found, fault.Field{Path: "body." + field, Message: fmt.Sprintf(format, args...)})
	}
	id := func(field, value string) {
		if !IsID(value) {
			bad(field, "must be an id: at most %d letters, digits and . _ : @ / + -", MaxIDBytes)
		}
	}
	id("id", w.ID)
	if len(w.Agents) > maxWorkerAgents {
		bad("agents", "must name at most %d agents", maxWorkerAgents)
	}
	for i, a := range w.Agents {
		id(fmt.Sprintf("agents[%d]", i), a)
	}
	if message := LabelsFault(w.Labels); message != "" {
		bad("labels", "%s", message)
	}
	if w.Capacity < 1 || w.Capacity > maxWorkerCapacity {
		bad("capacity", "must be between 1 and %d", maxWorkerCapacity)
	}
	if len(w.Version) > MaxIDBytes || !utf8.ValidString(w.Version) {
		bad("version", "must have at most %d bytes", MaxIDBytes)
	}
	return fault.InvalidFields(found)
}

// A worker keeps its id for as long as somebody may hear of it; then another
// principal can take it over.
const registerSQL = `
WITH was AS MATERIALIZED (SELECT instance FROM workers WHERE id = @id), registered AS (
	INSERT INTO workers (id, owner, instance, agents, labels, capacity, version, projects, only_agents, only_labels)
	VALUES (@id, @owner, @instance, @agents, @labels, @capacity, @version, @projects, @only_agents, @only_labels)
	ON CONFLICT (id) DO UPDATE SET owner = @owner, instance = @instance, agents = @agents, labels = @labels, capacity = @capacity,
		version = @version, projects = @projects, only_agents = @only_agents, only_labels = @only_labels, draining = false,
		registered_at = CASE WHEN workers.instance = @instance THEN workers.registered_at ELSE clock_timestamp() END,
		last_seen_at = clock_timestamp()
	WHERE workers.owner = @owner OR workers.last_seen_at < clock_timestamp() - @presence::interval
	RETURNING id
)
SELECT EXISTS (SELECT FROM registered), coalesce((SELECT instance FROM was) <> @instance, false)`

// RegisterWorker makes a worker known, or what has changed of one. What a
// former process of the same id held is offered again at once.
//
// Faults: Invalid; Forbidden unless c may work; Conflict if the worker of that
// id is another principal's.
func (s *Service) RegisterWorker(ctx context.Context, c policy.Caller, w NewWorker) error {
	if err := w.check(); err != nil {
		return err
	}
	entries, err := s.mayWork(ctx, c, "worker.register", w.ID)
	if err != nil {
		return err
	}
	scope := policy.WorkerScope{}
	if c.Worker != nil {
		scope = *c.Worker
	}
	var registered, replaced bool
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, registerSQL, pgx.NamedArgs{
			"id": w.ID, "owner": c.UserID, "instance": w.Instance, "agents": w.Agents, "labels": labelsOf(w.Labels), "capacity": w.Capacity,
			"version": w.Version, "projects": scope.Projects, "only_agents": scope.Agents, "only_labels": labelsOf(scope.Labels), "presence": presence,
		}).Scan(&registered, &replaced)
		if err != nil {
			return fmt.Errorf("register worker: %w", err)
		}
		if !registered {
			return fault.New(fault.Conflict, "worker %s is another principal's", w.ID)
		}
		return audit.Append(ctx, tx, entries...)
	})
	if err != nil {
		return audit.Fault(err)
	}
	s.bus.Publish(stream.Signal{Topic: stream.WorkersChanged})
	if replaced {
		return s.loseLeases(ctx, abandonSQL, maxLeasesLost, w.ID)
	}
	return nil
}

func labelsOf(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}

// mayWork decides whether c may work at all, and returns the entry of that. The
// server's own worker needs nobody's leave.
func (s *Service) mayWork(ctx context.Context, c policy.Caller, action, workerID string) ([]audit.Entry, error) {
	if c.UserID == InProcess.UserID {
		return nil, nil
	}
	entry, err := s.allowOn(ctx, c, policy.Request{Permission: policy.Work, Action: action}, subject{kind: "worker", id: workerID})
	return []audit.Entry{entry}, err
}

const workersSQL = `
SELECT w.id, w.owner, w.agents, w.labels, w.projects, w.capacity, w.version, w.draining, w.registered_at, w.last_seen_at,
	w.last_seen_at > clock_timestamp() - @presence::interval AS present,
	(SELECT count(*) FROM tasks t WHERE t.lease_token IS NOT NULL AND t.worker_id = w.id)::int AS running
FROM workers w WHERE @owner IN ('', w.owner) AND @id IN ('', w.id) ORDER BY w.id`

// Workers returns all workers that were heard of within the last day, by id;
// to a worker only its own principal's.
func (s *Service) Workers(ctx context.Context, c policy.Caller) ([]Worker, error) {
	owner := ""
	if c.Worker != nil {
		owner = c.UserID
	}
	return s.workers(ctx, owner, "")
}

func (s *Service) workers(ctx context.Context, owner, id string) ([]Worker, error) {
	rows, err := s.pool.Query(ctx, workersSQL, pgx.NamedArgs{"owner": owner, "id": id, "presence": presence})
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list workers: %w", err))
	}
	workers, err := pgx.CollectRows(rows, pgx.RowToStructByName[Worker])
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list workers: %w", err))
	}
	return workers, nil
}

// Served returns the ids of the agents that workers other than a server's own
// are there to run, as of the last half minute or of the last change that was
// heard of.
func (s *Service) Served(ctx context.Context) ([]string, error) {
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.servedAt == s.workerChanges.Load() && time.Now().Before(s.servedUntil) {
		return s.served, nil
	}
	changes := s.workerChanges.Load()
	rows, err := s.pool.Query(ctx, `
		SELECT DISTINCT a FROM workers, unnest(agents) AS a
		WHERE NOT draining AND last_seen_at > clock_timestamp() - $1::interval AND (only_agents IS NULL OR a = ANY (only_agents))`, presence)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list served agents: %w", err))
	}
	served, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list served agents: %w", err))
	}
	s.served, s.servedAt, s.servedUntil = served, changes, time.Now().Add(servedFor)
	return served, nil
}

// DrainWorker has a worker take no more tasks. One that says so itself and holds
// no lease is gone; one that is told to by an administrator hears of it with its
// next claim, finishes what it runs and stops.
//
// Faults: NotFound, also for a worker of another principal's unless c
// administers everything; Forbidden unless c may work.
func (s *Service) DrainWorker(ctx context.Context, c policy.Caller, id string) error {
	entries, err := s.mayWork(ctx, c, "worker.drain", id)
	if err != nil {
		return err
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var owner string
		err := tx.QueryRow(ctx, `UPDATE workers SET draining = true WHERE id = $1 AND ($2 = '' OR owner = $2) RETURNING owner`,
			id, ownerOf(c)).Scan(&owner)
		if errors.Is(err, pgx.ErrNoRows) {
			return noWorker(id)
		}
		if err != nil {
			return fmt.Errorf("drain worker: %w", err)
		}
		if owner == c.UserID {
			if _, err := tx.Exec(ctx, `DELETE FROM workers WHERE id = $1
				AND NOT EXISTS (SELECT FROM tasks WHERE lease_token IS NOT NULL AND worker_id = $1)`, id); err != nil {
				return fmt.Errorf("remove worker: %w", err)
			}
		}
		return audit.Append(ctx, tx, entries...)
	})
	if err == nil {
		// A claim that waits is to tell the worker.
		s.bus.Publish(stream.Signal{Topic: stream.WorkersChanged}, stream.Signal{Topic: stream.WorkReady, ID: id})
	}
	return audit.Fault(err)
}

// ownerOf is whose workers and leases the caller may name; "": anybody's, for
// who is confined to nothing.
func ownerOf(c policy.Caller) string {
	if c.Worker == nil && c.AllProjects {
		return ""
	}
	return c.UserID
}

// holderOf is whose worker must hold a lease that the caller names; "":
// anybody's. An agent has nothing but the lease that its worker gave it.
func holderOf(c policy.Caller) string {
	if c.Lease != nil {
		return ""
	}
	return ownerOf(c)
}

func noWorker(id string) error { return fault.New(fault.NotFound, "no worker %s: register it", id) }

// forgetWorkers removes workers that were not heard of for long.
func (s *Service) forgetWorkers(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM workers w WHERE last_seen_at < clock_timestamp() - $1::interval
		AND NOT EXISTS (SELECT FROM tasks WHERE lease_token IS NOT NULL AND worker_id = w.id)`, forgetAfter); err != nil {
		return postgres.Fault(fmt.Errorf("forget workers: %w", err))
	}
	return nil
}

// sighting is what is known of a worker that was just heard of.
type sighting struct {
	known    bool // there is such a worker of the caller's
	draining bool
	work     bool  // there is a task that can be claimed, by whomever
	scope    int64 // equal for workers that can be given the same tasks
}

// presentSQL returns a sighting, and no row if there is no such worker of that
// principal's. It notes that the worker was heard of.
// The order has the planner look into the index of what can be claimed: it takes
// that to be all over the table, while it is at its end.
const presentSQL = `
WITH seen AS (
	UPDATE workers SET last_seen_at = clock_timestamp()
	WHERE id = $1 AND owner = $2 AND last_seen_at < clock_timestamp() - $3::interval
)
SELECT true, draining, coalesce((SELECT true FROM tasks WHERE claimable ORDER BY project_id, rank, id LIMIT 1), false),
	hashtextextended(ROW(agents, only_agents, projects, labels, only_labels)::text, 1)
FROM workers WHERE id = $1 AND owner = $2`

// queuePresent adds presentSQL to a batch.
func queuePresent(b *pgx.Batch, c policy.Caller, workerID string, seen *sighting) {
	*seen = sighting{}
	b.Queue(presentSQL, workerID, c.UserID, seenInterval).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&seen.known, &seen.draining, &seen.work, &seen.scope)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
}
