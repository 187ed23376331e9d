package dpop_test

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/identity/dpop"
)

func proofOf(thumbprint, id string) dpop.Proof { return dpop.Proof{Thumbprint: thumbprint, ID: id} }

func TestAProofIsSeenForAsLongAsItCanBeUsed(t *testing.T) {
	t.Parallel()
	// The age of the generation at the first use decides what becomes of it.
	for _, warm := range []time.Duration{0, time.Second, time.Minute, 2*time.Minute - 1, 2 * time.Minute, 10 * time.Minute} {
		for _, after := range []time.Duration{0, time.Second, time.Minute, 2 * time.Minute} {
			r := dpop.NewReplays(10)
			r.Seen(proofOf("k", "warm"), now)
			used := now.Add(warm)
			if r.Seen(proofOf("k", "j"), used) {
				t.Errorf("warm for %s: seen before it was used", warm)
			}
			if !r.Seen(proofOf("k", "j"), used.Add(after)) {
				t.Errorf("warm for %s: not seen %s later", warm, after)
			}
		}
	}
}

func TestProofsOfTwoKeysMayHaveTheSameID(t *testing.T) {
	t.Parallel()
	r := dpop.NewReplays(10)
	for _, p := range []dpop.Proof{proofOf("k1", "j"), proofOf("k2", "j"), proofOf("k1", "i")} {
		if r.Seen(p, now) {
			t.Errorf("%s of %s is seen", p.ID, p.Thumbprint)
		}
	}
}

func TestAFullSetRefusesUntilItForgets(t *testing.T) {
	t.Parallel()
	const limit = 100
	r := dpop.NewReplays(limit)
	for i := range limit {
		if r.Seen(proofOf("k", strconv.Itoa(i)), now) {
			t.Fatalf("proof %d of %d is refused", i, limit)
		}
	}
	for after := time.Duration(0); after <= 2*time.Minute; after += 30 * time.Second {
		if !r.Seen(proofOf("k", "more"), now.Add(after)) {
			t.Errorf("one more than the limit is accepted after %s", after)
		}
		if !r.Seen(proofOf("k", "0"), now.Add(after)) {
			t.Errorf("the first is forgotten after %s", after)
		}
	}
	if r.Seen(proofOf("k", "more"), now.Add(4*time.Minute)) {
		t.Error("the set is still full when none of its proofs can be used")
	}
}

func TestOneOfManyConcurrentUsesWins(t *testing.T) {
	t.Parallel()
	r := dpop.NewReplays(1000)
	var accepted atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				if !r.Seen(proofOf("k", strconv.Itoa(i)), now) {
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := accepted.Load(); got != 100 {
		t.Errorf("100 proofs were accepted %d times", got)
	}
}
