// Task-lifecycle drives tasks through their life by hand; see README.md.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/coderclaw/runtime/api"
)

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	client, err := api.NewClient(
		cmp.Or(os.Getenv("CODERCLAW_URL"), "http://127.0.0.1:7433"),
		api.WithToken(os.Getenv("CODERCLAW_TOKEN")),
	)
	check(err)
	d := driver{client: client}
	d.feature = d.submit(ctx, "Feature development", "architecture-advisor")
	fmt.Println("Feature development:", d.feature)

	fmt.Println("\n1. Design API: progress until it is done")
	design := d.submit(ctx, "Design API", "architecture-advisor")
	d.update(ctx, design, api.TaskPatch{Status: new(api.TaskPlanning)})
	d.update(ctx, design, api.TaskPatch{Status: new(api.TaskRunning)})
	for _, percent := range []int{25, 50, 75, 100} {
		d.update(ctx, design, api.TaskPatch{Progress: &percent})
	}
	d.update(ctx, design, api.TaskPatch{Status: new(api.TaskCompleted), Output: new("Six routes, one document")})

	fmt.Println("\n2. Implement code: waits for an answer")
	implement := d.submit(ctx, "Implement code", "code-creator")
	d.update(ctx, implement, api.TaskPatch{Status: new(api.TaskPlanning)})
	d.update(ctx, implement, api.TaskPatch{Status: new(api.TaskRunning), Progress: new(30)})
	d.update(ctx, implement, api.TaskPatch{Status: new(api.TaskWaiting), WaitingReason: api.WaitingInput, Message: "Which chart library?"})
	d.update(ctx, implement, api.TaskPatch{Status: new(api.TaskRunning), Message: "The one we have"})
	d.update(ctx, implement, api.TaskPatch{Status: new(api.TaskCompleted), Progress: new(100), Output: new("Dashboard implemented")})

	fmt.Println("\n3. Write tests: fails")
	tests := d.submit(ctx, "Write tests", "test-generator")
	d.update(ctx, tests, api.TaskPatch{Status: new(api.TaskPlanning)})
	d.update(ctx, tests, api.TaskPatch{Status: new(api.TaskRunning), Progress: new(20)})
	d.update(ctx, tests, api.TaskPatch{Error: new("The test framework is not configured")})

	fmt.Println("\n4. Write documentation: a step that is not allowed")
	documentation := d.submit(ctx, "Write documentation", "documentation-agent")
	_, err = client.UpdateTask(ctx, documentation, api.TaskPatch{Status: new(api.TaskCompleted)})
	var refusal *api.Error
	if !errors.As(err, &refusal) {
		log.Fatal("the server let a pending task complete: ", err)
	}
	fmt.Println("   Refused:", refusal.Detail)

	fmt.Println("\n5. Feature development: cancelled, with what is open below it")
	cancelled, err := client.CancelTask(ctx, d.feature)
	check(err)
	show(cancelled)

	fmt.Println("\n6. What became of the parts, newest first")
	for part, err := range client.AllTasks(ctx, api.TaskFilter{ParentTaskID: d.feature}) {
		check(err)
		fmt.Printf("   %s: %s\n", part.Description, part.Status)
	}

	fmt.Println("\n7. The history of \"Implement code\"")
	for event, err := range client.TaskEvents(ctx, implement) {
		check(err)
		fmt.Printf("   %d %s: %s", event.Seq, event.Type, event.Status)
		if event.Message != "" {
			fmt.Print(", ", event.Message)
		}
		fmt.Println()
	}
}

// driver drives the parts of a feature.
type driver struct {
	client  *api.Client
	feature string // the id of the task that the parts belong to
}

func (d driver) submit(ctx context.Context, description, agent string) (id string) {
	task, err := d.client.SubmitTask(ctx, api.NewTask{
		Description:  description,
		Input:        "Build a dashboard for the team",
		AgentID:      agent,
		Dispatch:     api.DispatchManual,
		ParentTaskID: d.feature,
	})
	check(err)
	return task.ID
}

func (d driver) update(ctx context.Context, id string, change api.TaskPatch) {
	task, err := d.client.UpdateTask(ctx, id, change)
	check(err)
	show(task)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func show(t api.Task) {
	reason := ""
	if t.WaitingReason != "" {
		reason = fmt.Sprintf(" (%s)", t.WaitingReason)
	}
	fmt.Printf("   Status: %s%s, Progress: %d%%\n", t.Status, reason, t.Progress)
	if t.Error != "" {
		fmt.Println("   Error:", t.Error)
	}
	if t.Output != "" {
		fmt.Println("   Output:", t.Output)
	}
}
