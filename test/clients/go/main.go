// Command go talks to a server through the client that oapi-codegen makes from
// openapi.yaml, and fails where the two do not fit.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	// What client.gen.go imports, so that go.mod is the same with and without it.
	_ "github.com/oapi-codegen/runtime"
	openapi_types "github.com/oapi-codegen/runtime/types"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../../../openapi.yaml

func main() {
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string) error {
	client, err := NewClientWithResponses(url)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context, *ClientWithResponses) error
	}{
		{"a task is driven through its life", lifecycle},
		{"what is invalid is answered with a problem", problems},
		{"agents and skills are listed", registry},
		{"a task of an agent is streamed to its end", stream},
	} {
		if err := step.run(ctx, client); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func lifecycle(ctx context.Context, client *ClientWithResponses) error {
	key := "generated-go-client"
	body := NewTask{
		Description: "Implement user authentication",
		Input:       "Add JWT-based auth to the API",
		AgentId:     new("code-creator"),
		Dispatch:    new(NewTaskDispatchManual),
		Labels:      &map[string]string{"client": "go"},
		Metadata:    &map[string]any{"path": "."},
	}
	submitted, err := client.SubmitTaskWithResponse(ctx, &SubmitTaskParams{IdempotencyKey: &key}, body)
	if err != nil {
		return err
	}
	task := submitted.JSON201
	if task == nil || task.Status != TaskStatusPending || (*task.Labels)["client"] != "go" {
		return fmt.Errorf("submit: %s %s", submitted.Status(), submitted.Body)
	}
	again, err := client.SubmitTaskWithResponse(ctx, &SubmitTaskParams{IdempotencyKey: &key}, body)
	if err != nil {
		return err
	}
	if again.JSON201 == nil || again.JSON201.Id != task.Id {
		return fmt.Errorf("submit again: %s %s", again.Status(), again.Body)
	}
	for _, patch := range []TaskPatch{
		{Status: new(TaskPatchStatusPlanning)},
		{Status: new(TaskPatchStatusRunning), Progress: new(int64(50)), Message: new("half of it"), Data: &map[string]any{"files": 3}},
		{Status: new(TaskPatchStatusCompleted), Output: new("Authentication implemented")},
	} {
		updated, err := client.UpdateTaskWithResponse(ctx, task.Id, nil, patch)
		if err != nil {
			return err
		}
		if updated.JSON200 == nil || string(updated.JSON200.Status) != string(*patch.Status) {
			return fmt.Errorf("update to %s: %s %s", *patch.Status, updated.Status(), updated.Body)
		}
	}
	got, err := client.GetTaskWithResponse(ctx, task.Id)
	if err != nil {
		return err
	}
	if t := got.JSON200; t == nil || t.Output == nil || *t.Output != "Authentication implemented" || t.CompletedAt == nil {
		return fmt.Errorf("get: %s %s", got.Status(), got.Body)
	}
	listed, err := client.ListTasksWithResponse(ctx, &ListTasksParams{Label: &[]string{"client=go"}, Status: &[]string{"completed"}})
	if err != nil {
		return err
	}
	if l := listed.JSON200; l == nil || len(l.Items) != 1 || l.Items[0].Id != task.Id {
		return fmt.Errorf("list: %s %s", listed.Status(), listed.Body)
	}
	history, err := client.ListTaskEventsWithResponse(ctx, task.Id, nil)
	if err != nil {
		return err
	}
	if h := history.JSON200; h == nil || len(h.Items) < 4 || h.Items[0].Seq != 1 || h.Items[0].Status != EventStatusPending {
		return fmt.Errorf("history: %s %s", history.Status(), history.Body)
	}
	return nil
}

func problems(ctx context.Context, client *ClientWithResponses) error {
	invalid, err := client.SubmitTaskWithResponse(ctx, nil, NewTask{})
	if err != nil {
		return err
	}
	p := invalid.ApplicationproblemJSON422
	if p == nil || p.Status != http.StatusUnprocessableEntity || p.Errors == nil {
		return fmt.Errorf("a task without a description: %s %s", invalid.Status(), invalid.Body)
	}
	if !slices.ContainsFunc(*p.Errors, func(f ProblemField) bool { return f.Location == "body.description" }) {
		return fmt.Errorf("a task without a description: the field is not named: %s", invalid.Body)
	}
	missing, err := client.GetTaskWithResponse(ctx, openapi_types.UUID{15: 1})
	if err != nil {
		return err
	}
	if missing.ApplicationproblemJSON404 == nil {
		return fmt.Errorf("a task that is not there: %s %s", missing.Status(), missing.Body)
	}
	return nil
}

func registry(ctx context.Context, client *ClientWithResponses) error {
	agents, err := client.ListAgentsWithResponse(ctx)
	if err != nil {
		return err
	}
	if a := agents.JSON200; a == nil || !slices.ContainsFunc(a.Items, func(a Agent) bool { return a.Id == "architecture-advisor" && a.Available }) {
		return fmt.Errorf("agents: %s %s", agents.Status(), agents.Body)
	}
	skills, err := client.ListSkillsWithResponse(ctx)
	if err != nil {
		return err
	}
	if s := skills.JSON200; s == nil || len(s.Items) == 0 {
		return fmt.Errorf("skills: %s %s", skills.Status(), skills.Body)
	}
	return nil
}

func stream(ctx context.Context, client *ClientWithResponses) error {
	submitted, err := client.SubmitTaskWithResponse(ctx, nil, NewTask{
		Description: "Analyze project architecture",
		Input:       "Review the current codebase structure",
		AgentId:     new("architecture-advisor"),
	})
	if err != nil {
		return err
	}
	if submitted.JSON201 == nil {
		return fmt.Errorf("submit: %s %s", submitted.Status(), submitted.Body)
	}
	response, err := client.StreamTask(ctx, submitted.JSON201.Id, &StreamTaskParams{After: new("0")})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var last Event
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 2<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var event Event
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return err
		}
		if !event.Type.Valid() || !event.Status.Valid() || event.Seq != last.Seq+1 {
			return fmt.Errorf("after event %d came %s", last.Seq, data)
		}
		last = event
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if last.Status != EventStatusCompleted {
		return errors.New("the stream ended at status " + string(last.Status))
	}
	return nil
}
