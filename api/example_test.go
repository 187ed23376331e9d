package api_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/coderclaw/runtime/api"
)

// Submit a task, follow it to its end and print what came out of it.
func Example() {
	ctx := context.Background()
	client, err := api.NewClient(exampleServer()) // usually http://127.0.0.1:7433
	if err != nil {
		log.Fatal(err)
	}
	task, err := client.SubmitTask(ctx, api.NewTask{
		Description: "Analyze project architecture",
		Input:       "Review the current codebase structure",
		AgentID:     "architecture-advisor",
	})
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range client.WatchTask(ctx, task.ID, api.WatchOptions{After: new(int64)}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Seq, event.Status, event.Message)
	}
	if task, err = client.Task(ctx, task.ID); err != nil {
		log.Fatal(err)
	}
	fmt.Println(task.Output)
	// Output:
	// 1 pending submitted
	// 2 running claimed
	// 3 running reading 214 files
	// 4 completed done
	// # Three layers, one cycle
}

// A program drives a task that it submitted with DispatchManual by itself.
func ExampleClient_UpdateTask() {
	ctx := context.Background()
	client, err := api.NewClient(exampleServer())
	if err != nil {
		log.Fatal(err)
	}
	running, half := api.TaskRunning, 50
	task, err := client.UpdateTask(ctx, taskID, api.TaskPatch{Status: &running, Progress: &half, Message: "tests pass"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(task.Status, task.Progress)
	// Output: running 50
}

func ExampleClient_AllTasks() {
	client, err := api.NewClient(exampleServer())
	if err != nil {
		log.Fatal(err)
	}
	filter := api.TaskFilter{Status: []api.TaskStatus{api.TaskFailed}, Labels: map[string]string{"team": "platform"}}
	for task, err := range client.AllTasks(context.Background(), filter) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(task.Description, "-", task.Error)
	}
	// Output:
	// Write tests - exit status 1
	// Review the diff - timed out
}

// An answer that is no success is an *api.Error.
func ExampleError() {
	client, err := api.NewClient(exampleServer())
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.CancelTask(context.Background(), taskID)
	var answer *api.Error
	if errors.As(err, &answer) && answer.Slug() == "invalid-transition" {
		fmt.Println("too late:", answer.Detail)
	}
	// Output: too late: a completed task cannot be cancelled
}

// exampleServer starts a server that knows just enough for the examples, and
// returns its address.
func exampleServer() string {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusCreated, api.Task{ID: taskID, Status: api.TaskPending})
	})
	mux.HandleFunc("GET /v1/tasks/{id}", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, api.Task{ID: taskID, Status: api.TaskCompleted, Output: "# Three layers, one cycle"})
	})
	mux.HandleFunc("GET /v1/tasks/{id}/stream", func(w http.ResponseWriter, r *http.Request) {
		var events []api.Event
		for i, said := range []string{"pending submitted", "running claimed", "running reading 214 files", "completed done"} {
			status, message, _ := strings.Cut(said, " ")
			events = append(events, api.Event{Type: api.EventStatus, TaskID: taskID, Seq: int64(i + 1), Status: api.TaskStatus(status), Timestamp: start, Message: message})
		}
		send(w, "retry: 2000\n\n"+frames(events...))
	})
	mux.HandleFunc("PATCH /v1/tasks/{id}", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, api.Task{ID: taskID, Status: api.TaskRunning, Progress: 50})
	})
	mux.HandleFunc("POST /v1/tasks/{id}/cancel", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"type":"/problems/invalid-transition","title":"Conflict","status":409,"detail":"a completed task cannot be cancelled"}`)
	})
	mux.HandleFunc("GET /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			writeJSON(w, http.StatusOK, api.TaskList{Items: []api.Task{{Description: "Write tests", Error: "exit status 1"}}, NextCursor: "2"})
			return
		}
		writeJSON(w, http.StatusOK, api.TaskList{Items: []api.Task{{Description: "Review the diff", Error: "timed out"}}})
	})
	return httptest.NewServer(mux).URL
}
