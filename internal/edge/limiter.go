package edge

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// maxBuckets bounds how many keys a Limiter remembers, which takes about 20 MB.
// Beyond them the key that has been silent for longest starts afresh; by then
// its bucket has most likely filled up again anyway.
const maxBuckets = 1 << 16

// Limiter bounds how often something may happen per key, each key having a
// token bucket. A nil Limiter has no bound. It is safe for concurrent use.
type Limiter struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex
	buckets *simplelru.LRU[string, *rate.Limiter]
}

// NewLimiter returns a Limiter that lets each key do something burst times at
// once and perSecond times a second in the long run. If perSecond is 0 it
// returns nil.
func NewLimiter(perSecond float64, burst int) *Limiter {
	if perSecond == 0 {
		return nil
	}
	buckets, err := simplelru.NewLRU[string, *rate.Limiter](maxBuckets, nil)
	if err != nil {
		panic(fmt.Sprintf("edge: %v", err)) // the size is ours
	}
	return &Limiter{limit: rate.Limit(perSecond), burst: burst, buckets: buckets}
}

// Take counts one for key. If that is too many, nothing is counted, and wait is
// how long it takes until it would not be.
func (l *Limiter) Take(key string) (wait time.Duration, ok bool) { return l.ask(key, true) }

// Check returns what Take would, and counts nothing. With it, only what went
// wrong need be counted, by a Take afterwards.
func (l *Limiter) Check(key string) (wait time.Duration, ok bool) { return l.ask(key, false) }

func (l *Limiter) ask(key string, take bool) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	bucket, known := l.buckets.Get(key)
	if !known {
		if !take {
			return 0, true
		}
		bucket = rate.NewLimiter(l.limit, l.burst)
		l.buckets.Add(key, bucket)
	}
	reserved := bucket.ReserveN(now, 1)
	wait = reserved.DelayFrom(now)
	if !take || wait > 0 {
		reserved.CancelAt(now)
	}
	return wait, wait == 0
}

// Limit turns requests away that are too many for the key that keyOf returns of
// them, with 429 and Retry-After. Those without a key pass.
func (l *Limiter) Limit(keyOf func(*http.Request) string, refuse Refuse) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if key := keyOf(r); key != "" {
				if wait, ok := l.Take(key); !ok {
					refuse(w, r, http.StatusTooManyRequests, TooMany, "too many requests; Retry-After says when to try again", RetryAfter(wait))
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// RetryAfter returns the header that tells a client to come back after wait, in
// whole seconds, rounded up (RFC 9110, section 10.2.3).
func RetryAfter(wait time.Duration) http.Header {
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	return http.Header{"Retry-After": {strconv.Itoa(seconds)}}
}
