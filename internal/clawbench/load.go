package clawbench

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// load is how a server is put under load.
type load struct {
	clients int
	window  time.Duration // what counts, after the warm-up
	// rate is how many operations begin a second, of all clients together; 0:
	// each client begins the next one when the last has ended.
	rate float64
}

// run has the clients repeat an operation for the warm-up and the window.
//
// At a rate the times count from when an operation was due, however late a
// client came to it: what a stalled server keeps from being asked is in the
// figures (coordinated omission).
func (l load) run(ctx context.Context, at target, operate func(context.Context, *connection) error) (*tally, error) {
	g, ctx := errgroup.WithContext(ctx)
	connections, err := at.dialMany(ctx, l.clients)
	defer closeAll(connections)
	if err != nil {
		return nil, err
	}
	var begun atomic.Int64
	tallies := make([]*tally, l.clients)
	began := time.Now()
	for i, c := range connections {
		tallies[i] = newTally(l.window)
		g.Go(func() error {
			for {
				start := time.Since(began)
				if start >= warmUp+l.window {
					return nil
				}
				if l.rate > 0 {
					start = time.Duration(float64(begun.Add(1)-1) / l.rate * float64(time.Second))
					if start >= warmUp+l.window {
						return nil
					}
					if !sleep(ctx, time.Until(began.Add(start))) {
						return ctx.Err()
					}
				}
				if err := operate(ctx, c); err != nil {
					return err
				}
				end := time.Since(began)
				tallies[i].add(end, end-start)
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := tallies[0]
	for _, t := range tallies[1:] {
		all.merge(t)
	}
	return all, nil
}

// sleep is false if ctx ended before d was over.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
