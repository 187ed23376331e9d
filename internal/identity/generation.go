package identity

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// generationAge is how long a reading of the generation is good for, and
	// so how long a change elsewhere can go unnoticed when its signal is lost.
	generationAge = time.Second
	// readTimeout bounds a reading that many requests wait for.
	readTimeout = 5 * time.Second
)

// generation is what this server knows of access_generation.
type generation struct {
	pool   *pgxpool.Pool
	now    func() time.Time
	flight singleflight.Group

	mu      sync.Mutex
	n       int64
	readAt  time.Time // zero: not since the last signal
	signals uint64
}

// current returns the generation, which is that of at most generationAge ago
// and of after the last signal. Many who ask at once share one reading.
func (g *generation) current(ctx context.Context) (int64, error) {
	g.mu.Lock()
	n, fresh, signals := g.n, recent(g.readAt, g.now(), generationAge), g.signals
	g.mu.Unlock()
	if fresh {
		return n, nil
	}
	// A reading that began before a signal does not answer those who ask after it.
	read := g.flight.DoChan(strconv.FormatUint(signals, 10), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		at := g.now()
		var n int64
		if err := g.pool.QueryRow(ctx, `SELECT n FROM access_generation`).Scan(&n); err != nil {
			return n, postgres.Fault(fmt.Errorf("read the generation of access: %w", err))
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.n = max(g.n, n)
		if g.signals == signals {
			g.readAt = at
		}
		return n, nil
	})
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case r := <-read:
		return r.Val.(int64), r.Err
	}
}

// recent reports whether at is at most age before now. The clock may have been
// set back.
func recent(at, now time.Time, age time.Duration) bool {
	since := now.Sub(at)
	return !at.IsZero() && since >= 0 && since < age
}

// signal says that something has changed.
func (g *generation) signal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readAt = time.Time{}
	g.signals++
}
