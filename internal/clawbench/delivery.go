package clawbench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
)

// deliver writes events to one task at a rate, in turns without and with
// followers of it. It tells how long the writers waited in both, how soon the
// events arrived, and that none was missing.
func (b *bench) deliver(ctx context.Context, r *rig, res *result, followers int, perSecond float64) error {
	arrivals, lost := newTimings(), int64(0)
	round := func(ctx context.Context, followers int) (figures, *usage, error) {
		return r.metered(ctx, func() (*tally, error) {
			ids, err := submitMany(ctx, r.client, 1)
			if err != nil {
				return nil, err
			}
			d := &delivery{load: load{b.clients, b.duration, perSecond}, rig: r, task: ids[0], arrivals: arrivals}
			counted, err := d.run(ctx, followers)
			lost += d.lost
			return counted, err
		})
	}
	rows, ratios, err := b.inTurns(ctx, []contender{
		{name: "writers without followers", turn: func(ctx context.Context) (figures, *usage, error) { return round(ctx, 0) }},
		{name: fmt.Sprintf("writers with %d followers", followers), turn: func(ctx context.Context) (figures, *usage, error) { return round(ctx, followers) }},
	})
	if err != nil {
		return err
	}
	res.Rows, res.Ratios = rows, ratios
	f := arrivals.percentiles()
	res.note("deliveries", float64(arrivals.count()), "")
	res.note("lost", float64(lost), "events that a follower did not get")
	res.note("deliveryP50Ms", f.P50, "ms from before the request that writes an event to its follower")
	res.note("deliveryP99Ms", f.P99, "ms")
	res.note("deliveryP999Ms", f.P999, "ms")
	return nil
}

// delivery is one round.
type delivery struct {
	load
	rig  *rig
	task string

	began time.Time
	next  atomic.Int64
	sent  []atomic.Int64 // when, since it began, by the number of the event

	mu       sync.Mutex
	arrivals timings
	lost     int64
}

// lastEvent is the message after which nothing is written.
const lastEvent = "last"

// run writes events for the warm-up and the window, while followers read them
// to the last one.
func (d *delivery) run(ctx context.Context, followers int) (counted *tally, err error) {
	// Nothing here has a lock in common for each event: a thousand readers that
	// wait for one would be what is measured.
	d.began = time.Now()
	d.sent = make([]atomic.Int64, int(2*d.rate*(warmUp+d.window).Seconds())+1000)
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	for range followers {
		f, err := d.rig.follow(reading, d.task)
		if err != nil {
			stop()
			return nil, errors.Join(err, g.Wait())
		}
		f.body = bufio.NewReaderSize(f.body, 8<<10) // what comes together is read together
		g.Go(func() error {
			defer f.close()
			return d.read(f)
		})
	}
	if counted, err = d.load.run(ctx, d.rig.target, d.write); err == nil {
		_, err = d.rig.client.UpdateTask(ctx, d.task, api.TaskPatch{Message: lastEvent})
	}
	if err != nil {
		stop()
		return nil, errors.Join(err, g.Wait())
	}
	patience := time.AfterFunc(30*time.Second, stop)
	defer patience.Stop()
	return counted, g.Wait()
}

func (d *delivery) write(_ context.Context, c *connection) error {
	n := int(d.next.Add(1)) - 1
	if n >= len(d.sent) {
		return errors.New("more events are written than was asked for")
	}
	d.sent[n].Store(int64(time.Since(d.began)))
	body, err := encode(api.TaskPatch{Progress: new(n % 100), Message: strconv.Itoa(n)})
	if err != nil {
		return err
	}
	_, err = c.do(http.MethodPatch, "/v1/tasks/"+d.task, body)
	return err
}

// read reads up to the last event, and counts those that are missing.
func (d *delivery) read(f *follower) error {
	took := make([]time.Duration, len(d.sent)) // by the number of the event
	for {
		_, data, err := f.read()
		if err != nil {
			return fmt.Errorf("follow to the last event: %w", err)
		}
		now := time.Since(d.began)
		_, rest, _ := bytes.Cut(data, []byte(`"message":"`)) // decoding all would cost more than sending it
		message, _, _ := bytes.Cut(rest, []byte(`"`))
		if string(message) == lastEvent {
			d.count(took)
			return nil
		}
		if n, err := strconv.Atoi(string(message)); err == nil && n < len(took) {
			took[n] = now - time.Duration(d.sent[n].Load())
		}
	}
}

// count adds what a follower got, and notes what it did not.
func (d *delivery) count(took []time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range took[:d.next.Load()] {
		if t == 0 {
			d.lost++
			continue
		}
		d.arrivals.add(t)
	}
}
