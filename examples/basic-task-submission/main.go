// Basic-task-submission submits a task, follows it to its end and prints its
// report; see README.md.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"

	"github.com/coderclaw/runtime/api"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
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
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("Runtime: mode %s, version %s, %d active of %d tasks\n", status.Mode, status.Version, status.ActiveTasks, status.TotalTasks)

	task, err := client.SubmitTask(ctx, api.NewTask{
		Description: "Analyze project architecture",
		Input:       "Review the current codebase structure",
		AgentID:     "architecture-advisor",
	})
	if err != nil {
		return err
	}
	fmt.Println("Task submitted:", task.ID)

	progress, beginning := 0, int64(0)
	for update, err := range client.WatchTask(ctx, task.ID, api.WatchOptions{After: &beginning}) {
		if err != nil {
			return err
		}
		if update.Progress != nil {
			progress = *update.Progress
		}
		fmt.Printf("Status: %s, Progress: %d%%\n", update.Status, progress)
	}

	if task, err = client.Task(ctx, task.ID); err != nil {
		return err
	}
	fmt.Println("Current status:", task.Status)
	agents, err := client.Agents(ctx)
	if err != nil {
		return err
	}
	fmt.Println("Available agents:", list(agents, func(a api.Agent) string { return a.ID }))
	skills, err := client.Skills(ctx)
	if err != nil {
		return err
	}
	fmt.Println("Available skills:", list(skills, func(s api.Skill) string { return s.ID }))
	fmt.Println()
	if task.Status != api.TaskCompleted {
		return fmt.Errorf("the task has %s: %s", task.Status, task.Error)
	}
	fmt.Println(task.Output)
	return nil
}

func list[T any](items []T, id func(T) string) string {
	ids := make([]string, len(items))
	for i, item := range items {
		ids[i] = id(item)
	}
	return strings.Join(ids, ", ")
}
