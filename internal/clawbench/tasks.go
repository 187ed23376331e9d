package clawbench

import (
	"context"
	"errors"
	"fmt"
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
				n.Dispatch, n.RunAfter = api.DispatchAuto, &later
			}
			return b.run(cmd.Context(), func(ctx context.Context, r *rig) (result, error) {
				return b.submit(ctx, r, n)
			})
		},
	}
	b.addFlags(cmd)
	b.addBaselineFlags(cmd)
	cmd.Flags().BoolVar(&auto, "auto", false, "submit tasks for workers, due tomorrow, instead of tasks that the submitter drives")
	return cmd
}

func (b *bench) submit(ctx context.Context, r *rig, n api.NewTask) (result, error) {
	body, err := encode(n)
	if err != nil {
		return result{}, err
	}
	s := &script{}
	s.submit(n)
	return b.inTurns(ctx, r, "submit", s, func(c *connection) error {
		_, err := c.do(http.MethodPost, "/v1/tasks", body)
		return err
	})
}

func (b *bench) lifecycleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lifecycle",
		Short: "Submit tasks and drive each to its end",
		Long: `Submit tasks and drive each to its end: POST /v1/tasks, then PATCH to planning,
to running, four times with progress, and to completed with an output. A figure
is about the eight requests together.

The baseline runs the server's statements for them, each in a transaction of its
own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.run(cmd.Context(), b.lifecycle)
		},
	}
	b.addFlags(cmd)
	b.addBaselineFlags(cmd)
	return cmd
}

// steps are what happens to a task after it was submitted.
func steps() []api.TaskPatch {
	all := []api.TaskPatch{{Status: new(api.TaskPlanning)}, {Status: new(api.TaskRunning)}}
	for percent := 20; percent <= 80; percent += 20 {
		all = append(all, api.TaskPatch{Progress: new(percent), Message: "read a few more files"})
	}
	return append(all, api.TaskPatch{
		Status: new(api.TaskCompleted), Progress: new(100),
		Output: new("The change renames a field. Nothing breaks; a test for the old name is missing."),
	})
}

func (b *bench) lifecycle(ctx context.Context, r *rig) (result, error) {
	n := payload()
	s := &script{}
	s.submit(n)
	submit, err := encode(n)
	if err != nil {
		return result{}, err
	}
	var updates [][]byte
	for _, p := range steps() {
		s.update(p)
		body, err := encode(p)
		if err != nil {
			return result{}, err
		}
		updates = append(updates, body)
	}
	return b.inTurns(ctx, r, "lifecycle", s, func(c *connection) error {
		header, err := c.do(http.MethodPost, "/v1/tasks", submit)
		if err != nil {
			return err
		}
		path := header.Get("Location")
		for _, body := range updates {
			if _, err := c.do(http.MethodPatch, path, body); err != nil {
				return err
			}
		}
		return nil
	})
}

// inTurns measures the server and the baseline in turns, each first in every
// other round.
func (b *bench) inTurns(ctx context.Context, r *rig, benchmark string, s *script, operate func(*connection) error) (result, error) {
	var peer *pgbench
	if b.baseline == withPgbench {
		var err error
		if peer, err = newPgbench(ctx, r); errors.Is(err, errNoPgbench) {
			b.say("%v", err)
		} else if err != nil {
			return result{}, err
		}
	}
	rounds := make([]round, b.rounds)
	for i := range rounds {
		now := &rounds[i]
		turns := []func() error{func() error {
			samples, err := load(ctx, b.clients, b.duration, r.target, operate)
			if err != nil {
				return err
			}
			now.server, err = sumUp(samples, b.duration)
			return err
		}}
		if peer != nil {
			turns = append(turns, func() error {
				samples, err := peer.run(ctx, s, b.clients, b.duration)
				if err != nil {
					return err
				}
				f, err := sumUp(samples, b.duration)
				now.baseline = &f
				return err
			})
		}
		for j := range turns {
			if err := turns[(i+j)%len(turns)](); err != nil {
				return result{}, err
			}
		}
		b.say("round %d of %d: %s", i+1, b.rounds, now)
	}
	return resultOf(benchmark, "tasks", rounds), nil
}

func (r *round) String() string {
	if r.baseline == nil {
		return fmt.Sprintf("%.0f/s", r.server.perSecond)
	}
	return fmt.Sprintf("%.0f/s, pgbench %.0f/s, ratio %.2f", r.server.perSecond, r.baseline.perSecond, r.ratio())
}
