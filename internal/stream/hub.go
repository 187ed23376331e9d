package stream

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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

	waking sync.WaitGroup
}

// The bounds of what a hub holds of each log for its followers, and of how many
// logs it reads at once. Entries go after keepFor to twice that, in which those
// who keep up have taken them: what ten thousand logs hold is what is written in
// seconds, however long they are followed.
const (
	keepEntries = 256
	keepBytes   = 1 << 20
	keepFor     = 5 * time.Second
	maxLogs     = 256
)

// The bounds of the wait before unsettled entries are looked at again.
const minUnsettledWait, maxUnsettledWait = 5 * time.Millisecond, 500 * time.Millisecond

// The followers of a log are woken a portion at a time, one after the other, with
// perFollower for each of them: whatever else there is to do need not wait for a
// thousand. The log rests for that long, up to longestRest; what comes meanwhile
// reaches them together, for about what one entry would cost.
const (
	perFollower = 40 * time.Microsecond
	longestRest = 250 * time.Millisecond
	portion     = 16
)

// tail is what a hub holds of a log. Its lock is the hub's, but for recent.
type tail[E any] struct {
	rests     time.Time // until then
	old       Cursor    // what is not after it is forgotten next
	followers map[*Follower[E]]struct{}
	// recent is replaced, never changed: a thousand followers who are woken at
	// once read it without a lock.
	recent atomic.Pointer[recent[E]]
}

// recent are the last entries of a log: everything after start.
type recent[E any] struct {
	start Cursor
	items []Item[E]
}

func (r *recent[E]) end() Cursor {
	if n := len(r.items); n > 0 {
		return r.items[n-1].Cursor
	}
	return r.start
}

// after returns what follows the cursor; known is false if it is before start.
func (r *recent[E]) after(c Cursor) (items []Item[E], known bool) {
	if c.Compare(r.start) < 0 {
		return nil, false
	}
	at, found := slices.BinarySearchFunc(r.items, c, func(it Item[E], c Cursor) int { return it.Cursor.Compare(c) })
	if found {
		at++
	}
	return slices.Clip(r.items[at:]), true
}

// with returns the entries with those that came, without the oldest beyond the
// bounds.
func (r *recent[E]) with(items []Item[E]) *recent[E] {
	next := &recent[E]{start: r.start, items: append(slices.Clip(r.items), items...)}
	over, bytes := max(len(next.items)-keepEntries, 0), 0
	for i := len(next.items) - 1; i >= over; i-- {
		if bytes += next.items[i].Size; bytes > keepBytes {
			over = i + 1
		}
	}
	if over > 0 {
		next.start, next.items = next.items[over-1].Cursor, slices.Clone(next.items[over:])
	}
	return next
}

// since returns the entries after the cursor, which is not before start.
func (r *recent[E]) since(c Cursor) *recent[E] {
	items, _ := r.after(c)
	return &recent[E]{start: c, items: slices.Clone(items)}
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
	defer h.waking.Wait()
	var unsettled time.Duration
	var again <-chan time.Time
	old := time.NewTicker(keepFor)
	defer old.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-old.C:
			h.forget()
			continue
		case <-h.wake:
		case <-again:
			poke(h.wake)
			again = nil
			continue
		}
		after, rest := h.due()
		if rest > 0 {
			again = time.After(rest)
		}
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
		retry, moved := h.deliver(ctx, after, batches, err != nil)
		if moved {
			unsettled = 0
		}
		if !retry {
			unsettled = 0
			if rest == 0 {
				again = nil
			}
			continue
		}
		unsettled = min(max(2*unsettled, minUnsettledWait), maxUnsettledWait)
		if rest == 0 || unsettled < rest {
			again = time.After(unsettled)
		}
	}
}

