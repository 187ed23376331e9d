package clawbench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
)

// The orders in which the flood and the few are submitted.
const (
	floodFirst   = "first"   // and all is there before the workers begin
	floodLast    = "last"    // likewise
	floodRunning = "running" // the few come while the workers are at it
)

func (b *bench) fairnessCommand() *cobra.Command {
	f := &fairness{bench: b}
	orders := []string{floodFirst, floodLast, floodRunning}
	cmd := &cobra.Command{
		Use:   "fairness",
		Short: "Time a few tasks of one session beside a flood of another",
		Long: `Time a few tasks of one session, alone and beside a flood of another session:
submitted before the flood, after it, and while it runs. This program plays the
workers over HTTP, each of which has one task at a time that takes --lasts and
does nothing.

The time is that of the few from their submission, or from when the workers begin
if that is later, until the last of them has ended. Each round waits until the
flood has ended, too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.flood < 1 || f.few < 1 || f.few > maxBatch {
				return fmt.Errorf("--flood must be positive, --few between 1 and %d", maxBatch)
			}
			if b.clients < 1 || b.rounds < 1 || b.duration <= 0 || b.duration > maxLasts {
				return fmt.Errorf("--workers, --rounds and --lasts must be positive, --lasts at most %s", maxLasts)
			}
			for _, o := range f.orders {
				if !slices.Contains(orders, o) {
					return fmt.Errorf("--order %q: want any of %s", o, strings.Join(orders, ", "))
				}
			}
			return b.run(cmd.Context(), "fairness", "tasks", nil, f.measure)
		},
	}
	b.addRigFlags(cmd)
	flags := cmd.Flags()
	flags.IntVar(&b.clients, "workers", 8, "how many workers to play, each with one task at a time")
	flags.IntVar(&b.rounds, "rounds", 3, "how often to measure, alone and in each order in turns; the medians count")
	flags.IntVar(&f.flood, "flood", 10_000, "how many tasks the one session submits")
	flags.IntVar(&f.few, "few", 10, "how many the other one does")
	flags.DurationVar(&b.duration, "lasts", 20*time.Millisecond, "how long each task takes its worker")
	flags.StringSliceVar(&f.orders, "order", orders, "when the flood is submitted: first, last (the workers begin when all is there) or running (the few come while it runs)")
	return cmd
}

const (
	maxBatch = 1000 // tasks of a submission
	// maxLasts keeps tasks well within their leases, which nobody renews.
	maxLasts = 10 * time.Second
)

// fairness is a few tasks beside many.
type fairness struct {
	*bench
	flood, few int
	orders     []string
}

func (f *fairness) measure(ctx context.Context, r *rig, res *result) error {
	running, err := encode(api.Report{Status: api.TaskRunning})
	if err != nil {
		return err
	}
	if _, err := f.time(ctx, r, running, "warm-up", ""); err != nil {
		return err
	}
	alone := make([]float64, f.rounds)
	beside := make([][2]float64, f.rounds*len(f.orders)) // and alone, in the same round
	for round := range f.rounds {
		took, err := f.time(ctx, r, running, fmt.Sprintf("alone-%d", round), "")
		if err != nil {
			return fmt.Errorf("alone: %w", err)
		}
		alone[round] = took
		said := []string{fmt.Sprintf("alone %.0f ms", took)}
		for i, order := range f.orders {
			took, err := f.time(ctx, r, running, fmt.Sprintf("%s-%d", order, round), order)
			if err != nil {
				return fmt.Errorf("flood %s: %w", order, err)
			}
			beside[i*f.rounds+round] = [2]float64{took, alone[round]}
			said = append(said, fmt.Sprintf("flood %s %.0f ms", order, took))
		}
		f.say("round %d of %d: %s", round+1, f.rounds, strings.Join(said, ", "))
	}
	res.note("aloneMs", medianOf(alone, func(ms float64) float64 { return ms }), "until the last of the few has ended")
	for i, order := range f.orders {
		rounds := beside[i*f.rounds : (i+1)*f.rounds]
		name := "flood" + strings.ToUpper(order[:1]) + order[1:]
		res.note(name+"Ms", medianOf(rounds, func(p [2]float64) float64 { return p[0] }), "")
		res.note(name+"Ratio", medianOf(rounds, func(p [2]float64) float64 { return p[0] / p[1] }), "times what they take alone")
	}
	return nil
}

// time returns how many milliseconds the few take beside a flood that is
// submitted in an order, or alone. The sessions are the name's.
func (f *fairness) time(ctx context.Context, r *rig, running []byte, name, order string) (took float64, err error) {
	c := &crew{rig: r, meeting: map[string]chan struct{}{}}
	working, stop := context.WithCancelCause(ctx)
	g, working := errgroup.WithContext(working)
	begin := make(chan struct{})
	for i := range f.clients {
		if err := r.registerWorker(ctx, workerID(i), 1); err != nil {
			stop(errDone)
			return 0, errors.Join(err, g.Wait())
		}
		g.Go(func() error { return c.beat(working, i, &shift{}) })
		g.Go(func() error { return f.serve(working, c, i, running, begin) })
	}
	took, err = f.submit(working, c, name, order, begin)
	finished := working.Err() == nil // no worker has failed
	stop(errDone)
	if failed := g.Wait(); failed != nil && !finished && ctx.Err() == nil {
		return 0, failed
	}
	if err != nil {
		return 0, err
	}
	for i := range f.clients {
		if err := r.workers.client.DrainWorker(ctx, workerID(i)); err != nil {
			return 0, fmt.Errorf("drain a worker: %w", err)
		}
	}
	return took, nil
}

// submit submits what there is in its order, lets the workers begin, and returns
// what time the few took when all has ended.
func (f *fairness) submit(ctx context.Context, c *crew, name, order string, begin chan<- struct{}) (took float64, err error) {
	var flood, few []string
	var start time.Time
	submitFlood := func() (err error) {
		flood, err = f.fill(ctx, c.rig, "many-"+name, f.flood)
		return err
	}
	submitFew := func() (err error) {
		start = time.Now()
		few, err = f.fill(ctx, c.rig, "few-"+name, f.few)
		return err
	}
	work := func() error {
		start = time.Now()
		close(begin)
		return nil
	}
	flooded := func() error {
		first := flood[0]
		flood = flood[1:]
		return c.await(ctx, first)
	}
	for _, step := range map[string][]func() error{
		"":           {submitFew, work},
		floodFirst:   {submitFlood, submitFew, work},
		floodLast:    {submitFew, submitFlood, work},
		floodRunning: {work, submitFlood, flooded, submitFew},
	}[order] {
		if err := step(); err != nil {
			return 0, err
		}
	}
	if err := c.awaitAll(ctx, few); err != nil {
		return 0, err
	}
	took = float64(time.Since(start)) / float64(time.Millisecond)
	return took, c.awaitAll(ctx, flood)
}

// fill submits n tasks of a session, and returns their ids.
func (f *fairness) fill(ctx context.Context, r *rig, session string, n int) (ids []string, err error) {
	t := payload()
	t.AgentID, t.Dispatch, t.SessionID = noopAgent, api.DispatchAuto, session
	for tasks := range slices.Chunk(slices.Repeat([]api.NewTask{t}, n), maxBatch) {
		made, err := r.client.SubmitTasks(ctx, tasks)
		if err != nil {
			return nil, fmt.Errorf("submit tasks of session %s: %w", session, err)
		}
		for _, t := range made {
			ids = append(ids, t.ID)
		}
	}
	return ids, nil
}

// serve is a worker with one task at a time, from begin on. Each claim brings the
// result of the task before.
func (f *fairness) serve(ctx context.Context, c *crew, worker int, running []byte, begin <-chan struct{}) error {
	conn, err := c.rig.workers.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	select {
	case <-begin:
	case <-ctx.Done():
		return ctx.Err()
	}
	ask := api.ClaimRequest{Max: 1, WaitSeconds: 30}
	for {
		got, err := c.exchange(conn, worker, &shift{}, ask)
		if err != nil {
			return err
		}
		ask.Reports = nil
		for _, l := range got {
			if err := conn.report(l.Task.ID, l.LeaseToken, running); err != nil {
				return err
			}
			if !sleep(ctx, f.duration) {
				return ctx.Err()
			}
			ask.Reports = append(ask.Reports, api.LeaseReport{TaskID: l.Task.ID, LeaseToken: l.LeaseToken, Report: completion})
		}
	}
}

// awaitAll returns when workers have completed the tasks.
func (c *crew) awaitAll(ctx context.Context, tasks []string) error {
	for _, id := range tasks {
		if err := c.await(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
