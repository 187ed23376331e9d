package clawbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) mixedCommand() *cobra.Command {
	m := &mix{bench: b}
	cmd := &cobra.Command{
		Use:   "mixed",
		Short: "Do all at once: submit, run, report, list and follow tasks",
		Long: `Do all at once: submit tasks, have workers run others from end to end, report
progress on tasks that run, list tasks, and follow those that run. The clients
are shared out among the first four.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := m.check(); err != nil {
				return err
			}
			return b.run(cmd.Context(), "mixed", "operations", nil, func(ctx context.Context, r *rig, res *result) error {
				if err := m.prepare(ctx, r); err != nil {
					return err
				}
				return m.measure(ctx, res)
			})
		},
	}
	b.addFlags(cmd, 10*time.Second)
	b.addClientsFlag(cmd, 16)
	m.addFlags(cmd, 0)
	return cmd
}

// mix is a load of everything.
type mix struct {
	*bench
	crew      crewOptions
	tasks     int // that run, and are reported on
	followers int // of these

	rig     *rig
	running []leased
	ledger  ledger
}

func (m *mix) addFlags(cmd *cobra.Command, rate float64) {
	f := cmd.Flags()
	f.Float64Var(&m.rate, "rate", rate, "how many of each kind to begin a second, instead of as many as the clients can; 0: as many")
	f.IntVar(&m.tasks, "tasks", 200, "how many tasks run that are reported on")
	f.IntVar(&m.followers, "followers", 100, "how many follow them")
	m.crew.addFlags(cmd)
}

func (m *mix) check() error {
	if m.tasks < 1 || m.followers < 0 {
		return errors.New("--tasks must be positive, and --followers must not be negative")
	}
	return errors.Join(m.crew.check(), enoughFiles(m.followers))
}

func (m *mix) prepare(ctx context.Context, r *rig) (err error) {
	m.rig = r
	m.running, err = r.runTasks(ctx, time.Now().UnixMilli()-int64(m.tasks), m.tasks)
	return err
}

// measure puts the mix on the server for the duration, and adds what it found to
// the result.
func (m *mix) measure(ctx context.Context, res *result) error {
	before, err := m.rig.meter.read(ctx)
	if err != nil {
		return err
	}
	parts, delivered, err := m.run(ctx, m.duration)
	if err != nil {
		return err
	}
	var operations int64
	for _, p := range parts {
		operations += p.counted.all
	}
	used, err := m.rig.meter.since(ctx, before, operations)
	if err != nil {
		return err
	}
	for _, p := range parts {
		f, err := p.counted.figures()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		res.Rows = append(res.Rows, row{Name: p.name, figures: f})
	}
	// The machine is shared by all parts.
	res.Rows[len(res.Rows)-1].Usage = used
	res.note("eventsDeliveredPerSecond", float64(delivered)/(warmUp+m.duration).Seconds(), "events a second, by all followers")
	return nil
}

// part is one kind of operations.
type part struct {
	name    string
	operate func(context.Context, *connection) error
	at      target
	counted *tally
}

// run puts the mix on the server. It returns what each part did, and how many
// events followers got.
func (m *mix) run(ctx context.Context, window time.Duration) (parts []*part, delivered int64, err error) {
	n := payload()
	submit, err := encode(n)
	if err != nil {
		return nil, 0, err
	}
	report, err := encode(api.Report{Events: []api.ReportEvent{{Type: api.EventProgress, Progress: new(50), Message: progressMessage}}})
	if err != nil {
		return nil, 0, err
	}
	err = m.rig.withCrew(ctx, m.crew, func(ctx context.Context, c *crew) error {
		life, err := c.runTask(m.ledger.completed.add)
		if err != nil {
			return err
		}
		parts = []*part{
			{name: "submit", operate: post(submit, m.ledger.submitted.add), at: m.rig.target},
			{name: "lifecycle", operate: life, at: m.rig.target},
			{name: "progress", operate: reportOn(m.running, report), at: m.rig.workers.target},
			{name: "list", operate: list, at: m.rig.target},
		}
		following, stop := context.WithCancel(ctx)
		defer stop()
		counts, err := m.follow(following)
		if err != nil {
			return err
		}
		g, loading := errgroup.WithContext(ctx)
		for _, p := range parts {
			l := load{max(1, m.clients/len(parts)), window, m.rate}
			g.Go(func() (err error) {
				if p.counted, err = l.run(loading, p.at, p.operate); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				return nil
			})
		}
		err = g.Wait()
		stop()
		delivered = counts()
		return err
	})
	return parts, delivered, err
}

// follow has the followers read until ctx ends, and then counts returns how many
// events they got.
func (m *mix) follow(ctx context.Context) (counts func() int64, err error) {
	var all sync.WaitGroup
	var events atomic.Int64
	ctx, stop := context.WithCancel(ctx)
	counts = func() int64 {
		stop()
		all.Wait()
		return events.Load()
	}
	for range m.followers {
		f, err := m.rig.follow(ctx, m.running[rand.IntN(len(m.running))].id)
		if err != nil {
			counts()
			return nil, err
		}
		all.Go(func() {
			defer f.close()
			for {
				if _, _, err := f.read(); err != nil {
					return // the load is over; a server that failed tells others
				}
				events.Add(1)
			}
		})
	}
	return counts, nil
}

// list looks at the latest tasks of a status.
func list(_ context.Context, c *connection) error {
	statuses := []api.TaskStatus{api.TaskPending, api.TaskRunning, api.TaskCompleted}
	_, err := c.do(http.MethodGet, "/v1/tasks?limit=50&status="+string(statuses[rand.IntN(len(statuses))]), nil)
	return err
}

// ledger is what the server has acknowledged.
type ledger struct{ submitted, completed ids }

// ids are those of tasks.
type ids struct {
	mu  sync.Mutex
	all []string
}

func (i *ids) add(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all = append(i.all, id)
}

func (i *ids) copy() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string{}, i.all...)
}

func (i *ids) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.all)
}
