package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

const (
	// claimWait is how long a claim waits for work, and maxClaim how many
	// leases it asks for at most; both are the contract's.
	claimWait = time.Minute
	maxClaim  = 100
	// reviewInterval is how often a worker looks whether it can run other agents.
	reviewInterval = 5 * time.Minute
	// callTimeout bounds a call of the server, on top of what it is asked to
	// wait.
	callTimeout = 15 * time.Second
	// farewell is how long attempts may take to stop and to say so.
	farewell = 10 * time.Second
)

// Executors finds what can run an agent.
type Executors interface {
	For(agent api.Agent) (executor.Executor, error)
}

// Config is what a worker needs. ID, Server, Executors and Log must be set.
type Config struct {
	// ID names the worker, the same after a restart.
	ID        string
	Server    Server
	Executors Executors
	// Capacity is how many attempts run at once. Default: 1.
	Capacity int
	// Agents returns the ids of the agents that the worker can run; nil: any. It
	// is asked again from time to time.
	Agents func(ctx context.Context) ([]string, error)
	// Definitions are of agents that the worker defines itself, by id; they go
	// before the server's.
	Definitions map[string]api.Agent
	// Labels are what tasks can require of the worker.
	Labels map[string]string
	// ServerURL is how agents reach the server to report by themselves, without a
	// slash at its end; empty: they cannot.
	ServerURL string
	// Grace is how long attempts may go on once the worker is to stop.
	Grace time.Duration
	// Patience is how long an agent that does nothing but wait for people keeps its
	// slot, if it can be stopped and go on later. Default: 30 s.
	Patience time.Duration
	// MaxArtifact is how many bytes of an artifact are kept at most. Default: 64
	// MiB.
	MaxArtifact int64
	Log         *slog.Logger
	// Version is the program's, for the server's list of workers.
	Version string
}

// Worker runs attempts of tasks.
type Worker struct {
	Config
	instance string
	held     *leases
	slots    chan struct{} // one element for each attempt that runs
	results  results

	registered api.WorkerRegistration // what the server was told last
	reviewed   time.Time              // when
}

// New returns a worker. Run starts it.
func New(c Config) *Worker {
	c.Capacity = max(c.Capacity, 1)
	if c.Patience == 0 {
		c.Patience = usualPatience
	}
	if c.MaxArtifact == 0 {
		c.MaxArtifact = 64 << 20
	}
	return &Worker{
		Config:   c,
		instance: uuid.NewString(),
		held:     newLeases(c.ID, c.Server, c.Log),
		slots:    make(chan struct{}, c.Capacity),
		results:  results{come: make(chan struct{}, 1)},
	}
}

var (
	errStopped   = errors.New("worker stopped")
	errAbandoned = errors.New("worker stopped without an answer from the server")
)

// Run claims tasks and runs them until ctx ends or the server drains the worker.
// It then claims no more, lets attempts go on - once ctx ends, for the grace
// time - gives back what is left so that it is offered again, and returns once
// nothing that it started runs. It returns an error only if the server refuses
// the worker.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.register(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	// Attempts outlive ctx: work ends when the grace time is over, words about
	// it a little later.
	talking, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	working, stop := context.WithCancelCause(talking)
	defer stop(nil)

	var renewal, attempts sync.WaitGroup
	renewal.Go(func() { w.held.renew(talking) })
	refused := w.claim(ctx, func(l api.Lease) {
		until := working
		if ctx.Err() != nil {
			until = ctx // it came too late: give it back at once
		}
		attempts.Go(func() {
			if !w.attempt(talking, until, l) {
				<-w.slots
			}
		})
	})

	renewal.Go(func() { w.drain(talking) })
	defer context.AfterFunc(ctx, func() {
		patience := time.AfterFunc(w.Grace, func() { stop(errStopped) })
		lastWord := time.AfterFunc(w.Grace+farewell, func() { abandon(errAbandoned) })
		context.AfterFunc(talking, func() { patience.Stop(); lastWord.Stop() })
	})()
	attempts.Wait()
	goodbye := time.AfterFunc(farewell/2, func() { abandon(errAbandoned) })
	w.drain(talking)
	goodbye.Stop()
	abandon(nil)
	renewal.Wait()
	return refused
}

// drain says that the worker takes no more, and at last that it is gone. If that
// does not arrive the server finds out by itself.
func (w *Worker) drain(ctx context.Context) {
	err := w.call(ctx, 0, func(ctx context.Context) error { return w.Server.Drain(ctx, w.ID) })
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrUnknown) {
		w.Log.WarnContext(ctx, "worker cannot say that it stops", "worker", w.ID, "error", err)
	}
}

