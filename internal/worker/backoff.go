package worker

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	// longestPause is between tries that are in no hurry, urgentPause between
	// those on which a lease depends.
	longestPause = 5 * time.Second
	urgentPause  = time.Second
)

// backoff paces repeated tries.
type backoff struct{ longest, pause time.Duration }

// wait waits, longer from time to time, or until ctx ends.
func (b *backoff) wait(ctx context.Context) {
	b.pause = min(max(2*b.pause, firstPause), b.longest)
	// Workers that lost the same server do not come back together.
	pause(ctx, b.pause/2+rand.N(b.pause/2))
}

func (b *backoff) reset() { b.pause = 0 }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
