package audit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// recordWait is the longest that Record holds up a request.
	recordWait = time.Second
	// writeTimeout bounds a flush of the queue.
	writeTimeout = 10 * time.Second
	// maxGroup bounds how many entries share a statement, and maxQueue how
	// many wait.
	maxGroup = 256
	maxQueue = 4096
)

// Record writes the entry of something that was refused, or went wrong, in a
// transaction of its own that it may share with others. It returns once the
// entry is committed, or after a second, with the entry still waiting. What
// cannot be written is logged and counted.
//
// Of failed authentications from one address those beyond ten a minute are
// counted, and recorded as one entry.
func (l *Log) Record(ctx context.Context, e Entry) {
	if e.Action == authenticate && e.Result != Allowed {
		now := time.Now()
		if !l.floods.admit(e, now) {
			l.numbers.heldBack.Add(1)
			poke(l.flooded)
			return
		}
	}
	l.enqueue(ctx, e)
}

// Write writes the entry of something that is allowed and changes nothing, and
// that happens only if the entry is there. AuditUnavailable is the fault if it
// cannot be written.
func (l *Log) Write(ctx context.Context, e Entry) error {
	err := postgres.Retry(ctx, func() error {
		_, err := l.pool.Exec(ctx, appendSQL, Args(e)...)
		return err
	})
	if err == nil {
		l.numbers.recorded.Add(1)
		l.Poke()
	}
	return Fault(err)
}

// enqueue has the entries written, and waits for it, but not long.
func (l *Log) enqueue(ctx context.Context, entries ...Entry) {
	var last <-chan struct{} // what was queued before is through before
	for _, e := range entries {
		if done, ok := l.queue.add(e); ok {
			last = done
		} else {
			l.lost(ctx, e, errors.New("too many entries are waiting"))
		}
	}
	if last == nil {
		return
	}
	timeout := time.NewTimer(recordWait)
	defer timeout.Stop()
	select {
	case <-last:
	case <-timeout.C:
	case <-ctx.Done():
	}
}

// write is the queue's flush: one statement, one commit. Who asked may have
// gone meanwhile.
func (l *Log) write(entries []Entry) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	err := postgres.Retry(ctx, func() error {
		_, err := l.pool.Exec(ctx, appendSQL, Args(entries...)...)
		return err
	})
	switch {
	case err == nil:
		l.numbers.recorded.Add(int64(len(entries)))
		l.Poke()
	case len(entries) > 1 && fault.CodeOf(err) != fault.Unavailable:
		for i := range entries { // one of them is at fault
			l.write(entries[i : i+1])
		}
	default:
		for _, e := range entries {
			l.lost(ctx, e, err)
		}
	}
}

// lost keeps in the server's log what the audit log did not take.
func (l *Log) lost(ctx context.Context, e Entry, err error) {
	l.numbers.lost.Add(1)
	l.log.ErrorContext(ctx, "an entry is missing from the audit log", "error", err,
		"id", e.ID, "at", e.CreatedAt, "user", e.UserID, "session", e.SessionID, "device", e.DeviceID, "project", e.ProjectID,
		"action", e.Action, "resourceType", e.ResourceType, "resource", e.ResourceID, "result", e.Result,
		"layer", e.Layer, "rule", e.Rule, "reason", e.Reason, "request", e.RequestID, "address", e.Address)
}

// queue lets entries that come together share a statement and its commit. A
// lone one is flushed at once.
type queue struct {
	flush func([]Entry)

	mu      sync.Mutex
	busy    bool
	waiting []Entry
	done    chan struct{} // closed when those that wait now are through
}

// add queues an entry. done is closed when it has been flushed; ok is false if
// too many wait already.
func (q *queue) add(e Entry) (done <-chan struct{}, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxQueue {
		return nil, false
	}
	if q.done == nil {
		q.done = make(chan struct{})
	}
	q.waiting = append(q.waiting, e)
	if !q.busy {
		q.busy = true
		go q.run()
	}
	return q.done, true
}

// run flushes until nothing is left to flush.
func (q *queue) run() {
	for {
		q.mu.Lock()
		batch, done := q.waiting, q.done
		q.waiting, q.done = nil, nil
		q.busy = len(batch) > 0
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for len(batch) > 0 {
			n := min(len(batch), maxGroup)
			q.flush(batch[:n])
			batch = batch[n:]
		}
		close(done)
	}
}
