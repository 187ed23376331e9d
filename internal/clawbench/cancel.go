package clawbench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel",
		Short: "Cancel tasks whose agents run, and time until their processes are gone",
		Long: `Cancel tasks whose agents run, and time from before each request until all their
processes are gone: a shell with three children and a grandchild, of which one
child ignores SIGTERM. The worker is a process of its own, that reaches the
server over HTTP; each client has one task at a time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if runtime.GOOS != "linux" {
				return errors.New("processes are looked for in /proc, which only Linux has")
			}
			return b.run(cmd.Context(), "cancel", "tasks", nil, b.cancel)
		},
	}
	b.addFlags(cmd, 10*time.Second)
	b.addClientsFlag(cmd, 8)
	return cmd
}

// familyScript tells its process id, which is that of its session.
const familyScript = `sleep 600 & (trap "" TERM; sleep 600) & (sleep 600 & wait) & echo $$; wait`

// familySize is how many processes it makes, where the shell makes none that it
// can do without.
const familySize = 5

func (b *bench) cancel(ctx context.Context, r *rig, res *result) error {
	const agent = "clawbench-family"
	if err := r.employ(ctx, b.clients, agent, "sh", "-c", familyScript); err != nil {
		return err
	}
	n := payload()
	n.AgentID, n.Dispatch = agent, api.DispatchAuto
	body, err := encode(n)
	if err != nil {
		return err
	}
	g, working := errgroup.WithContext(ctx)
	tallies := make([]*tally, b.clients)
	began := time.Now()
	for i := range tallies {
		tallies[i] = newTally(b.duration)
		g.Go(func() error {
			c, err := r.dial(working)
			if err != nil {
				return err
			}
			defer c.close()
			for time.Since(began) < warmUp+b.duration {
				header, err := c.do(http.MethodPost, "/v1/tasks", body)
				if err != nil {
					return err
				}
				took, err := r.cancelOnceRunning(working, c, idOf(header))
				if err != nil {
					return err
				}
				tallies[i].add(time.Since(began), took)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, t := range tallies[1:] {
		tallies[0].merge(t)
	}
	f, err := tallies[0].figures()
	if err != nil {
		return err
	}
	res.Rows = append(res.Rows, row{Name: "processes gone", figures: f})
	res.note("p95Ms", tallies[0].at(95), "ms until the processes are gone")
	return nil
}

// cancelOnceRunning waits for the agent's first line, cancels the task and
// returns how long it took until its processes were gone.
func (r *rig) cancelOnceRunning(ctx context.Context, c *connection, id string) (time.Duration, error) {
	f, err := r.openStream(ctx, "/v1/tasks/"+id+"/stream?after=0")
	if err != nil {
		return 0, err
	}
	defer f.close()
	session := 0
	for session == 0 {
		kind, e, err := f.event()
		switch {
		case err != nil:
			return 0, err
		case e.Status.Terminal():
			return 0, fmt.Errorf("task %s is %s: %s", id, e.Status, e.Message)
		case api.EventType(kind) == api.EventOutput || api.EventType(kind) == api.EventLog:
			if session, err = strconv.Atoi(strings.TrimSpace(e.Message)); err != nil {
				return 0, fmt.Errorf("the agent of task %s said %q", id, e.Message)
			}
		}
	}
	var family []stat
	for len(family) < familySize {
		if !sleep(ctx, time.Millisecond) {
			return 0, ctx.Err()
		}
		family = processes(func(s stat) bool { return s.session == session })
	}
	start := time.Now()
	if _, err := c.do(http.MethodPost, "/v1/tasks/"+id+"/cancel", []byte("{}")); err != nil {
		return 0, err
	}
	for slices.ContainsFunc(family, func(s stat) bool { return alive(s.pid) }) {
		if time.Since(start) > time.Minute {
			return 0, fmt.Errorf("processes of task %s still run a minute after it was cancelled", id)
		}
		if !sleep(ctx, time.Millisecond) {
			return 0, ctx.Err()
		}
	}
	return time.Since(start), nil
}
