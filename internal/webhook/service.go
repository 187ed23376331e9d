package webhook

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/outbound"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Access decides, by the policies that hold at the moment.
type Access interface {
	Decide(ctx context.Context, c policy.Caller, r policy.Request) (policy.Decision, error)
}

// Recorder keeps denials.
type Recorder interface {
	Record(ctx context.Context, e audit.Entry)
}

// Bus carries signals between the parts of one or many servers.
type Bus interface {
	Publish(...stream.Signal)
	Subscribe(func(stream.Signal)) (cancel func())
}

// Options are what NewService needs besides the database.
type Options struct {
	Access   Access
	Recorder Recorder
	Bus      Bus
	Log      *slog.Logger
	// AllowPrivate lets webhooks be in private networks and on this machine, on
	// any port, and without TLS.
	AllowPrivate bool
	// Shared says that other servers write to the same database, so that signals
	// can be lost and are made up for by looking, once a minute.
	Shared bool
}

// Service is the webhooks' engine. Its methods may be called concurrently.
type Service struct {
	pool     *pgxpool.Pool
	access   Access
	recorder Recorder
	bus      Bus
	log      *slog.Logger
	private  bool
	reach    outbound.Reach
	client   *http.Client
	shared   bool

	active   atomic.Bool   // whether a webhook is enabled, as far as is known
	logGrown chan struct{} // poked when there may be events to be queued
	dueSoon  chan struct{} // poked when a delivery is due that no timer knows of

	mu      sync.Mutex
	sending map[uuid.UUID]int // attempts that are being made, by webhook
	numbers struct{ delivered, retried, dead atomic.Int64 }
}

// NewService returns the engine over the database in pool. Call Run to have
// events sent.
func NewService(pool *pgxpool.Pool, o Options) *Service {
	s := &Service{
		pool: pool, access: o.Access, recorder: o.Recorder, bus: o.Bus, log: o.Log, private: o.AllowPrivate, shared: o.Shared,
		reach: outbound.Public, logGrown: make(chan struct{}, 1), dueSoon: make(chan struct{}, 1), sending: map[uuid.UUID]int{},
	}
	if o.AllowPrivate {
		s.reach = outbound.Private
	}
	s.client = outbound.Client(s.reach)
	s.client.Timeout = attemptTimeout
	o.Bus.Subscribe(s.hear)
	return s
}

func (s *Service) hear(sig stream.Signal) {
	switch sig.Topic {
	case stream.TaskChanged:
		if s.active.Load() {
			poke(s.logGrown)
		}
	case stream.WebhooksChanged, stream.Resync:
		poke(s.logGrown)
		poke(s.dueSoon)
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Stats are what this server has done since it was started.
type Stats struct {
	Delivered int64 // attempts that succeeded
	Retried   int64 // attempts that failed, with others to follow
	Dead      int64 // deliveries that were given up
}

// Stats returns what this server has done.
func (s *Service) Stats() Stats {
	return Stats{Delivered: s.numbers.delivered.Load(), Retried: s.numbers.retried.Load(), Dead: s.numbers.dead.Load()}
}

const (
	// lookInterval bounds how late it is noticed, where servers share a database,
	// that one was killed before it could tell.
	lookInterval = time.Minute
	// tidyInterval is how often old deliveries are looked for.
	tidyInterval = time.Hour
	// minPause is the least that passes between two looks at the log, or two
	// claims: what comes close together shares one.
	minPause = 20 * time.Millisecond
	maxPause = 10 * time.Second
)

// Run queues and sends events until ctx ends. Attempts that are being made then
// are given back. Faults of the database are logged and tried again.
func (s *Service) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { s.dispatch(ctx) })
	running.Go(func() { s.send(ctx) })
	running.Go(func() { s.tidy(ctx) })
	poke(s.logGrown)
	poke(s.dueSoon)
	if s.shared {
		running.Go(func() {
			for pause(ctx, lookInterval) {
				if err := s.look(ctx); err != nil && ctx.Err() == nil {
					s.log.WarnContext(ctx, "webhooks: not looked for what no signal told of", "error", err)
				}
			}
		})
	}
	running.Wait()
	return nil
}

// look makes up, by one query, for signals that were lost with the server that
// was to send them.
func (s *Service) look(ctx context.Context) error {
	var enabled, grown, due bool
	err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM webhooks WHERE enabled),
		EXISTS (SELECT FROM webhook_cursor c CROSS JOIN LATERAL (
			SELECT FROM task_events WHERE (txid, position) > (c.txid, c.position) ORDER BY txid, position LIMIT 1) e),
		EXISTS (SELECT FROM webhooks w JOIN webhook_deliveries d ON d.webhook_id = w.id AND d.due_at <= now() WHERE w.enabled)`).Scan(&enabled, &grown, &due)
	if err != nil {
		return postgres.Fault(err)
	}
	if enabled && (grown || !s.active.Load()) {
		poke(s.logGrown)
	}
	if due {
		poke(s.dueSoon)
	}
	return nil
}

// pause waits, and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
