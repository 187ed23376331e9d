package registry

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
)

const (
	// freshness is how long a snapshot is used: within this time, what another
	// replica wrote is seen.
	freshness = 2 * time.Second
	// loadTimeout bounds the one query that all callers may be waiting for.
	loadTimeout = 5 * time.Second
)

// snapshot is all agents as they were at one moment. It never changes.
type snapshot struct {
	set[Agent]
	taken time.Time
}

// current returns a snapshot no older than freshness that holds every write of
// this registry that returned before the call.
//
// Each submission asks whether its agent is there and can run. Reading the
// table for each would cost more than the answer is worth, so callers share
// one query for a while, and between queries a submission costs none.
func (r *Registry) current(ctx context.Context) (*snapshot, error) {
	cached, writes := r.fresh()
	if cached != nil {
		return cached, nil
	}
	// A query that was under way when a write returned may not have seen it;
	// the count of writes as the key keeps callers from joining that one.
	loading := r.flight.DoChan(strconv.FormatUint(writes, 10), func() (any, error) {
		if cached, _ := r.fresh(); cached != nil {
			return cached, nil // another query ended since this caller looked
		}
		// The first caller's patience must not decide for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
		defer cancel()
		s, err := r.load(ctx, writes)
		if err != nil && ctx.Err() != nil {
			// No caller set this deadline, so none should take it for its own.
			return nil, fault.Wrap(err, fault.Unavailable, "the database took too long to answer")
		}
		return s, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-loading:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*snapshot), nil
	}
}

// fresh returns the snapshot if it may be used, else nil, and how often was
// written.
func (r *Registry) fresh() (*snapshot, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cached == nil || r.now().Sub(r.cached.taken) >= freshness {
		return nil, r.writes
	}
	return r.cached, r.writes
}

// load takes a snapshot and keeps it, unless something was written meanwhile.
func (r *Registry) load(ctx context.Context, writes uint64) (*snapshot, error) {
	taken := r.now()
	stored, err := r.storedAgents(ctx)
	if err != nil {
		return nil, err
	}
	agents := maps.Clone(r.base)
	for _, a := range stored {
		agents[a.ID] = a
	}
	for id, a := range agents {
		agents[id] = r.judged(a)
	}
	s := &snapshot{newSet(agents), taken}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writes == writes {
		r.cached = s
	}
	return s, nil
}

// forget makes the next reader read anew.
func (r *Registry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	r.cached = nil
}

// judged returns a with its availability filled in.
func (r *Registry) judged(a Agent) Agent {
	if a.Unavailable != "" {
		return a
	}
	if err := r.runnable(a); err != nil {
		a.Unavailable = err.Error()
		return a
	}
	a.Available = true
	return a
}
