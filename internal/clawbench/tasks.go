package clawbench

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) submitCommand() *cobra.Command {
	var auto bool
	cmd := &cobra.Command{
		Use:   "submit",
		Short: "Submit tasks, one a request",
		Long: `Submit tasks, one a request: POST /v1/tasks.

The baseline runs the statement that the server runs for each of them, in a
transaction of its own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := payload()
			if auto {
				later := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
				n.AgentID, n.Dispatch, n.RunAfter = noopAgent, api.DispatchAuto, &later
			}
			return b.run(cmd.Context(), "submit", "tasks", nil, func(ctx context.Context, r *rig, res *result) error {
				p, err := b.submit(n)
				if err != nil {
					return err
				}
				return b.measure(ctx, r, res, p)
			})
		},
	}
	b.addFlags(cmd, 10*time.Second)
	b.addLoadFlags(cmd)
	cmd.Flags().BoolVar(&auto, "auto", false, "submit tasks for workers, due tomorrow, instead of tasks that the submitter drives")
	return cmd
}

func (b *bench) submit(n api.NewTask) (plan, error) {
	body, err := encode(n)
	if err != nil {
		return plan{}, err
	}
	s := &script{}
	s.submit(n)
	return plan{baseline: s, prepare: func(ctx context.Context, r *rig) (turn, error) {
		return func(ctx context.Context) (*tally, error) {
			if n.Dispatch == api.DispatchAuto { // is refused while nobody serves the agent
				if err := r.registerWorker(ctx, workerID(0), 1); err != nil {
					return nil, err
				}
			}
			return b.load().run(ctx, r.target, post(body, func(string) {}))
		}, nil
	}}, nil
}

// post returns the operation of submitting a task, of whose id it tells.
func post(body []byte, submitted func(id string)) func(context.Context, *connection) error {
	return func(_ context.Context, c *connection) error {
		header, err := c.do(http.MethodPost, "/v1/tasks", body)
		if err == nil {
			submitted(idOf(header))
		}
		return err
	}
}
