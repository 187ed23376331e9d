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
	workers  int
	batch    int // leases of a claim
	progress int // reports of progress on each task
}

func (o *crewOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&o.workers, "workers", 4, "how many workers to play")
	f.IntVar(&o.batch, "batch", 50, "how many tasks a worker claims at once, at most")
	f.IntVar(&o.progress, "progress", 4, "how often progress is reported on each task")
}

func (o crewOptions) check() error {
	if o.workers < 1 || o.batch < 1 || o.batch > 100 {
		return errors.New("--workers must be positive, --batch between 1 and 100")
	}
	if o.progress < 0 || o.progress > 99 {
		return errors.New("--progress must be between 0 and 99")
	}
	return nil
}

// crew plays workers, which do nothing but report.
type crew struct {
	crewOptions
	rig     *rig
	reports []api.Report // on each task, before its result

	mu      sync.Mutex
	meeting map[string]chan struct{} // by task: see meet
	shifts  []*shift                 // by worker
}

// shift is what a worker of the crew has to do. The crew's lock guards it.
type shift struct {
	held    map[string]struct{} // lease tokens
	results []api.LeaseReport   // for the next claim
	waiting bool                // the claim that is under way waits for work
}

// attempt is a task that a worker of the crew runs.
type attempt struct {
	api.LeaseReport     // the last
	told            int // of the reports on it
}

// maxReports is how many a request can carry.
const maxReports = 100

// completion is the last report on each task.
var completion = api.Report{Status: api.TaskCompleted, Output: new(finalOutput)}

// steps of the progress on a task, in percent.
func (o crewOptions) steps() (percents []int) {
	for i := range o.progress {
		percents = append(percents, 100*(i+1)/(o.progress+1))
	}
	return percents
}

// workerReports are those on a task of its worker, before its result.
func (o crewOptions) workerReports() []api.Report {
	reports := []api.Report{{Status: api.TaskRunning}}
	for _, percent := range o.steps() {
		reports = append(reports, api.Report{Events: []api.ReportEvent{{Type: api.EventProgress, Progress: new(percent), Message: progressMessage}}})
	}
	return reports
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
	c := &crew{crewOptions: o, rig: r, reports: o.workerReports(), meeting: map[string]chan struct{}{}}
	working, stop := context.WithCancelCause(ctx)
	g, working := errgroup.WithContext(working)
	for i := range o.workers {
		if err := r.registerWorker(ctx, workerID(i), 2*o.batch); err != nil {
			stop(errDone)
			return errors.Join(err, g.Wait())
		}
		sh := &shift{held: map[string]struct{}{}}
		c.shifts = append(c.shifts, sh)
		leases := make(chan api.Lease, o.batch)
		g.Go(func() error { return c.claim(working, i, sh, leases) })
		g.Go(func() error { return c.beat(working, i, sh) })
		g.Go(func() error { return c.work(working, sh, leases) })
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

// claim hands leases of a worker on as they come. Each claim brings the results
// of the tasks that have ended meanwhile; without any it waits for work.
func (c *crew) claim(ctx context.Context, worker int, sh *shift, leases chan<- api.Lease) error {
	conn, err := c.rig.workers.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	for {
		ask := api.ClaimRequest{Max: c.batch, WaitSeconds: 30}
		c.mu.Lock()
		n := min(len(sh.results), maxReports)
		ask.Reports, sh.results = sh.results[:n], sh.results[n:]
		sh.waiting = n == 0
		c.mu.Unlock()
		got, err := c.exchange(conn, worker, sh, ask)
		if err != nil {
			return err
		}
		c.mu.Lock()
		sh.waiting = false
		for _, l := range got {
			sh.held[l.LeaseToken] = struct{}{}
		}
		c.mu.Unlock()
		for _, l := range got {
			select {
			case leases <- l:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// exchange makes a claim that brings results, and returns the leases.
func (c *crew) exchange(conn *connection, worker int, sh *shift, ask api.ClaimRequest) ([]api.Lease, error) {
	body, err := encode(ask)
	if err != nil {
		return nil, err
	}
	var answer api.ClaimAnswer
	if _, err := conn.call(http.MethodPost, "/v1/workers/"+workerID(worker)+"/claim", acceptJSON, body, &answer); err != nil {
		return nil, err
	}
	if err := refused(ask.Reports, answer.Reports); err != nil {
		return nil, err
	}
	for _, r := range ask.Reports {
		c.ended(sh, r)
	}
	return answer.Leases, nil
}

// work reports on the tasks of a worker to their end, on all that are under way in
// one request, and leaves their results to the next claim unless that one waits
// for work.
func (c *crew) work(ctx context.Context, sh *shift, leases <-chan api.Lease) error {
	conn, err := c.rig.workers.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	var running []*attempt
	for {
		if running, err = join(ctx, running, leases); err != nil {
			return err
		}
		now := running[:min(len(running), maxReports)]
		if err := c.report(conn, now); err != nil {
			return err
		}
		var left []*attempt
		for _, a := range now {
			if a.told++; a.told > len(c.reports) {
				c.ended(sh, a.LeaseReport)
			} else if !c.finish(sh, a) {
				left = append(left, a)
			}
		}
		running = append(running[len(now):], left...) // each in its turn
	}
}

// join adds what was leased to what runs, and waits for a lease if nothing does.
func join(ctx context.Context, running []*attempt, leases <-chan api.Lease) ([]*attempt, error) {
	add := func(l api.Lease) {
		running = append(running, &attempt{LeaseReport: api.LeaseReport{TaskID: l.Task.ID, LeaseToken: l.LeaseToken}})
	}
	if len(running) == 0 {
		select {
		case l := <-leases:
			add(l)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for {
		select {
		case l := <-leases:
			add(l)
		default:
			return running, ctx.Err()
		}
	}
}

// report makes the next report on each attempt.
func (c *crew) report(conn *connection, attempts []*attempt) error {
	ask := api.LeaseReports{}
	for _, a := range attempts {
		if a.Report = completion; a.told < len(c.reports) {
			a.Report = c.reports[a.told]
		}
		ask.Reports = append(ask.Reports, a.LeaseReport)
	}
	body, err := encode(ask)
	if err != nil {
		return err
	}
	var answer api.LeaseReportsAnswer
	if _, err := conn.call(http.MethodPost, "/v1/tasks/reports", acceptJSON, body, &answer); err != nil {
		return err
	}
	return refused(ask.Reports, answer.Reports)
}

// refused returns an error if one of the reports was.
func refused(reports []api.LeaseReport, answers []api.ReportAnswer) error {
	for i, a := range answers {
		if a.Problem != nil {
			return fmt.Errorf("a report on task %s is refused: %s", reports[i].TaskID, a.Problem.Detail)
		}
	}
	return nil
}

// finish leaves the result of an attempt that has nothing else to report to the
// next claim, unless that one waits for work.
func (c *crew) finish(sh *shift, a *attempt) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.told < len(c.reports) || sh.waiting {
		return false
	}
	a.Report = completion
	sh.results = append(sh.results, a.LeaseReport)
	return true
}

// ended tells who waits for a task that its result is recorded.
func (c *crew) ended(sh *shift, result api.LeaseReport) {
	c.mu.Lock()
	delete(sh.held, result.LeaseToken)
	c.mu.Unlock()
	close(c.meet(result.TaskID))
}

// beat renews the leases of a worker. Of those that it hears are lost the next
// report tells.
func (c *crew) beat(ctx context.Context, worker int, sh *shift) error {
	for sleep(ctx, 10*time.Second) {
		c.mu.Lock()
		tokens := slices.Collect(maps.Keys(sh.held))
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
