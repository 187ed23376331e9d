package clawctl

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

var limitKinds = []string{"all", "project", "session", "agent"}

func (c *cli) limitsCommand() *cobra.Command {
	list := listing(c, "List how many tasks may run at once", "limits", everyOne(c, inOne((*api.Client).Limits)),
		func(all []api.Limit) any { return api.LimitList{Items: all} }, []string{"KIND", "OF", "RUNNING AT MOST", "BY"},
		func(l api.Limit) []string {
			return []string{string(l.Kind), l.Name, strconv.Itoa(l.MaxConcurrentTasks), l.UpdatedBy}
		})
	var name string
	set := &cobra.Command{
		Use:     "set KIND NUMBER",
		Short:   "Bound how many tasks run at once: of all, or of each project, session or agent",
		Example: "  clawctl limits set all 50\n  clawctl limits set project 10\n  clawctl limits set agent 2 --of code-creator",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || !slices.Contains(limitKinds, args[0]) {
				return usagef("this needs what to bound (%s) and a number", strings.Join(limitKinds, ", "))
			}
			return nil
		},
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return usagef("%q is no number of tasks", args[1])
			}
			l, err := client.PutLimit(ctx, api.LimitKind(args[0]), name, api.NewLimit{MaxConcurrentTasks: n})
			if err != nil {
				return err
			}
			return c.print(l, func() {
				c.out.printf("%s\n", cleanLine(limitText(l.Kind, l.Name)+": "+strconv.Itoa(l.MaxConcurrentTasks)))
			})
		}),
	}
	remove := &cobra.Command{
		Use: "delete KIND", Short: "Remove a limit", Args: exactly("what it is of: " + strings.Join(limitKinds, ", ")),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.DeleteLimit(ctx, api.LimitKind(args[0]), name); err != nil {
				return err
			}
			return c.print(struct{}{}, func() { c.out.printf("%s: no limit\n", cleanLine(limitText(api.LimitKind(args[0]), name))) })
		}),
	}
	for _, cmd := range []*cobra.Command{set, remove} {
		cmd.Flags().StringVar(&name, "of", "", "`id` of the project, session or agent (default each that has no limit of its own)")
	}
	return group("limits", "Bound what runs at once", list, set, remove)
}

func limitText(kind api.LimitKind, name string) string {
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
