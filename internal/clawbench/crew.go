package clawbench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
)

// noopAgent is an agent that no worker but those that we play can run.
const noopAgent = "clawbench-noop"

// crewOptions says which workers are played.
type crewOptions struct {
	workers     int
	batch       int // leases of a claim
	concurrency int // reports under way at once, of each worker
}

func (o *crewOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&o.workers, "workers", 4, "how many workers to play")
	f.IntVar(&o.batch, "batch", 50, "how many tasks a worker claims at once, at most")
	f.IntVar(&o.concurrency, "concurrency", 16, "how many tasks a worker reports on at once")
}

func (o crewOptions) check() error {
	if o.workers < 1 || o.batch < 1 || o.batch > 100 || o.concurrency < 1 {
		return errors.New("--workers and --concurrency must be positive, --batch between 1 and 100")
	}
	return nil
}

// crew plays workers, which do nothing but report.
type crew struct {
	crewOptions
	rig     *rig
	reports [][]byte // on each task

	mu      sync.Mutex
	meeting map[string]chan struct{} // by task: see meet
	held    []map[string]struct{}    // lease tokens by worker
}

// workerReports are those on a task of its worker.
func workerReports() (bodies [][]byte, err error) {
	reports := []api.Report{{Status: api.TaskRunning}}
	for percent := 20; percent <= 80; percent += 20 {
		reports = append(reports, api.Report{Events: []api.ReportEvent{{Type: api.EventProgress, Progress: new(percent), Message: progressMessage}}})
	}
	reports = append(reports, api.Report{Status: api.TaskCompleted, Output: new(finalOutput)})
	for _, r := range reports {
		body, err := encode(r)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

// worker is who workers speak as.
type worker struct {
	target
	client *api.Client
	token  string
}

// hire makes a credential for workers, and the agent that those we play serve.
func (r *rig) hire(ctx context.Context) error {
	if r.workers != nil {
		return nil
	}
	_, err := r.operator.PutAgent(ctx, noopAgent, api.AgentDefinition{
		Description: "Is played by clawbench.", Executor: api.ExecutorProcess, Process: &api.Process{Command: []string{noopAgent}},
	})
	if err != nil {
		return fmt.Errorf("define an agent: %w", err)
	}
	key, err := r.operator.CreateAPIKey(ctx, api.NewAPIKey{Name: "clawbench", Worker: &api.WorkerScope{}, ExpiresSeconds: 7 * 24 * 3600})
	if err != nil {
		return fmt.Errorf("make a credential for workers: %w", err)
	}
	r.undo = append(r.undo, func(ctx context.Context) error {
		if r.own == nil {
			return r.operator.RevokeAPIKey(ctx, key.ID)
		}
		return nil // it goes with the server
	})
	w := &worker{target: r.target, token: key.Key}
	w.target.token = key.Key
	if w.client, err = newClient(r.address, key.Key); err != nil {
		return err
	}
	r.workers = w
	return nil
}

// registerWorker makes a worker known that serves the agent.
func (r *rig) registerWorker(ctx context.Context, id string, capacity int) error {
	if err := r.hire(ctx); err != nil {
		return err
	}
	err := r.workers.client.RegisterWorker(ctx, api.WorkerRegistration{
		ID: id, Instance: uuid.NewString(), Agents: []string{noopAgent}, Capacity: capacity, Version: "clawbench",
	})
	if err != nil {
		return fmt.Errorf("register a worker: %w", err)
	}
	return nil
}

// withCrew runs something while workers are there. Its context ends when one of
// them fails.
func (r *rig) withCrew(ctx context.Context, o crewOptions, run func(context.Context, *crew) error) error {
	c := &crew{crewOptions: o, rig: r, meeting: map[string]chan struct{}{}}
	var err error
	if c.reports, err = workerReports(); err != nil {
		return err
	}
	working, stop := context.WithCancelCause(ctx)
	g, working := errgroup.WithContext(working)
	for i := range o.workers {
		if err := r.registerWorker(ctx, workerID(i), o.batch+o.concurrency); err != nil {
			stop(errDone)
			return errors.Join(err, g.Wait())
		}
		c.held = append(c.held, map[string]struct{}{})
		leases := make(chan api.Lease, o.batch)
		g.Go(func() error { return c.claim(working, i, leases) })
		g.Go(func() error { return c.beat(working, i) })
		for range o.concurrency {
			g.Go(func() error { return c.work(working, i, leases) })
		}
	}
	runErr := run(working, c)
	finished := working.Err() == nil // no worker has failed
	stop(errDone)
	if err := g.Wait(); err != nil && !finished && ctx.Err() == nil {
		return err
	}
	for i := range o.workers {
		if err := r.workers.client.DrainWorker(ctx, workerID(i)); err != nil {
			return errors.Join(runErr, fmt.Errorf("drain a worker: %w", err))
		}
	}
	return runErr
}

var errDone = errors.New("done")

func workerID(i int) string { return fmt.Sprintf("clawbench-%d", i) }

// claim hands leases of a worker on as they come.
func (c *crew) claim(ctx context.Context, worker int, leases chan<- api.Lease) error {
	conn, err := c.rig.workers.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	body, err := encode(api.ClaimRequest{Max: c.batch, WaitSeconds: 30})
	if err != nil {
		return err
	}
	for {
		var answer api.ClaimAnswer
		if _, err := conn.call(http.MethodPost, "/v1/workers/"+workerID(worker)+"/claim", acceptJSON, body, &answer); err != nil {
			return err
		}
		c.mu.Lock()
		for _, l := range answer.Leases {
			c.held[worker][l.LeaseToken] = struct{}{}
		}
		c.mu.Unlock()
		for _, l := range answer.Leases {
			select {
			case leases <- l:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// work reports on tasks to their end.
func (c *crew) work(ctx context.Context, worker int, leases <-chan api.Lease) error {
	conn, err := c.rig.workers.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	for {
		select {
		case l := <-leases:
			for _, body := range c.reports {
				if err := conn.report(l.Task.ID, l.LeaseToken, body); err != nil {
					return err
				}
			}
			c.mu.Lock()
			delete(c.held[worker], l.LeaseToken)
			c.mu.Unlock()
			close(c.meet(l.Task.ID))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// beat renews the leases of a worker. Of those that it hears are lost the next
// report tells.
func (c *crew) beat(ctx context.Context, worker int) error {
	for sleep(ctx, 10*time.Second) {
		c.mu.Lock()
		tokens := slices.Collect(maps.Keys(c.held[worker]))
		c.mu.Unlock()
		if _, err := c.rig.workers.client.Heartbeat(ctx, workerID(worker), api.Heartbeat{LeaseTokens: tokens}); err != nil {
			return fmt.Errorf("renew leases: %w", err)
		}
	}
	return ctx.Err()
}

// meet returns what submitter and worker of a task share: whoever comes first
// makes it.
func (c *crew) meet(task string) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.meeting[task]; ok {
		delete(c.meeting, task)
		return ch
	}
	ch := make(chan struct{})
	c.meeting[task] = ch
	return ch
}

// await returns when a worker has completed the task.
func (c *crew) await(ctx context.Context, task string) error {
	select {
	case <-c.meet(task):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// idOf returns the id of the task that an answer names in its Location.
func idOf(answer http.Header) string { return path.Base(answer.Get("Location")) }
