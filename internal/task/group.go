package task

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
)

const (
	// maxFlushes is how many flushes of a group may be under way at once. As a
	// rule there is one, for what waits meanwhile then shares the next; others
	// come to help when one has taken as long as slowFlush, as when a row that it
	// wants is locked.
	maxFlushes = 4
	slowFlush  = 50 * time.Millisecond
	// maxGroup and maxGroupBytes bound what one flush takes; one item it takes
	// in any case.
	maxGroup      = 128
	maxGroupBytes = 4 << 20
	// maxQueue and maxQueueBytes bound what waits. Beyond them, answering "later"
	// is better than keeping more in memory.
	maxQueue      = 4096
	maxQueueBytes = 256 << 20
)

// grouped is what a group writes.
type grouped interface {
	about() uuid.UUID // the task that it writes to
	size() int        // of its texts, in bytes
}

// group lets concurrent writes share a statement and its commit. A lone item is
// flushed at once; those that come while a flush is under way go together into
// the next one. Items about the same task are flushed one after the other, in
// their order.
type group[T grouped] struct {
	flush func([]T)

	mu    sync.Mutex
	busy  int // flushes under way
	slow  int // of them, those that take long
	queue []T
	bytes int // in queue
	under map[uuid.UUID]struct{}
}

// add hands the item to a flush, now or soon. It returns Unavailable if too
// much waits already.
func (g *group[T]) add(item T) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) >= maxQueue || g.bytes > maxQueueBytes {
		return fault.New(fault.Unavailable, "too many writes are waiting")
	}
	g.queue = append(g.queue, item)
	g.bytes += item.size()
	g.start()
	return nil
}

// start has what waits flushed, if that is not about to happen anyway.
func (g *group[T]) start() {
	if len(g.queue) > 0 && g.busy <= min(g.slow, maxFlushes-1) {
		g.busy++
		go g.run()
	}
}

// relieve has another flush begin beside a slow one.
func (g *group[T]) relieve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slow++
	g.start()
}

// run flushes until nothing is left that it could flush.
func (g *group[T]) run() {
	for {
		g.mu.Lock()
		batch := g.take()
		if len(batch) == 0 {
			g.busy--
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		late := time.AfterFunc(slowFlush, g.relieve)
		g.flush(batch)
		relieved := !late.Stop()
		g.mu.Lock()
		if relieved {
			g.slow--
		}
		for _, item := range batch {
			delete(g.under, item.about())
		}
		g.mu.Unlock()
	}
}

// take removes from the queue what the next flush writes: nothing about tasks
// that a flush under way writes to, for which another comes.
func (g *group[T]) take() (batch []T) {
	bytes, full := 0, false
	rest := g.queue[:0]
	for _, item := range g.queue {
		_, busy := g.under[item.about()]
		full = full || len(batch) == maxGroup || len(batch) > 0 && bytes+item.size() > maxGroupBytes
		if busy || full {
			rest = append(rest, item)
			continue
		}
		if g.under == nil {
			g.under = map[uuid.UUID]struct{}{}
		}
		g.under[item.about()] = struct{}{}
		batch = append(batch, item)
		bytes += item.size()
	}
	clear(g.queue[len(rest):])
	g.queue = rest
	g.bytes -= bytes
	if len(rest) == 0 {
		g.queue = nil // lets go of the array
	}
	return batch
}
