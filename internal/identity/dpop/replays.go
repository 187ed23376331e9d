package dpop

import (
	"crypto/sha256"
	"sync"
	"time"
)

// replayWindow is how long a proof can be used: from MaxAge before its iat until
// MaxAge after.
const replayWindow = 2 * MaxAge

// Replays remembers the proofs that one server has seen, each for as long as it
// can be used. It is safe for concurrent use and holds at most the number of
// proofs that it is made for.
//
// Its memory ends with the process and at its border: what must not happen twice
// in a cluster needs a row in the database.
type Replays struct {
	mu sync.Mutex
	// Two generations, each filled for one window: an entry lives for one to
	// two windows and is dropped without a search.
	current, previous map[[sha256.Size]byte]struct{}
	started           time.Time // of current
	limit             int
}

// NewReplays returns a set that holds at most limit proofs, of about 100 bytes
// each.
func NewReplays(limit int) *Replays {
	return &Replays{current: make(map[[sha256.Size]byte]struct{}), limit: limit}
}

// Seen remembers p and reports whether it is to be refused: it was seen before,
// or the set is full and could not tell. Forgetting instead would let anyone who
// can fill the set replay. So ask only for proofs whose access token or session
// is accepted, behind a limit of their rate.
func (r *Replays) Seen(p Proof, now time.Time) bool {
	id := sha256.Sum256([]byte(p.Thumbprint + " " + p.ID)) // neither has a space
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(now)
	if _, ok := r.current[id]; ok {
		return true
	}
	if _, ok := r.previous[id]; ok {
		return true
	}
	if len(r.current)+len(r.previous) >= r.limit {
		return true
	}
	r.current[id] = struct{}{}
	return false
}

func (r *Replays) age(now time.Time) {
	age := now.Sub(r.started)
	if age < replayWindow {
		return
	}
	r.previous = r.current
	if age >= 2*replayWindow {
		r.previous = nil
	}
	r.current = make(map[[sha256.Size]byte]struct{})
	r.started = now
}
