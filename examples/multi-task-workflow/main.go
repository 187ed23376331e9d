// Multi-task-workflow has a feature made by several agents, one after the
// other; see README.md.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/coderclaw/runtime/api"
)

func main() {
	log.SetFlags(0)
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	client, err := api.NewClient(
		cmp.Or(os.Getenv("CODERCLAW_URL"), "http://127.0.0.1:7433"),
		api.WithToken(os.Getenv("CODERCLAW_TOKEN")),
	)
	if err != nil {
		return err
	}
	feature, err := client.SubmitTask(ctx, api.NewTask{
		Description: "Feature development", Input: "Build new dashboard feature", AgentID: "architecture-advisor", Dispatch: api.DispatchManual,
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s\n", feature.Description, feature.ID)
	if err := develop(ctx, client, feature); err != nil {
		_, _ = client.UpdateTask(ctx, feature.ID, api.TaskPatch{Error: new(err.Error())}) // what went wrong counts
		return err
	}

	tree, err := client.TaskTree(ctx, feature.ID)
	if err != nil {
		return err
	}
	fmt.Println()
	for _, task := range tree.Items {
		if task.ParentTaskID != "" {
			fmt.Print("  ")
		}
		fmt.Printf("%s: %s\n", task.Description, task.Status)
	}
	return nil
}

// develop submits the parts, each after the one that it needs, and waits for
// them.
func develop(ctx context.Context, client *api.Client, feature api.Task) error {
	var parts []api.Task
	for _, part := range []api.NewTask{
		{Description: "Design API", Input: "Design RESTful API for dashboard", AgentID: "architecture-advisor"},
		{Description: "Implement code", Input: "Implement dashboard backend", AgentID: "code-creator"},
		{Description: "Write tests", Input: "Create test suite for dashboard", AgentID: "test-generator"},
	} {
		part.ParentTaskID = feature.ID
		if len(parts) > 0 {
			part.DependsOn = []string{parts[len(parts)-1].ID}
		}
		task, err := client.SubmitTask(ctx, part)
		if err != nil {
			return err
		}
		parts = append(parts, task)
	}
	for _, change := range []api.TaskPatch{{Status: new(api.TaskPlanning)}, {Status: new(api.TaskWaiting), WaitingReason: api.WaitingDependency}} {
		if _, err := client.UpdateTask(ctx, feature.ID, change); err != nil {
			return err
		}
	}
	for _, part := range parts {
		for _, err := range client.WatchTask(ctx, part.ID, api.WatchOptions{}) {
			if err != nil {
				return err
			}
		}
		done, err := client.Task(ctx, part.ID)
		if err != nil {
			return err
		}
		fmt.Printf("  %s: %s by %s\n", done.Description, done.Status, done.AgentID)
		if done.Status != api.TaskCompleted {
			return fmt.Errorf("%s: %s", done.Description, done.Error)
		}
	}
	for _, change := range []api.TaskPatch{{Status: new(api.TaskRunning)}, {Status: new(api.TaskCompleted), Progress: new(100), Output: new("All parts are there")}} {
		if _, err := client.UpdateTask(ctx, feature.ID, change); err != nil {
			return err
		}
	}
	return nil
}
