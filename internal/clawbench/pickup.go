package clawbench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) pickupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pickup",
		Short: "Submit tasks to an idle server, and time the first line of the agent",
		Long: `Submit tasks, one after the other, to a server that has nothing else to do, and
time from before each request what a follower sees: that a worker has claimed
the task, the first line that its agent writes, and its end. The worker is a
process of its own, that reaches the server over HTTP; the agent is the program
echo.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.run(cmd.Context(), "pickup", "tasks", nil, b.pickup)
		},
	}
	b.addFlags(cmd, 10*time.Second)
	b.addClientsFlag(cmd, 1)
	return cmd
}

func (b *bench) pickup(ctx context.Context, r *rig, res *result) error {
	const agent = "clawbench-echo"
	if err := r.employ(ctx, 4, agent, "echo", "here I am"); err != nil {
		return err
	}
	n := payload()
	n.AgentID, n.Dispatch = agent, api.DispatchAuto
	body, err := encode(n)
	if err != nil {
		return err
	}
	f, err := r.openStream(ctx, "/v1/stream")
	if err != nil {
		return err
	}
	defer f.close()
	claimed, line, end := newTally(b.duration), newTally(b.duration), newTally(b.duration)
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	for began := time.Now(); time.Since(began) < warmUp+b.duration; {
		start := time.Now()
		if _, err := c.do(http.MethodPost, "/v1/tasks", body); err != nil {
			return err
		}
		seen := func(t *tally) { t.add(time.Since(began), time.Since(start)) }
		for first, status := true, api.TaskPending; !status.Terminal(); {
			kind, e, err := f.event()
			if err != nil {
				return err
			}
			switch api.EventType(kind) {
			case api.EventStatus:
				if status = e.Status; status == api.TaskPlanning {
					seen(claimed)
				}
				if status == api.TaskFailed {
					return fmt.Errorf("task %s failed: %s", e.TaskID, e.Message)
				}
			case api.EventOutput, api.EventLog:
				if first {
					first = false
					seen(line)
				}
			}
		}
		seen(end)
		// The worker asks for more meanwhile: an idle server has its claim waiting.
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	for _, phase := range []struct {
		name string
		*tally
	}{{"claimed", claimed}, {"first line", line}, {"completed", end}} {
		figures, err := phase.figures()
		if err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
		res.Rows = append(res.Rows, row{Name: phase.name, figures: figures})
	}
	return nil
}

// event reads the next event of a stream, which must fit the buffer.
func (f *follower) event() (kind string, e api.Event, err error) {
	kind, data, err := f.read()
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil {
		return "", e, fmt.Errorf("read an event: %w", err)
	}
	return kind, e, nil
}