// register tells the server of the worker, until it is heard.
func (w *Worker) register(ctx context.Context) error {
	w.reviewed = time.Time{}
	for retry := (backoff{longest: longestPause}); ; {
		err := w.review(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrRefused) {
			return fmt.Errorf("register worker %s: %w", w.ID, err)
		}
		w.Log.WarnContext(ctx, "worker cannot register, trying again", "worker", w.ID, "error", err)
		retry.wait(ctx)
	}
}

// review tells the server what the worker can do, if that is not known or has
// changed since.
func (w *Worker) review(ctx context.Context) error {
	return w.call(ctx, 0, func(ctx context.Context) error {
		r := api.WorkerRegistration{ID: w.ID, Instance: w.instance, Labels: w.Labels, Capacity: w.Capacity, Version: w.Version}
		if w.Agents != nil {
			var err error
			if r.Agents, err = w.Agents(ctx); err != nil {
				return err
			}
		}
		if w.reviewed.IsZero() || !slices.Equal(r.Agents, w.registered.Agents) {
			if err := w.Server.Register(ctx, r); err != nil {
				return err
			}
		}
		w.registered, w.reviewed = r, time.Now()
		return nil
	})
}

// claim starts an attempt for each lease that it gets, until ctx ends or the
// server drains the worker. It asks for as many as there are free slots, and not
// while there are none; the slots of attempts whose results it reports are free.
// It returns an error if the server refuses the worker.
func (w *Worker) claim(ctx context.Context, start func(api.Lease)) error {
	retry := backoff{longest: longestPause}
	defer w.results.refuse()
	for {
		free, carried := w.openings(ctx)
		if free+len(carried) == 0 {
			return nil
		}
		if w.Agents != nil && time.Since(w.reviewed) > reviewInterval {
			if err := w.review(ctx); err != nil && ctx.Err() == nil {
				w.Log.WarnContext(ctx, "worker cannot look for other agents", "worker", w.ID, "error", err)
			}
		}
		asked, reporting := time.Now(), len(carried) > 0
		answer, err := w.exchange(ctx, free, carried)
		got := answer.Leases[:min(len(answer.Leases), free+len(carried))]
		if err != nil {
			w.results.refuse()
			carried = nil // whose attempts keep their slots
		}
		for range free + len(carried) - len(got) {
			<-w.slots
		}
		for _, l := range got {
			start(l)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case answer.Draining:
			w.Log.InfoContext(ctx, "the server drains this worker", "worker", w.ID)
			return nil
		case errors.Is(err, ErrUnknown):
			if err := w.register(ctx); err != nil {
				return err
			}
		case errors.Is(err, ErrRefused) && !reporting: // what it refuses may be a result
			return fmt.Errorf("claim tasks for worker %s: %w", w.ID, err)
		case err != nil:
			w.Log.WarnContext(ctx, "worker cannot claim tasks, trying again", "worker", w.ID, "error", err)
			retry.wait(ctx)
		case len(got) == 0 && !reporting && time.Since(asked) < time.Second:
			retry.wait(ctx) // a server that does not wait is not to be asked without pause
		default:
			retry.reset()
		}
	}
}

// exchange makes one claim, which waits for work unless it carries results, and
// tells their attempts what has become of them.
func (w *Worker) exchange(ctx context.Context, free int, carried []*result) (answer api.ClaimAnswer, err error) {
	r := api.ClaimRequest{Max: free + len(carried)}
	wait := claimWait
	if len(carried) > 0 {
		wait = 0
	}
	r.WaitSeconds = int(wait.Seconds())
	for _, c := range carried {
		r.Reports = append(r.Reports, c.LeaseReport)
	}
	var faults []error
	err = w.call(ctx, wait, func(ctx context.Context) (err error) {
		answer, faults, err = w.Server.Claim(ctx, w.ID, r)
		return err
	})
	for i, c := range carried {
		if err != nil {
			c.answer <- errNotCarried
		} else {
			c.answer <- faults[i]
		}
	}
	return answer, err
}

// openings takes all free slots and the results that wait, as many as one claim
// can ask for, at least one of them. It returns nothing when ctx ends first.
func (w *Worker) openings(ctx context.Context) (free int, carried []*result) {
	for free+len(carried) == 0 {
		w.results.expect()
		select {
		case w.slots <- struct{}{}:
			free = 1
		case <-w.results.come:
		case <-ctx.Done():
			return 0, nil
		}
		carried = w.results.take(maxClaim - free)
	}
	for free+len(carried) < maxClaim {
		select {
		case w.slots <- struct{}{}:
			free++
		default:
			return free, carried
		}
	}
	return free, carried
}

// call bounds one call of the server, which is asked to wait.
func (w *Worker) call(ctx context.Context, wait time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	return f(ctx)
}
