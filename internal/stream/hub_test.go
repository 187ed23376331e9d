package stream_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/coderclaw/runtime/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryLog is a source of numbered entries.
type memoryLog struct {
	mu        sync.Mutex
	length    map[string]int64
	reads     int
	fail      error
	unsettled bool
}

func (l *memoryLog) append(key string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.length[key] += n
}

func (l *memoryLog) read(_ context.Context, after map[string]stream.Cursor) (map[string]stream.Batch[int64], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.fail != nil {
		return nil, l.fail
	}
	found := map[string]stream.Batch[int64]{}
	for key, c := range after {
		b := stream.Batch[int64]{Unsettled: l.unsettled}
		for n := c.Pos + 1; n <= l.length[key]; n++ {
			if len(b.Items) == 100 {
				b.More = true
				break
			}
			b.Items = append(b.Items, stream.Item[int64]{Cursor: stream.Cursor{Pos: n}, Entry: n})
		}
		found[key] = b
	}
	return found, nil
}

func startHub(t *testing.T) (*stream.Hub[int64], *memoryLog) {
	t.Helper()
	log := &memoryLog{length: map[string]int64{}}
	hub := stream.NewHub(log.read, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = hub.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return hub, log
}

// follower is one that waits.
type follower struct {
	*stream.Follower[int64]
	woken chan struct{}
}

func follow(hub *stream.Hub[int64], key string, from int64) *follower {
	f := &follower{woken: make(chan struct{}, 1)}
	f.Follower = hub.Follow(key, stream.Cursor{Pos: from}, func() {
		select {
		case f.woken <- struct{}{}:
		default:
		}
	})
	return f
}

// take reads until the follower has seen the entry with the number upTo, and
// fails unless they come one after the other.
func take(t *testing.T, f *follower, after, upTo int64) {
	t.Helper()
	for c := (stream.Cursor{Pos: after}); c.Pos < upTo; {
		items, err := f.After(t.Context(), c)
		if err != nil {
			t.Error(err)
			return
		}
		for _, it := range items {
			if it.Entry != c.Pos+1 {
				t.Errorf("got entry %d after %d", it.Entry, c.Pos)
				return
			}
			c = it.Cursor
		}
		if len(items) == 0 {
			<-f.woken
		}
	}
}

func TestFollowersSeeEachEntryOnceHoweverLateTheyCome(t *testing.T) {
	t.Parallel()
	hub, log := startHub(t)
	const entries = 3000
	var followers sync.WaitGroup
	for _, key := range []string{"a", "b"} {
		for range 8 {
			from := rand.Int64N(50)
			followers.Go(func() {
				f := follow(hub, key, from)
				defer f.Close()
				take(t, f, from, entries)
			})
		}
	}
	for n := int64(0); n < entries; n += 10 {
		log.append("a", 10)
		log.append("b", 10)
		hub.Touch("a")
		hub.Touch("b")
	}
	followers.Wait()
	if n := hub.Followers(); n != 0 {
		t.Errorf("%d followers are left", n)
	}
}

func TestManyFollowersCostOneReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub, log := startHub(t)
		for range 1000 {
			f := follow(hub, "a", 0)
			defer f.Close()
		}
		synctest.Wait()
		before := log.reads
		log.append("a", 1)
		hub.Touch("a")
		hub.Touch("nobody follows this")
		synctest.Wait()
		if log.reads != before+1 {
			t.Errorf("an entry was read %d times", log.reads-before)
		}
	})
}

// A thousand followers are woken a few at a time; nothing else waits for them, and
// none is left out when the hub stops.
func TestACrowdIsWokenBitByBit(t *testing.T) {
	t.Parallel()
	for name, whole := range map[string]bool{"to the end": true, "until the hub stops": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := &memoryLog{length: map[string]int64{}}
				hub := stream.NewHub(log.read, slog.New(slog.DiscardHandler))
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { _ = hub.Run(ctx) })
				defer running.Wait()
				defer stop()
				var woken atomic.Int64
				for range 1000 {
					defer hub.Follow("crowd", stream.Cursor{}, func() { woken.Add(1) }).Close()
				}
				lone := follow(hub, "lone", 0)
				defer lone.Close()
				synctest.Wait()

				log.append("crowd", 1)
				log.append("lone", 1)
				hub.Touch("crowd")
				hub.Touch("lone")
				synctest.Wait()
				select {
				case <-lone.woken:
				default:
					t.Error("the follower of another log waits")
				}
				if n := woken.Load(); n == 0 || n > 100 {
					t.Errorf("%d of a thousand were woken at once", n)
				}
				if whole {
					<-time.After(50 * time.Millisecond) // of the bubble
				} else {
					stop()
					running.Wait()
				}
				if n := woken.Load(); n != 1000 {
					t.Errorf("%d of a thousand were woken", n)
				}
			})
		})
	}
}

func TestAHubForgetsWhatItsFollowersHadTimeToTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub, log := startHub(t)
		f := follow(hub, "a", 0)
		defer f.Close()
		grow := func() {
			log.append("a", 10)
			hub.Touch("a")
			synctest.Wait()
		}
		grow()
		<-time.After(stream.KeepFor - time.Second)
		grow()
		if items, known := f.Recent(stream.Cursor{}); !known || len(items) != 20 {
			t.Errorf("%d entries of the last seconds are there (%v), want 20", len(items), known)
		}
		<-time.After(stream.KeepFor + 2*time.Second)
		grow()
		if items, known := f.Recent(stream.Cursor{Pos: 20}); !known || len(items) != 10 {
			t.Errorf("%d entries after the old ones are there (%v), want 10", len(items), known)
		}
		if _, known := f.Recent(stream.Cursor{Pos: 19}); known {
			t.Error("old entries are there still")
		}
		reads := log.reads
		take(t, f, 0, 30)
		if log.reads != reads+1 {
			t.Errorf("a follower who was left behind read %d times, want once", log.reads-reads)
		}
		<-time.After(3 * stream.KeepFor)
		if items, known := f.Recent(stream.Cursor{Pos: 30}); !known || len(items) != 0 {
			t.Errorf("%d entries are after the end (%v)", len(items), known)
		}
		if _, known := f.Recent(stream.Cursor{Pos: 29}); known {
			t.Error("a log at rest keeps its last entries")
		}
		grow()
		take(t, f, 30, 40)
	})
}

func TestAFailedReadIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub, log := startHub(t)
		f := follow(hub, "a", 0)
		defer f.Close()
		synctest.Wait()
		log.mu.Lock()
		log.fail = errors.New("the database is away")
		log.mu.Unlock()
		log.append("a", 5)
		hub.Touch("a")
		synctest.Wait()
		log.mu.Lock()
		log.fail = nil
		log.mu.Unlock()
		take(t, f, 0, 5) // without another signal
	})
}

func TestUnsettledEntriesAreLookedAtAgainWithoutASignal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub, log := startHub(t)
		log.unsettled = true
		f := follow(hub, "a", 0)
		defer f.Close()
		synctest.Wait()
		log.append("a", 1)
		take(t, f, 0, 1)
		log.mu.Lock()
		log.unsettled = false
		log.mu.Unlock()
	})
}

func TestCursorsCompareByTransactionThenPosition(t *testing.T) {
	t.Parallel()
	order := []stream.Cursor{{}, {Pos: 1}, {Tx: 1}, {Tx: 1, Pos: 7}, {Tx: 2, Pos: 3}, {Tx: 1 << 63}}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Compare(b), min(max(i-j, -1), 1); got != want {
				t.Errorf("%v against %v is %d, want %d", a, b, got, want)
			}
		}
	}
}
