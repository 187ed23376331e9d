package edge_test

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/internal/edge"
)

func TestBucketsFillUpAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := edge.NewLimiter(2, 3)
		for range 3 {
			if wait, ok := l.Take("ann"); !ok || wait != 0 {
				t.Fatalf("within the burst: %t, wait %s", ok, wait)
			}
		}
		for range 5 { // what is refused does not count
			if wait, ok := l.Take("ann"); ok || wait != 500*time.Millisecond {
				t.Fatalf("beyond the burst: %t, wait %s", ok, wait)
			}
		}
		if _, ok := l.Take("bob"); !ok {
			t.Error("one key's requests count for another")
		}
		<-time.After(499 * time.Millisecond)
		if _, ok := l.Take("ann"); ok {
			t.Error("let through before it said")
		}
		<-time.After(time.Millisecond)
		if _, ok := l.Take("ann"); !ok {
			t.Error("not let through when it said")
		}
		<-time.After(time.Hour)
		for i := range 4 {
			if _, ok := l.Take("ann"); ok != (i < 3) {
				t.Errorf("after a long time, request %d: %t", i, ok)
			}
		}
	})
}

func TestLookingCountsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failures := edge.NewLimiter(0.1, 2)
		for range 100 {
			if _, ok := failures.Check("192.0.2.1"); !ok {
				t.Fatal("an attempt without a failure was counted")
			}
		}
		if n := failures.Len(); n != 0 {
			t.Errorf("%d buckets for keys that never failed", n)
		}
		for range 2 {
			failures.Take("192.0.2.1")
			failures.Check("192.0.2.1")
		}
		if wait, ok := failures.Check("192.0.2.1"); ok || wait != 10*time.Second {
			t.Errorf("after two failures: %t, wait %s", ok, wait)
		}
	})
}

func TestManyKeysTakeBoundedMemory(t *testing.T) {
	t.Parallel()
	l := edge.NewLimiter(1e-9, 1)
	l.Take("regular")
	for i := range 100_000 {
		l.Take(strconv.Itoa(i))
		if i%1000 == 0 {
			l.Take("regular")
		}
	}
	if n := l.Len(); n != edge.MaxBuckets {
		t.Errorf("%d buckets, want %d", n, edge.MaxBuckets)
	}
	// Who is never silent is not forgotten, however many others come.
	if _, ok := l.Check("regular"); ok {
		t.Error("who asked all the time was forgotten")
	}
}

func TestConcurrentRequestsGetNoMoreThanTheBurst(t *testing.T) {
	t.Parallel()
	l := edge.NewLimiter(1e-9, 10)
	var let atomic.Int32
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 100 {
				if _, ok := l.Take("ann"); ok {
					let.Add(1)
				}
				l.Check("ann")
			}
		})
	}
	callers.Wait()
	if n := let.Load(); n != 10 {
		t.Errorf("%d were let through", n)
	}
}

func TestTooManyRequestsAreToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	byAddress := func(r *http.Request) string {
		if r.Header.Get("Authorization") != "" {
			return ""
		}
		return edge.PeerOf(r.Context()).Key()
	}
	s := server(t, edge.Identify(nil)(edge.NewLimiter(0.01, 1).Limit(byAddress, refuse)(fine)))
	if resp, text := ask(t, s, http.MethodGet, nil); resp.StatusCode != http.StatusOK {
		t.Errorf("the first: %s %s", resp.Status, text)
	}
	// An address of its own choice gives nobody a bucket of their own.
	resp, text := ask(t, s, http.MethodGet, map[string]string{"X-Forwarded-For": "203.0.113.9"})
	after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if resp.StatusCode != http.StatusTooManyRequests || text != edge.TooMany || err != nil || after < 1 || after > 100 {
		t.Errorf("the second: %s %s, Retry-After %q", resp.Status, text, resp.Header.Get("Retry-After"))
	}
	if resp, text := ask(t, s, http.MethodGet, map[string]string{"Authorization": "Bearer x"}); resp.StatusCode != http.StatusOK {
		t.Errorf("one without a key: %s %s", resp.Status, text)
	}
}

func TestWithoutALimitAllPass(t *testing.T) {
	t.Parallel()
	l := edge.NewLimiter(0, 0)
	for range 1000 {
		if _, ok := l.Take("ann"); !ok {
			t.Fatal("refused")
		}
	}
}

func TestRetryAfterIsInWholeSecondsRoundedUp(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", time.Hour: "3600"} {
		if got := edge.RetryAfter(wait).Get("Retry-After"); got != want {
			t.Errorf("%s: %s, want %s", wait, got, want)
		}
	}
}

func TestQuotasBoundWhatIsHeldAtOnce(t *testing.T) {
	t.Parallel()
	q := edge.NewQuota(2)
	first, ok := q.Acquire("ann")
	second, ok2 := q.Acquire("ann")
	if _, third := q.Acquire("ann"); !ok || !ok2 || third {
		t.Errorf("of three at once: %t, %t, %t", ok, ok2, third)
	}
	if release, ok := q.Acquire("bob"); !ok {
		t.Error("one key's streams count for another")
	} else {
		release()
	}
	first()
	first() // gives nothing back again
	if _, ok := q.Acquire("ann"); !ok {
		t.Error("what was given back is still held")
	}
	if _, ok := q.Acquire("ann"); ok {
		t.Error("releasing twice gave back two")
	}
	second()
	if n := q.Len(); n != 1 {
		t.Errorf("%d keys are remembered, one of which holds something", n)
	}
}

func TestQuotasForgetWhoHoldsNothing(t *testing.T) {
	t.Parallel()
	q := edge.NewQuota(0)
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			var releases []func()
			for j := range 1000 {
				release, ok := q.Acquire(strconv.Itoa((i + j) % 10))
				if !ok {
					t.Error("a quota without a bound refused")
					return
				}
				releases = append(releases, release)
			}
			for _, release := range releases {
				release()
			}
		})
	}
	callers.Wait()
	if n := q.Len(); n != 0 {
		t.Errorf("%d keys are remembered", n)
	}
}
