package clawctl

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

var limitKinds = []string{"all", "project", "session", "agent"}

func (c *cli) limitsCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List how many tasks may run at once, and what is paused", Args: none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			all, err := client.Limits(ctx)
			if err != nil {
				return err
			}
			return c.print(all, func() {
				t := &table{heads: []string{"KIND", "OF", "AT MOST", "BY", "BECAUSE"}}
				for _, l := range all.Items {
					t.row(string(l.Kind), l.Name, limitText(l), l.UpdatedBy, "")
				}
				for _, p := range all.Pauses {
					t.row(string(p.Kind), p.Name, "paused", p.PausedBy, p.Reason)
				}
				c.out.table(t)
			})
		}),
	}
	var name string
	var rate api.Rate
	var per duration
	set := &cobra.Command{
		Use:   "set KIND [NUMBER]",
		Short: "Bound how many tasks run at once: of all, or of each project, session or agent",
		Long: `Bound how many tasks run at once: of all, or of each project, session or agent.
Of one agent also how many are begun in a time. What is not named has no bound.`,
		Example: "  clawctl limits set all 50\n  clawctl limits set project 10\n  clawctl limits set agent 2 --of code-creator --rate 30 --per 1m",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 || !slices.Contains(limitKinds, args[0]) {
				return usagef("this needs what to bound (%s) and a number", strings.Join(limitKinds, ", "))
			}
			return nil
		},
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			var l api.NewLimit
			if len(args) == 2 {
				n, err := strconv.Atoi(args[1])
				if err != nil || n < 0 {
					return usagef("%q is no number of tasks", args[1])
				}
				l.MaxConcurrentTasks = &n
			}
			if rate.Tasks > 0 {
				rate.PerSeconds = per.seconds()
				l.Rate = &rate
			}
			if l == (api.NewLimit{}) {
				return usagef("say how many tasks may run at once, or --rate")
			}
			put, err := client.PutLimit(ctx, api.LimitKind(args[0]), name, l)
			if err != nil {
				return err
			}
			return c.print(put, func() {
				c.out.printf("%s\n", cleanLine(limitOf(put.Kind, put.Name)+": "+limitText(put)))
			})
		}),
	}
	set.Flags().IntVar(&rate.Tasks, "rate", 0, "of an agent: begin so many tasks, on average, …")
	set.Flags().Var(&per, "per", "… in so long, in whole seconds (default 1s)")
	set.Flags().IntVar(&rate.Burst, "burst", 0, "and so many at once after a time without any (default as --rate)")
	per.d = time.Second
	remove := &cobra.Command{
		Use: "delete KIND", Short: "Remove a limit", Args: exactly("what it is of: " + strings.Join(limitKinds, ", ")),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.DeleteLimit(ctx, api.LimitKind(args[0]), name); err != nil {
				return err
			}
			return c.print(struct{}{}, func() { c.out.printf("%s: no limit\n", cleanLine(limitOf(api.LimitKind(args[0]), name))) })
		}),
	}
	for _, cmd := range []*cobra.Command{set, remove} {
		cmd.Flags().StringVar(&name, "of", "", "`id` of the project, session or agent (default each that has no limit of its own)")
	}
	return group("limits", "Bound what runs at once", list, set, remove)
}

// pauseCommands are those that hold back the tasks of agents, or of sessions, and
// let them go.
func (c *cli) pauseCommands(kind api.PauseKind) []*cobra.Command {
	what := "the id of the " + string(kind)
	var reason string
	pause := &cobra.Command{
		Use: "pause ID", Short: "Begin no more of its tasks until resumed; what runs goes on", Args: exactly(what),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			p, err := client.Pause(ctx, kind, args[0], api.NewPause{Reason: reason})
			if err != nil {
				return err
			}
			return c.print(p, func() { c.out.printf("%s paused\n", cleanLine(p.Name)) })
		}),
	}
	pause.Flags().StringVar(&reason, "reason", "", "shown with what is held back")
	resume := &cobra.Command{
		Use: "resume ID", Short: "Begin its tasks again", Args: exactly(what),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.Resume(ctx, kind, args[0]); err != nil {
				return err
			}
			return c.print(struct{}{}, func() { c.out.printf("%s goes on\n", cleanLine(args[0])) })
		}),
	}
	return []*cobra.Command{pause, resume}
}

func limitText(l api.Limit) string {
	var parts []string
	if l.MaxConcurrentTasks != nil {
		parts = append(parts, strconv.Itoa(*l.MaxConcurrentTasks)+" at once")
	}
	if r := l.Rate; r != nil {
		parts = append(parts, strconv.Itoa(r.Tasks)+" in "+(time.Duration(r.PerSeconds)*time.Second).String())
	}
	return strings.Join(parts, ", ")
}

func limitOf(kind api.LimitKind, name string) string {
	switch {
	case name != "":
		return string(kind) + " " + name
	case kind == api.LimitAll:
		return "all"
	}
	return "each " + string(kind)
}

// inOne makes a list that comes as a whole one to walk through.
func inOne[T any](all func(*api.Client, context.Context) ([]T, error)) func(*api.Client, context.Context) iter.Seq2[T, error] {
	return func(client *api.Client, ctx context.Context) iter.Seq2[T, error] {
		return func(yield func(T, error) bool) {
			items, err := all(client, ctx)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, it := range items {
				if !yield(it, nil) {
					return
				}
			}
		}
	}
}
