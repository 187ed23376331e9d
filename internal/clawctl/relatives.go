package clawctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) retryCommand() *cobra.Command {
	var watch bool
	var key string
	cmd := &cobra.Command{
		Use:   "retry ID",
		Short: "Submit a task again that failed or was cancelled",
		Args:  exactly("the id of the task"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			var opts []api.SubmitOption
			if key != "" {
				opts = append(opts, api.WithIdempotencyKey(key))
			}
			task, err := client.RetryTask(ctx, args[0], opts...)
			if err != nil {
				return err
			}
			return c.submitted(ctx, client, task, watch)
		}),
	}
	cmd.Flags().StringVar(&key, "idempotency-key", "", "a `key` of your own: submits once, however often it is given")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "follow the task to its end, then print its output")
	return cmd
}

func (c *cli) tasksTreeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tree ID",
		Short: "Show a task with its parts, and theirs",
		Args:  exactly("the id of the task"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			tree, err := client.TaskTree(ctx, args[0])
			if err != nil {
				return err
			}
			return c.print(tree, func() {
				parts := map[string][]api.Task{}
				for _, t := range tree.Items[min(1, len(tree.Items)):] {
					parts[t.ParentTaskID] = append(parts[t.ParentTaskID], t)
				}
				var show func(t api.Task, depth int)
				show = func(t api.Task, depth int) {
					c.out.printf("%s%s %s %s\n", strings.Repeat("  ", depth), cleanLine(t.ID),
						c.out.style(statusStyle(t.Status), cleanLine(string(t.Status))), cleanLine(t.Description))
					for _, part := range parts[t.ID] {
						show(part, depth+1)
					}
					delete(parts, t.ID) // whatever a server says, each is shown once
				}
				for _, t := range tree.Items[:min(1, len(tree.Items))] {
					show(t, 0)
				}
				if tree.Truncated {
					c.err.printf("%s\n", c.err.style(dim, "There are more: look at the parts one by one."))
				}
			})
		}),
	}
}

func (c *cli) tasksCancelCommand() *cobra.Command {
	var f filterFlags
	one := c.each("cancel", "", "the id of a task, or flags that choose some", func(ctx context.Context, client *api.Client, id string) error {
		task, err := client.CancelTask(ctx, id)
		if err != nil {
			return err
		}
		return c.print(task, func() { c.out.printf("%s cancelled\n", cleanLine(task.ID)) })
	})
	cmd := &cobra.Command{
		Use:     "cancel [ID...]",
		Short:   "Cancel tasks and their parts, by their ids or by flags",
		Example: "  clawctl tasks cancel --label night=17 --status pending",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.given(cmd) {
				if err := one.Args(cmd, args); err != nil {
					return err
				}
				return one.RunE(cmd, args)
			}
			if len(args) > 0 {
				return usagef("flags choose among all tasks, but ids are given too")
			}
			filter, err := f.parse(c)
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.cancelChosen(cmd.Context(), client, filter)
		},
	}
	f.register(cmd)
	return cmd
}

// cancelChosen cancels what the filter chooses, a part at a time.
func (c *cli) cancelChosen(ctx context.Context, client *api.Client, filter api.TaskFilter) error {
	var all api.CancelledTasks
	for {
		done, err := client.CancelTasks(ctx, filter)
		all.Cancelled += done.Cancelled
		all.Denied, all.More = done.Denied, done.More
		if err != nil {
			c.err.printf("%d cancelled before this:\n", all.Cancelled)
			return err
		}
		if !done.More || done.Cancelled == 0 {
			break
		}
	}
	return c.print(all, func() {
		c.out.printf("%d cancelled\n", all.Cancelled)
		if all.Denied > 0 {
			c.err.printf("%d may not be cancelled by you.\n", all.Denied)
		}
	})
}
