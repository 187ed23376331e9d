package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

const (
	// claimWait is how long a claim waits for work, and maxClaim how many
	// leases it asks for at most; both are the contract's.
	claimWait = 30 * time.Second
	maxClaim  = 100
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
	// Grace is how long attempts may go on once the worker is to stop.
	Grace time.Duration
	Log   *slog.Logger
	// Version is the program's, for the server's list of workers.
	Version string
}

// Worker runs attempts of tasks.
type Worker struct {
	Config
	held  *leases
	slots chan struct{} // one element for each attempt that runs
}

// New returns a worker. Run starts it.
func New(c Config) *Worker {
	c.Capacity = max(c.Capacity, 1)
	return &Worker{
		Config: c,
		held:   newLeases(c.ID, c.Server, c.Log),
		slots:  make(chan struct{}, c.Capacity),
	}
}

var (
	errStopped   = errors.New("worker stopped")
	errAbandoned = errors.New("worker stopped without an answer from the server")
)

// Run claims tasks and runs them until ctx ends. It then claims no more, lets
// attempts go on for the grace time, gives back what is left so that it is
// offered again, and returns once nothing that it started runs. It returns an
// error only if the server refuses the worker.
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
	w.claim(ctx, func(l api.Lease) {
		until := working
		if ctx.Err() != nil {
			until = ctx // it came too late: give it back at once
		}
		attempts.Go(func() {
			defer func() { <-w.slots }()
			w.attempt(talking, until, l)
		})
	})

	patience := time.AfterFunc(w.Grace, func() { stop(errStopped) })
	defer patience.Stop()
	lastWord := time.AfterFunc(w.Grace+farewell, func() { abandon(errAbandoned) })
	defer lastWord.Stop()
	attempts.Wait()
	abandon(nil)
	renewal.Wait()
	return nil
}

func (w *Worker) register(ctx context.Context) error {
	for retry := (backoff{longest: longestPause}); ; {
		err := w.call(ctx, 0, func(ctx context.Context) error {
			return w.Server.Register(ctx, api.WorkerRegistration{ID: w.ID, Capacity: w.Capacity, Version: w.Version})
		})
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

// claim starts an attempt for each lease that it gets, until ctx ends. It asks
// for as many as there are free slots, and not while there are none.
func (w *Worker) claim(ctx context.Context, start func(api.Lease)) {
	retry := backoff{longest: longestPause}
	for {
		free := w.freeSlots(ctx)
		if free == 0 {
			return
		}
		asked := time.Now()
		var got []api.Lease
		err := w.call(ctx, claimWait, func(ctx context.Context) (err error) {
			got, err = w.Server.Claim(ctx, w.ID, api.ClaimRequest{Max: free, WaitSeconds: int(claimWait.Seconds())})
			return err
		})
		got = got[:min(len(got), free)]
		for range free - len(got) {
			<-w.slots
		}
		for _, l := range got {
			start(l)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.Log.WarnContext(ctx, "worker cannot claim tasks, trying again", "worker", w.ID, "error", err)
			retry.wait(ctx)
		case len(got) == 0 && time.Since(asked) < time.Second:
			retry.wait(ctx) // a server that does not wait is not to be asked without pause
		default:
			retry.reset()
		}
	}
}

// freeSlots takes all free slots, at least one, and returns how many. It
// returns 0 when ctx ends first.
func (w *Worker) freeSlots(ctx context.Context) int {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for n := 1; ; n++ {
		if n == maxClaim {
			return n
		}
		select {
		case w.slots <- struct{}{}:
		default:
			return n
		}
	}
}

// call bounds one call of the server, which is asked to wait.
func (w *Worker) call(ctx context.Context, wait time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	return f(ctx)
}
