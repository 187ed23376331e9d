package clawbench

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) lifecycleCommand() *cobra.Command {
	var manual bool
	var c crewOptions
	cmd := &cobra.Command{
		Use:   "lifecycle",
		Short: "Submit tasks and drive each to its end",
		Long: `Submit tasks and drive each to its end, as workers on other machines do: POST
/v1/tasks by a client, which waits until its task is done; claims, a report that
it runs and some of progress by the workers, whose next claim brings the result.
This program plays them all. A figure is about the whole life of a task.

The baseline runs the server's statements for a task that its submitter drives,
each in a transaction of its own: the same rows, but nothing is claimed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			return b.run(cmd.Context(), "lifecycle", "tasks", nil, func(ctx context.Context, r *rig, res *result) error {
				if !manual {
					return b.measure(ctx, r, res, b.lifecycle(c))
				}
				p, err := b.manualLifecycle(c)
				if err != nil {
					return err
				}
				return b.measure(ctx, r, res, p)
			})
		},
	}
	b.addFlags(cmd, 10*time.Second)
	b.addLoadFlags(cmd)
	c.addFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&manual, "manual", false, "have each client drive its own task by PATCH, without workers")
	f.StringVar(&b.peers, "peers", "", "`directory` of other job queues (test/peers) to run in turns with it, on databases of their own in the same PostgreSQL")
	return cmd
}

const (
	progressMessage = "read a few more files"
	finalOutput     = "The change renames a field. Nothing breaks; a test for the old name is missing."
)

// patches are what happens to a task after it was submitted.
func (o crewOptions) patches() []api.TaskPatch {
	all := []api.TaskPatch{{Status: new(api.TaskPlanning)}, {Status: new(api.TaskRunning)}}
	for _, percent := range o.steps() {
		all = append(all, api.TaskPatch{Progress: new(percent), Message: progressMessage})
	}
	return append(all, api.TaskPatch{Status: new(api.TaskCompleted), Progress: new(100), Output: new(finalOutput)})
}

// lifecycle has workers run the tasks.
func (b *bench) lifecycle(o crewOptions) plan {
	n := payload()
	s := &script{}
	s.submit(n)
	for i, p := range o.patches() {
		s.update(p, i == 0) // of what workers do, claims have an audit entry
	}
	return plan{baseline: s, prepare: func(ctx context.Context, r *rig) (turn, error) {
		return func(ctx context.Context) (counted *tally, err error) {
			err = r.withCrew(ctx, o, func(ctx context.Context, c *crew) error {
				operate, err := c.runTask(func(string) {})
				if err != nil {
					return err
				}
				counted, err = b.load().run(ctx, r.target, operate)
				return err
			})
			return counted, err
		}, nil
	}}
}

// runTask returns the operation of submitting a task for the crew and waiting
// until it is completed; then it tells of its id.
func (c *crew) runTask(completed func(id string)) (func(context.Context, *connection) error, error) {
	n := payload()
	n.AgentID, n.Dispatch = noopAgent, api.DispatchAuto
	body, err := encode(n)
	return func(ctx context.Context, conn *connection) error {
		header, err := conn.do(http.MethodPost, "/v1/tasks", body)
		if err != nil {
			return err
		}
		if err := c.await(ctx, idOf(header)); err != nil {
			return err
		}
		completed(idOf(header))
		return nil
	}, err
}

// manualLifecycle has the submitters drive the tasks.
func (b *bench) manualLifecycle(o crewOptions) (plan, error) {
	n := payload()
	s := &script{}
	s.submit(n)
	submit, err := encode(n)
	if err != nil {
		return plan{}, err
	}
	var updates [][]byte
	for _, p := range o.patches() {
		s.update(p, true)
		body, err := encode(p)
		if err != nil {
			return plan{}, err
		}
		updates = append(updates, body)
	}
	operate := func(_ context.Context, c *connection) error {
		header, err := c.do(http.MethodPost, "/v1/tasks", submit)
		if err != nil {
			return err
		}
		for _, body := range updates {
			if _, err := c.do(http.MethodPatch, "/v1/tasks/"+idOf(header), body); err != nil {
				return err
			}
		}
		return nil
	}
	return plan{baseline: s, prepare: func(_ context.Context, r *rig) (turn, error) {
		return func(ctx context.Context) (*tally, error) { return b.load().run(ctx, r.target, operate) }, nil
	}}, nil
}
