package task

import (
	"slices"
	"sync"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
)

// maxPolls is how many workers one transaction claims tasks for: others, also
// those of other servers, have to wait for it.
const maxPolls = 8

// poll is a worker's claim that is under way.
type poll struct {
	caller policy.Caller
	worker string
	max    int
	once   bool          // does not wait for work
	answer chan struct{} // closed when what the last look has found is final

	// The lock of polls guards these.
	scope   int64 // see sighting; 0: not known yet
	due     bool  // is to look for work
	looking bool
	left    bool // nobody waits any more

	seen sighting
	result
}

// result is what a poll's last look has found.
type result struct {
	leases []Lease
	err    error
	parked bool // tasks that limits hold back; others stood behind them
	rated  bool // one of the limits is a rate
}

// more reports whether there may be work beyond what the poll got.
func (p *poll) more() bool { return p.err != nil || p.parked || len(p.leases) == p.max }

// polls are the claims that wait on this server. They look for work together,
// where several have reason to, and one after the other: all claims take turns
// anyway. When a task becomes claimable one poll of each scope looks, and others
// only if it got all that it asked for.
type polls struct {
	look func(all []*poll, ready bool)

	mu      sync.Mutex
	waiting []*poll // in the order of their coming
	busy    bool    // somebody looks
	ready   bool    // there may be something to claim
}

// add has a poll look for work, and wait if there is none. It need not wait for
// others that come.
func (q *polls) add(p *poll) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.due = true
	q.waiting = append(q.waiting, p)
	q.start()
}

// leave has a poll be answered with what it has.
func (q *polls) leave(p *poll) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.left = true; p.looking || !slices.Contains(q.waiting, p) {
		return
	}
	q.end(p)
	q.start()
}

// hear has those look that a signal is about.
func (q *polls) hear(sig stream.Signal) {
	all := sig.Topic == stream.WorkResumable || sig.Topic == stream.Resync
	if !all && sig.Topic != stream.WorkReady {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = true
	woken := map[int64]bool{}
	for _, p := range q.waiting {
		switch {
		case all, p.scope == 0, sig.ID == p.worker:
			p.due = true
		case sig.ID == "" && !woken[p.scope]:
			woken[p.scope] = true
			q.wake(p.scope, 1)
		}
	}
	q.start()
}

// wake has up to n polls of a scope look that do not do so anyway, if there are,
// and else one that looks once more.
func (q *polls) wake(scope int64, n int) {
	var looking *poll
	for _, p := range q.waiting {
		switch {
		case p.scope != scope:
		case p.looking:
			looking = p
		case n > 0:
			p.due = true
			n--
		}
	}
	if n > 0 && looking != nil {
		looking.due = true
	}
}

// start has somebody look for those that are due.
func (q *polls) start() {
	if !q.busy && slices.ContainsFunc(q.waiting, func(p *poll) bool { return p.due }) {
		q.busy = true
		go q.run()
	}
}

// run looks until nobody is due.
func (q *polls) run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		var batch []*poll
		for _, p := range q.waiting {
			if p.due && len(batch) < maxPolls {
				p.due, p.looking = false, true
				batch = append(batch, p)
			}
		}
		if len(batch) == 0 {
			q.busy = false
			return
		}
		ready := q.ready
		q.ready = false
		q.mu.Unlock()
		q.look(batch, ready)
		q.mu.Lock()
		for _, p := range batch {
			q.looked(p)
		}
	}
}

// looked answers a poll that has looked, if it is to wait no more.
func (q *polls) looked(p *poll) {
	p.looking = false
	former := p.scope
	p.scope = p.seen.scope
	if former != 0 && former != p.scope {
		q.wake(former, 1) // it looked as one of these
	}
	if p.more() {
		q.ready = true
	}
	switch {
	case p.err != nil, p.seen.draining, len(p.leases) > 0, p.left:
		q.end(p)
	case p.parked:
		p.due = true
	case p.once:
		q.end(p)
	}
}

// end answers a poll. What it would still have looked for, or has left, others
// look for.
func (q *polls) end(p *poll) {
	q.waiting = slices.DeleteFunc(q.waiting, func(other *poll) bool { return other == p })
	close(p.answer)
	switch {
	case p.more():
		q.wake(p.scope, 2)
	case p.due:
		q.wake(p.scope, 1)
	}
}