// due returns where to read on in the logs that may have grown, without those
// that rest; rest is how long the first of them still does so, 0 if none does.
func (h *Hub[E]) due() (after map[string]Cursor, rest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	after = make(map[string]Cursor, min(len(h.dirty), maxLogs))
	for key := range h.dirty {
		if len(after) == maxLogs {
			poke(h.wake)
			break
		}
		t := h.logs[key]
		if t != nil && t.rests.After(now) {
			if left := t.rests.Sub(now); rest == 0 || left < rest {
				rest = left
			}
			continue
		}
		if t != nil {
			after[key] = t.recent.Load().end()
		}
		delete(h.dirty, key)
	}
	return after, rest
}

// deliver appends what was read and wakes the followers of logs that grew. It
// reports whether some logs must be looked at again, and whether any grew.
func (h *Hub[E]) deliver(ctx context.Context, asked map[string]Cursor, batches map[string]Batch[E], failed bool) (retry, moved bool) {
	var grown []crowd[E]
	defer func() {
		for _, c := range grown {
			if len(c.followers) > portion {
				h.waking.Go(func() { c.wake(ctx) })
			} else {
				c.wake(ctx)
			}
		}
	}()
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
		if t == nil || t.recent.Load().end() != asked[key] {
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
		t.recent.Store(t.recent.Load().with(b.Items))
		rest := min(time.Duration(len(t.followers))*perFollower, longestRest)
		t.rests = time.Now().Add(rest)
		grown = append(grown, crowd[E]{slices.Collect(maps.Keys(t.followers)), rest})
	}
	return retry, moved
}

// forget drops the entries that were there when it was last called.
func (h *Hub[E]) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.logs {
		r := t.recent.Load()
		if r.start.Compare(t.old) < 0 {
			t.recent.Store(r.since(t.old))
		}
		t.old = r.end()
	}
}

// crowd are followers to be woken over a time.
type crowd[E any] struct {
	followers []*Follower[E]
	over      time.Duration
}

// wake wakes them; when ctx ends, those that are left at once.
func (c crowd[E]) wake(ctx context.Context) {
	began, done := time.Now(), 0
	for some := range slices.Chunk(c.followers, portion) {
		if done > 0 {
			select {
			case <-time.After(time.Until(began.Add(c.over * time.Duration(done) / time.Duration(len(c.followers))))):
			case <-ctx.Done():
			}
		}
		for _, f := range some {
			f.wake()
		}
		done += len(some)
	}
}

// Follower is one reader of a log.
type Follower[E any] struct {
	hub  *Hub[E]
	key  string
	tail *tail[E]
	wake func()
}

// Follow registers a follower of a log whose end the caller has just seen,
// wherever in it the follower wants to begin: what is older it reads by itself,
// so that nobody waits for it. It must be closed. The hub looks at the log at
// once, so nothing since the caller's look is missed. It calls wake when After
// may have something new; wake must not block, nor call the hub.
func (h *Hub[E]) Follow(key string, end Cursor, wake func()) *Follower[E] {
	f := &Follower[E]{hub: h, key: key, wake: wake}
	h.mu.Lock()
	t := h.logs[key]
	if t == nil {
		t = &tail[E]{old: end, followers: map[*Follower[E]]struct{}{}}
		t.recent.Store(&recent[E]{start: end})
		h.logs[key] = t
	}
	f.tail = t
	t.followers[f] = struct{}{}
	h.dirty[key] = struct{}{}
	h.mu.Unlock()
	poke(h.wake)
	return f
}

// Close ends the following. It may be called twice.
func (f *Follower[E]) Close() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(f.tail.followers, f)
	if len(f.tail.followers) == 0 && h.logs[f.key] == f.tail {
		delete(h.logs, f.key)
	}
}

// Recent is After as far as it needs not read the source; known is false if it
// does.
func (f *Follower[E]) Recent(c Cursor) (items []Item[E], known bool) {
	return f.tail.recent.Load().after(c)
}

// After returns what follows the cursor, oldest first; nothing means that the
// follower has seen all there is so far. Call it until it returns nothing, first
// when the follower is made and then whenever it is woken.
func (f *Follower[E]) After(ctx context.Context, c Cursor) ([]Item[E], error) {
	if items, known := f.Recent(c); known {
		return items, nil
	}
	batches, err := f.hub.read(ctx, map[string]Cursor{f.key: c})
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
