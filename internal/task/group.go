package task

import (
	"sync"

	"github.com/coderclaw/runtime/internal/fault"
)

const (
	// maxFlushes is how many flushes of a group may be under way at once: while
	// one waits for its commit the next can be prepared.
	maxFlushes = 2
	// maxGroup bounds how many items one flush takes.
	maxGroup = 128
	// maxQueue bounds how many items wait. Beyond it, answering "later" is
	// better than keeping more in memory.
	maxQueue = 4096
)

// group lets concurrent writes share a statement and its commit. A lone item is
// flushed at once; those that come while all flushes are busy go together into
// the next one.
type group[T any] struct {
	flush func([]T)

	mu    sync.Mutex
	busy  int
	queue []T
}

// add hands the item to a flush, now or soon. It returns Unavailable if too
// many wait already.
func (g *group[T]) add(item T) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) >= maxQueue {
		return fault.New(fault.Unavailable, "too many writes are waiting")
	}
	g.queue = append(g.queue, item)
	if g.busy < maxFlushes {
		g.busy++
		go g.run()
	}
	return nil
}

// run flushes until nothing is left to flush.
func (g *group[T]) run() {
	for {
		g.mu.Lock()
		n := min(len(g.queue), maxGroup)
		if n == 0 {
			g.busy--
			g.mu.Unlock()
			return
		}
		batch := g.queue[:n:n]
		if g.queue = g.queue[n:]; len(g.queue) == 0 {
			g.queue = nil // lets go of the array
		}
		g.mu.Unlock()
		g.flush(batch)
	}
}
