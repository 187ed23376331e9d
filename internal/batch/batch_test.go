package batch_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/internal/batch"
	"github.com/coderclaw/runtime/internal/fault"
)

type item struct {
	about, n, size int
}

func (i item) About() int { return i.about }
func (i item) Size() int  { return i.size }

// flusher records what is flushed, each batch of which waits for goOn.
type flusher struct {
	goOn chan struct{}

	mu      sync.Mutex
	batches [][]item
}

func (f *flusher) flush(all []item) {
	f.mu.Lock()
	f.batches = append(f.batches, all)
	f.mu.Unlock()
	<-f.goOn
}

func (f *flusher) sizes() (n []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.batches {
		n = append(n, len(b))
	}
	return n
}

func start(t *testing.T) (*batch.Group[int, item], *flusher) {
	t.Helper()
	f := &flusher{goOn: make(chan struct{})}
	return batch.NewGroup[int](10, f.flush), f
}

func add(t *testing.T, g *batch.Group[int, item], items ...item) {
	t.Helper()
	for _, i := range items {
		if err := g.Add(i); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
}

func want(t *testing.T, f *flusher, sizes ...int) {
	t.Helper()
	if got := f.sizes(); fmt.Sprint(got) != fmt.Sprint(sizes) {
		t.Errorf("the batches have %v items, want %v", got, sizes)
	}
}

func TestWhatComesDuringAFlushSharesTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, f := start(t)
		add(t, g, item{about: 0})
		want(t, f, 1) // at once
		for i := range 12 {
			add(t, g, item{about: 1 + i})
		}
		want(t, f, 1)
		f.goOn <- struct{}{}
		synctest.Wait()
		want(t, f, 1, 10)
		close(f.goOn)
		synctest.Wait()
		want(t, f, 1, 10, 2)
		if flushing, waiting := g.Load(); flushing+waiting != 0 {
			t.Errorf("%d are being flushed and %d wait in the end", flushing, waiting)
		}
	})
}

func TestItemsAboutTheSameKeepTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, f := start(t)
		add(t, g, item{about: 1, n: 1}, item{about: 1, n: 2}, item{about: 2, n: 1}, item{about: 1, n: 3}, item{about: 2, n: 2})
		// Nor does one that comes to help take what another is at.
		<-time.After(time.Second)
		close(f.goOn)
		synctest.Wait()
		last := map[int]int{}
		for _, b := range f.batches {
			seen := map[int]bool{}
			for _, i := range b {
				if seen[i.about] || i.n != last[i.about]+1 {
					t.Errorf("%+v came after %d, in %v", i, last[i.about], b)
				}
				seen[i.about], last[i.about] = true, i.n
			}
		}
		if last[1] != 3 || last[2] != 2 {
			t.Errorf("flushed were %v", f.batches)
		}
	})
}

func TestASlowFlushIsHelped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, f := start(t)
		for i := range 7 {
			add(t, g, item{about: i})
			<-time.After(time.Second)
		}
		want(t, f, 1, 1, 1, 1) // and no more
		close(f.goOn)
		synctest.Wait()
		want(t, f, 1, 1, 1, 1, 3)
	})
}

func TestWhatWaitsIsBounded(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"in number": 0, "in bytes": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g, f := start(t)
				var err error
				n := 0
				for ; err == nil && n < 10_000; n++ {
					err = g.Add(item{about: n, size: size})
				}
				if fault.CodeOf(err) != fault.Unavailable {
					t.Errorf("after %d items: %v", n, err)
				}
				close(f.goOn)
				synctest.Wait()
				for _, b := range f.batches {
					if len(b) > 10 || len(b)*size > 4<<20 {
						t.Errorf("a batch has %d items of %d bytes", len(b), size)
					}
				}
				add(t, g, item{about: n}) // there is room again
			})
		})
	}
}
