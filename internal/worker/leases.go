package worker

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coderclaw/runtime/api"
)

const (
	// usualLease is how long a lease lasts where the server does not show it.
	usualLease = 30 * time.Second
	// longestBeat is how long a heartbeat waits for news.
	longestBeat = 10 * time.Second
	// beatTimeout is how late its answer may be. A connection that went dead is
	// given up early enough to try another before the leases are over.
	beatTimeout = 4 * time.Second
	// settle is how long new leases gather before a heartbeat includes them,
	// and the least time from one heartbeat to the next.
	settle = 100 * time.Millisecond
)

// leases are those that the worker holds. It ends the ones that the server
// says are lost, and those that could not be renewed in time: then another
// worker may be about to get the task.
type leases struct {
	worker string
	server Server
	log    *slog.Logger

	mu    sync.Mutex
	held  map[string]*lease // by token
	added chan struct{}     // closed, and replaced, when one is added
	// renewed is when the last heartbeat began that is known to have arrived.
	renewed time.Time
}

// lease is one of them. All times are of the monotonic clock.
type lease struct {
	taskID, token string
	length        time.Duration
	end           context.CancelCauseFunc
	expiry        *time.Timer
	ending        bool // see leases.ending; its mu guards it
}

func newLeases(worker string, server Server, log *slog.Logger) *leases {
	return &leases{worker: worker, server: server, log: log, held: map[string]*lease{}, added: make(chan struct{})}
}

// add takes a lease over that was just given. end is called with the reason
// when the lease ends before remove.
func (h *leases) add(l api.Lease, end context.CancelCauseFunc) *lease {
	held := &lease{taskID: l.Task.ID, token: l.LeaseToken, length: lengthOf(l), end: end}
	held.expiry = time.AfterFunc(held.patience(), func() {
		h.remove(held)
		end(errNotRenewed)
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[held.token] = held
	close(h.added)
	h.added = make(chan struct{})
	return held
}

func (h *leases) remove(l *lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.expiry.Stop()
	delete(h.held, l.token)
}

// ending says that the last report on l is under way. The server ends the lease
// with it, and a heartbeat may hear so before the answer to the report arrives:
// from now on that answer alone tells whether the lease was lost.
func (h *leases) ending(l *lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.ending = true
}

// renew keeps the leases until ctx ends, by heartbeats that wait for news. One
// that runs when a lease is added is begun again with it.
func (h *leases) renew(ctx context.Context) {
	retry := backoff{longest: urgentPause}
	failed := false
	for ctx.Err() == nil {
		tokens, wait, added := h.next()
		if len(tokens) == 0 {
			select {
			case <-added:
				pause(ctx, settle)
			case <-ctx.Done():
			}
			continue
		}
		if failed {
			wait = 0 // whether the leases still hold is what matters now
		}
		began := time.Now()
		lost, interrupted, err := h.beat(ctx, tokens, wait, added)
		switch {
		case err == nil:
			h.hear(tokens, lost, began)
			failed = false
			retry.reset()
			pause(ctx, settle)
		case !interrupted && ctx.Err() == nil:
			h.log.WarnContext(ctx, "worker cannot renew its leases, trying again", "worker", h.worker, "error", err)
			failed = true
			retry.wait(ctx)
		}
	}
}

// next returns what the next heartbeat is about, how long it waits, and a
// channel that tells of later leases.
func (h *leases) next() (tokens []string, wait time.Duration, added <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait = longestBeat
	for _, l := range h.held {
		wait = min(wait, l.length/4)
		// One that is begun again over and over never comes to tell that it
		// arrived.
		if time.Since(h.renewed) > l.length/2 {
			wait = 0
		}
	}
	return slices.Sorted(maps.Keys(h.held)), wait.Truncate(time.Second), h.added
}

// beat makes one heartbeat. One that waits is interrupted when a lease is
// added, and then fails.
func (h *leases) beat(ctx context.Context, tokens []string, wait time.Duration, added <-chan struct{}) (lost []string, interrupted bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+beatTimeout)
	defer cancel()
	var watch sync.WaitGroup
	if wait > 0 {
		watch.Go(func() {
			select {
			case <-added:
				pause(ctx, settle)
				interrupted = ctx.Err() == nil
				cancel()
			case <-ctx.Done():
			}
		})
	}
	answer, err := h.server.Heartbeat(ctx, h.worker, api.Heartbeat{LeaseTokens: tokens, WaitSeconds: int(wait.Seconds())})
	cancel()
	watch.Wait()
	return answer.Lost, interrupted, err
}

// hear draws the consequences of a heartbeat's answer.
func (h *leases) hear(tokens, lost []string, began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.renewed = began
	for _, token := range tokens {
		l, ok := h.held[token]
		switch {
		case !ok: // its attempt ended meanwhile
		case slices.Contains(lost, token):
			delete(h.held, token)
			l.expiry.Stop()
			if !l.ending { // by the last report, whose answer is awaited
				l.end(ErrLeaseLost)
			}
		default:
			l.expiry.Reset(time.Until(began.Add(l.patience())))
		}
	}
}

// patience is how long the lease may go without being renewed. It leaves an
// executor the time to stop before the lease is over.
func (l *lease) patience() time.Duration { return l.length - l.length/5 }

// lengthOf returns how long the lease lasts from a renewal on. Both times are
// of the database's clock, so that their difference is no matter of clocks.
func lengthOf(l api.Lease) time.Duration {
	if d := l.LeaseExpiresAt.Sub(l.Task.UpdatedAt); d > time.Second && d < time.Hour {
		return d
	}
	return usualLease
}
