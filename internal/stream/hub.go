package stream

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Cursor is a place in a log. Places compare first by Tx, then by Pos; a log
// whose entries are simply numbered leaves Tx zero.
type Cursor struct {
	Tx  uint64
	Pos int64
}

// Compare orders cursors as cmp.Compare does.
func (c Cursor) Compare(d Cursor) int {
	return cmp.Or(cmp.Compare(c.Tx, d.Tx), cmp.Compare(c.Pos, d.Pos))
}

// Item is an entry of a log and its place.
type Item[E any] struct {
	Cursor Cursor
	Entry  E
	Size   int // bytes, about
}

// Batch is what a Source found after one cursor, oldest first.
type Batch[E any] struct {
	Items []Item[E]
	// More says that the batch was cut short: read on at once.
	More bool
	// Unsettled says that there are entries whose place is not final yet: read
	// again soon, even if no signal comes.
	Unsettled bool
}

// Source reads logs. The result holds a batch for each key that has something
// to say.
type Source[E any] func(ctx context.Context, after map[string]Cursor) (map[string]Batch[E], error)

// Hub lets any number of followers share one reader per process: each entry is
// read and encoded once, however many follow.
//
// A follower holds nothing but its place. Recent entries are kept once per
// log; a follower that has fallen behind them reads the source by itself, so a
// slow one costs nobody else anything.
type Hub[E any] struct {
	read Source[E]
	log  *slog.Logger

	mu    sync.Mutex
	logs  map[string]*tail[E]
	dirty map[string]struct{}
	wake  chan struct{}
}

// The bounds of what a hub holds of each log for its followers, and of how many
// logs it reads at once.
const (
	keepEntries = 256
	keepBytes   = 1 << 20
	maxLogs     = 256
)

// The bounds of the wait before unsettled entries are looked at again.
const minUnsettledWait, maxUnsettledWait = 5 * time.Millisecond, 500 * time.Millisecond

type tail[E any] struct {
	start     Cursor // everything after it and up to the last item is in items
	items     []Item[E]
	followers map[*Follower[E]]struct{}
}

func (t *tail[E]) end() Cursor {
	if n := len(t.items); n > 0 {
		return t.items[n-1].Cursor
	}
	return t.start
}

// NewHub returns a hub that reads from source once Run is called.
func NewHub[E any](source Source[E], log *slog.Logger) *Hub[E] {
	return &Hub[E]{
		read: source, log: log,
		logs:  map[string]*tail[E]{},
		dirty: map[string]struct{}{},
		wake:  make(chan struct{}, 1),
	}
}

// Touch tells the hub that the log with the key may have grown. It never
// blocks; logs that nobody follows cost nothing.
func (h *Hub[E]) Touch(key string) {
	h.mu.Lock()
	_, followed := h.logs[key]
	if followed {
		h.dirty[key] = struct{}{}
	}
	h.mu.Unlock()
	if followed {
		poke(h.wake)
	}
}

// TouchAll tells the hub that any log may have grown.
func (h *Hub[E]) TouchAll() {
	h.mu.Lock()
	for key := range h.logs {
		h.dirty[key] = struct{}{}
	}
	h.mu.Unlock()
	poke(h.wake)
}

// Run reads what followers wait for, until ctx ends.
func (h *Hub[E]) Run(ctx context.Context) error {
	var unsettled time.Duration
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-again:
			poke(h.wake)
			again = nil
			continue
		}
		h.mu.Lock()
		after := make(map[string]Cursor, len(h.dirty))
		for key := range h.dirty {
			if len(after) == maxLogs {
				poke(h.wake)
				break
			}
			if t := h.logs[key]; t != nil {
				after[key] = t.end()
			}
			delete(h.dirty, key)
		}
		h.mu.Unlock()
		if len(after) == 0 {
			continue
		}
		batches, err := h.read(ctx, after)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			h.log.WarnContext(ctx, "stream not read", "error", err)
		}
		retry, moved := h.deliver(after, batches, err != nil)
		if moved {
			unsettled = 0
		}
		if !retry {
			unsettled, again = 0, nil
			continue
		}
		unsettled = min(max(2*unsettled, minUnsettledWait), maxUnsettledWait)
		again = time.After(unsettled)
	}
}

