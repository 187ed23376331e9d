// Package batch lets concurrent writes share one statement, request or commit.
package batch

import (
	"sync"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
)

const (
	// maxFlushes is how many flushes of a group may be under way at once. As a
	// rule there is one, for what waits meanwhile then shares the next; others
	// come to help when one has taken as long as slowFlush, as when a row that it
	// wants is locked.
	maxFlushes = 4
	slowFlush  = 50 * time.Millisecond
	// maxFlushBytes bounds what one flush takes; one item it takes in any case.
	maxFlushBytes = 4 << 20
	// maxQueue and maxQueueBytes bound what waits. Beyond them, answering "later"
	// is better than keeping more in memory.
	maxQueue      = 4096
	maxQueueBytes = 256 << 20
)

// Item is what a group writes.
type Item[K comparable] interface {
	About() K  // what it writes to
	Size() int // of its texts, in bytes
}

// Group writes items in batches. A lone item is flushed at once; those that come
// while a flush is under way go together into the next one. Items about the same
// thing are flushed one after the other, in their order, never in one batch.
type Group[K comparable, T Item[K]] struct {
	flush func([]T)
	most  int

	mu    sync.Mutex
	busy  int // flushes under way
	slow  int // of them, those that take long
	queue []T
	bytes int // in queue
	under map[K]struct{}
}

// NewGroup returns a group whose batches flush writes, of up to most items each.
func NewGroup[K comparable, T Item[K]](most int, flush func([]T)) *Group[K, T] {
	return &Group[K, T]{flush: flush, most: most, under: map[K]struct{}{}}
}

// Add hands the item to a flush, now or soon. It returns Unavailable if too
// much waits already.
func (g *Group[K, T]) Add(item T) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) >= maxQueue || g.bytes > maxQueueBytes {
		return fault.New(fault.Unavailable, "too many writes are waiting")
	}
	g.queue = append(g.queue, item)
	g.bytes += item.Size()
	g.start()
	return nil
}

// Load returns how many items are being flushed, and how many wait for that.
func (g *Group[K, T]) Load() (flushing, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.under), len(g.queue)
}

// start has what waits flushed, if that is not about to happen anyway.
func (g *Group[K, T]) start() {
	if len(g.queue) > 0 && g.busy <= min(g.slow, maxFlushes-1) {
		g.busy++
		go g.run()
	}
}

// relieve has another flush begin beside a slow one.
func (g *Group[K, T]) relieve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slow++
	g.start()
}

// run flushes until nothing is left that it could flush.
func (g *Group[K, T]) run() {
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
			delete(g.under, item.About())
		}
		g.mu.Unlock()
	}
}

// take removes from the queue what the next flush writes: nothing about what a
// flush under way writes to, for which another comes.
func (g *Group[K, T]) take() (batch []T) {
	bytes, full := 0, false
	rest := g.queue[:0]
	for _, item := range g.queue {
		_, busy := g.under[item.About()]
		full = full || len(batch) == g.most || len(batch) > 0 && bytes+item.Size() > maxFlushBytes
		if busy || full {
			rest = append(rest, item)
			continue
		}
		g.under[item.About()] = struct{}{}
		batch = append(batch, item)
		bytes += item.Size()
	}
	clear(g.queue[len(rest):])
	g.queue = rest
	g.bytes -= bytes
	if len(rest) == 0 {
		g.queue = nil // lets go of the array
	}
	return batch
}
