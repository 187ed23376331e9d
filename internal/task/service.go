package task

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/batch"
	"github.com/coderclaw/runtime/internal/stream"
)

// Agents says what can run.
type Agents interface {
	// Runnable returns nil if something is configured that can run the agent,
	// and otherwise the fault to give to whoever asks for it.
	Runnable(ctx context.Context, agentID string) error
}

// Bus carries signals to whoever follows.
type Bus interface {
	Publish(...stream.Signal)
	// Deliver is Publish within this process.
	Deliver(...stream.Signal)
	Subscribe(func(stream.Signal)) (cancel func())
}

// Options are what NewService needs besides the database.
type Options struct {
	Agents Agents
	Access Access
	// Submitters tells, when a task is about to run, who submitted it and what
	// they may do by now.
	Submitters Submitters
	Recorder   Recorder
	Bus        Bus
	Log        *slog.Logger
	// Lease is how long a worker may be silent. Default: 30 s.
	Lease time.Duration
	// Claimed, if not nil, hears how long each task could have been claimed
	// before it was.
	Claimed func(waited time.Duration)
	// Watched, if not nil, says whether anybody follows tasks in this process.
	Watched func() bool
	// Contents are where the bytes of artifacts are kept: new ones in the first,
	// those from before in whichever they are in.
	Contents []Contents
	// MaxArtifact and MaxArtifacts are how many bytes an artifact, and all of a
	// task together, may have. Default: 64 MiB, 1 GiB.
	MaxArtifact  int64
	MaxArtifacts int64
	// Retention is how long tasks are kept after they ended, at least. Default:
	// for ever.
	Retention time.Duration
	// Shared says that other processes write to the same database, so that
	// signals can be lost and are made up for by looking.
	Shared bool
}

// Service is the task engine. Its methods may be called concurrently.
type Service struct {
	pool       *pgxpool.Pool
	agents     Agents
	access     Access
	submitters Submitters
	recorder   Recorder
	bus        Bus
	log        *slog.Logger
	lease      time.Duration
	shared     bool
	claimed    func(time.Duration)
	watched    func() bool

	contents                  []Contents
	maxArtifact, maxArtifacts int64
	retention                 time.Duration

	inserts     *batch.Group[uuid.UUID, *insertion]
	updates     *batch.Group[uuid.UUID, *change] // whose callers are told of the task
	reports     *batch.Group[uuid.UUID, *change]
	polls       polls
	sweepSoon   chan struct{} // poked when something falls due that no sweep knows of
	unparkSoon  chan struct{} // poked when a limit may have room again
	parked      atomic.Bool   // whether limits hold tasks back, as far as is known
	recheckSoon chan struct{} // poked when rights or policies have changed

	mu            sync.Mutex
	leases        map[chan struct{}]string              // waiting heartbeats and their workers
	asking        map[string]map[chan struct{}]struct{} // who waits for answers, by task
	serving       sync.Mutex                            // guards the next three
	served        []string
	servedAt      int64 // workerChanges when it was read
	servedUntil   time.Time
	workerChanges atomic.Int64 // heard of

	counting sync.Mutex
	counted  Counts // the last count, good until countEnd
	countEnd time.Time
}

// maxBatch is how many writes share a statement.
const maxBatch = 128

// NewService returns the engine over the database in pool. Call Run to keep it going.
func NewService(pool *pgxpool.Pool, o Options) *Service {
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.Watched == nil {
		o.Watched = func() bool { return true }
	}
	if o.MaxArtifact == 0 {
		o.MaxArtifact = DefaultMaxArtifact
	}
	if o.MaxArtifacts == 0 {
		o.MaxArtifacts = DefaultMaxArtifacts
	}
	if o.Claimed == nil {
		o.Claimed = func(time.Duration) {}
	}
	s := &Service{
		pool: pool, agents: o.Agents, access: o.Access, submitters: o.Submitters, recorder: o.Recorder, bus: o.Bus, log: o.Log, lease: o.Lease, shared: o.Shared, claimed: o.Claimed, watched: o.Watched,
		contents: o.Contents, maxArtifact: o.MaxArtifact, maxArtifacts: o.MaxArtifacts, retention: o.Retention,
		leases: map[chan struct{}]string{}, asking: map[string]map[chan struct{}]struct{}{}, sweepSoon: make(chan struct{}, 1), recheckSoon: make(chan struct{}, 1), unparkSoon: make(chan struct{}, 1),
	}
	s.inserts = batch.NewGroup[uuid.UUID](maxBatch, s.flushInserts)
	s.updates = batch.NewGroup[uuid.UUID](maxBatch, func(all []*change) { s.flushChanges(updateSQL, all) })
	s.reports = batch.NewGroup[uuid.UUID](maxBatch, func(all []*change) { s.flushChanges(reportSQL, all) })
	s.polls.look = s.offer
	o.Bus.Subscribe(s.hear)
	return s
}

func (s *Service) hear(sig stream.Signal) {
	if sig.Topic == stream.AccessChanged || sig.Topic == stream.Resync {
		poke(s.recheckSoon)
	}
	if sig.Topic == stream.TasksParked || sig.Topic == stream.Resync {
		s.parked.Store(true)
	}
	if sig.Topic == stream.WorkersChanged || sig.Topic == stream.Resync {
		s.workerChanges.Add(1)
	}
	s.polls.hear(sig)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeAsking(sig)
	if sig.Topic == stream.LeaseLost || sig.Topic == stream.Resync {
		for ch, worker := range s.leases {
			if sig.ID == worker || sig.Topic == stream.Resync {
				poke(ch)
			}
		}
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