// deliver appends what was read and wakes the followers of logs that grew. It
// reports whether some logs must be looked at again, and whether any grew.
func (h *Hub[E]) deliver(asked map[string]Cursor, batches map[string]Batch[E], failed bool) (retry, moved bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if failed {
		for key := range asked {
			h.dirty[key] = struct{}{}
		}
		return true, false
	}
	for key, b := range batches {
		t := h.logs[key]
		if t == nil || t.end() != asked[key] {
			// The last follower left and another came meanwhile: the new tail
			// starts elsewhere and has been marked dirty by Follow.
			continue
		}
		if b.Unsettled {
			retry = true
			h.dirty[key] = struct{}{}
		}
		if b.More {
			h.dirty[key] = struct{}{}
			poke(h.wake)
		}
		if len(b.Items) == 0 {
			continue
		}
		moved = true
		t.append(b.Items)
		for f := range t.followers {
			poke(f.wake)
		}
	}
	return retry, moved
}

// append adds entries and lets go of the oldest beyond the bounds.
func (t *tail[E]) append(items []Item[E]) {
	t.items = append(t.items, items...)
	over, bytes := max(len(t.items)-keepEntries, 0), 0
	for i := len(t.items) - 1; i >= over; i-- {
		if bytes += t.items[i].Size; bytes > keepBytes {
			over = i + 1
		}
	}
	if over > 0 {
		t.start = t.items[over-1].Cursor
		t.items = slices.Clone(t.items[over:])
	}
}

// Follower is one reader of a log.
type Follower[E any] struct {
	hub  *Hub[E]
	key  string
	wake chan struct{}
}

// Follow registers a follower of a log whose end the caller has just seen,
// wherever in it the follower wants to begin: what is older it reads by itself,
// so that nobody waits for it. It must be closed. The hub looks at the log at
// once, so nothing since the caller's look is missed.
func (h *Hub[E]) Follow(key string, end Cursor) *Follower[E] {
	f := &Follower[E]{hub: h, key: key, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	t := h.logs[key]
	if t == nil {
		t = &tail[E]{start: end, followers: map[*Follower[E]]struct{}{}}
		h.logs[key] = t
	}
	t.followers[f] = struct{}{}
	h.dirty[key] = struct{}{}
	h.mu.Unlock()
	poke(h.wake)
	poke(f.wake)
	return f
}

// Close ends the following. It may be called twice.
func (f *Follower[E]) Close() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.logs[f.key]; t != nil {
		delete(t.followers, f)
		if len(t.followers) == 0 {
			delete(h.logs, f.key)
		}
	}
}

// Wake is ready when After may have something new.
func (f *Follower[E]) Wake() <-chan struct{} { return f.wake }

// After returns what follows the cursor, oldest first; nothing means that the
// follower has seen all there is so far. Call it until it returns nothing, then
// wait for Wake.
func (f *Follower[E]) After(ctx context.Context, c Cursor) ([]Item[E], error) {
	h := f.hub
	h.mu.Lock()
	t := h.logs[f.key]
	if t != nil && c.Compare(t.start) >= 0 {
		at, found := slices.BinarySearchFunc(t.items, c, func(it Item[E], c Cursor) int { return it.Cursor.Compare(c) })
		if found {
			at++
		}
		items := slices.Clip(t.items[at:])
		h.mu.Unlock()
		return items, nil
	}
	h.mu.Unlock()
	batches, err := h.read(ctx, map[string]Cursor{f.key: c})
	if err != nil {
		return nil, err
	}
	return batches[f.key].Items, nil
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
