package edge

import "sync"

// Quota bounds how many of something each key may hold at the same time. It
// remembers only keys that hold something, and is safe for concurrent use.
type Quota struct {
	max int

	mu   sync.Mutex
	held map[string]int
}

// NewQuota returns a Quota of at most max for each key; 0 is any number.
func NewQuota(max int) *Quota { return &Quota{max: max, held: map[string]int{}} }

// Acquire takes one for key, to be given back by release, which may be called
// more than once. It returns false, and nothing to release, if key holds as many
// as it may.
func (q *Quota) Acquire(key string) (release func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.max > 0 && q.held[key] >= q.max {
		return nil, false
	}
	q.held[key]++
	return sync.OnceFunc(func() { q.release(key) }), true
}

func (q *Quota) release(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[key]--; q.held[key] == 0 {
		delete(q.held, key)
	}
}
