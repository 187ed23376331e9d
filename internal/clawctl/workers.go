package clawctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) workersCommand() *cobra.Command {
	list := listing(c, "List workers, with their load", "workers", everyOne(c, inOne((*api.Client).Workers)), func(all []api.Worker) any { return api.WorkerList{Items: all} },
		[]string{"ID", "STATE", "RUNNING", "LAST SEEN", "LABELS", "AGENTS", "PROJECTS", "VERSION"},
		func(w api.Worker) []string {
			return []string{
				w.ID, workerState(w), fmt.Sprintf("%d/%d", w.Running, w.Capacity), c.ago(&w.LastSeenAt), labelText(w.Labels),
				anyOf(w.Agents), anyOf(w.Projects), w.Version,
			}
		})
	drain := c.each("drain ID...", "Have workers finish what they run, and stop", "the id of a worker", func(ctx context.Context, client *api.Client, id string) error {
		if err := client.DrainWorker(ctx, id); err != nil {
			return err
		}
		return c.print(drained{id}, func() { c.out.printf("%s takes no more tasks\n", cleanLine(id)) })
	})
	return group("workers", "Look after the workers that run tasks", list, drain)
}

type drained struct {
	ID string `json:"id"`
}

func workerState(w api.Worker) string {
	switch {
	case !w.Present:
		return "gone"
	case w.Draining:
		return "draining"
	}
	return "ready"
}

// anyOf names a choice that is free if there is none.
func anyOf(names []string) string {
	if names == nil {
		return "any"
	}
	return strings.Join(names, ",")
}

func (c *cli) workerCommand() *cobra.Command {
	var scope api.WorkerScope
	var name string
	var labels []string
	expires := duration{90 * 24 * time.Hour}
	token := &cobra.Command{
		Use:     "token",
		Short:   "Make the credential of a worker, and show it this once",
		Long:    "Make the credential of a worker, and show it this once. It is good for running\ntasks and for nothing else; without a project, an agent or a label it is for all\ntasks.",
		Example: "  clawctl worker token --projects web --expires 30d > worker.token\n  CODERCLAW_TOKEN_FILE=worker.token coderclawd worker --url https://claw.example.com",
		Args:    none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) (err error) {
			if scope.Labels, err = parseLabels(labels); err != nil {
				return err
			}
			k, err := client.CreateAPIKey(ctx, api.NewAPIKey{Name: name, Worker: &scope, ExpiresSeconds: expires.seconds()})
			if err != nil {
				return err
			}
			return c.printKey(k)
		}),
	}
	flags := token.Flags()
	flags.StringVar(&name, "name", "worker", "what people call it")
	flags.StringSliceVar(&scope.Projects, "projects", nil, "`ids` of the only projects whose tasks it may run")
	flags.StringSliceVar(&scope.Agents, "agents", nil, "`ids` of the only agents that it may run")
	flags.StringArrayVar(&labels, "label", nil, "`key=value` that a task must carry; repeat it for more")
	flags.Var(&expires, "expires", "how long it is good for, at most a year")
	return group("worker", "Let machines run tasks", token)
}
