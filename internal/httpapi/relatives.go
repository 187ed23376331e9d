package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// Relatives is the part of the task engine for several tasks at once: retries,
// trees and what a filter chooses.
type Relatives interface {
	Retry(ctx context.Context, c policy.Caller, id uuid.UUID, key string) (task.Task, error)
	Tree(ctx context.Context, c policy.Caller, id uuid.UUID) (tasks []task.Task, more bool, err error)
	CancelAll(ctx context.Context, c policy.Caller, f task.Filter) (task.Cancellation, error)
}

// cancelWait is how long it may take to cancel as many tasks as one request
// cancels, besides the usual.
const cancelWait = 20 * time.Second

func (s *Server) registerRelatives() {
	handle(s, operation{
		id: "retryTask", action: "task.submit", method: http.MethodPost, path: "/v1/tasks/{id}/retry", permission: policy.TaskSubmit, tag: "Tasks",
		summary: "Submit a task again that failed or was cancelled", status: http.StatusCreated,
		detail: "The new task is like the first, and each names the other: retryOf, retriedBy. A task is retried once; then its retry is.",
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.retryTask)
	handle(s, operation{
		id: "getTaskTree", action: "task.read", method: http.MethodGet, path: "/v1/tasks/{id}/tree", permission: policy.TaskRead, tag: "Tasks",
		summary: "Get a task and its descendants", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getTaskTree)
	handle(s, operation{
		id: "cancelTasks", action: "task.cancel", method: http.MethodPost, path: "/v1/tasks/cancel", permission: policy.TaskCancel, tag: "Tasks", wait: cancelWait,
		summary: "Cancel the open tasks that a filter chooses", errors: []int{http.StatusUnprocessableEntity},
		detail: "The filter is that of the list of tasks, and must choose something. At most 500 are looked at, newest first; their open descendants are cancelled too.",
	}, s.cancelTasks)
}

func (s *Server) retryTask(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	IdempotencyInput
}) (*createdOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	t, err := s.tasks.Retry(ctx, c, id, in.Key)
	if err != nil {
		return nil, err
	}
	return created(t), nil
}

func (s *Server) getTaskTree(ctx context.Context, c policy.Caller, in *IDInput) (*struct{ Body api.TaskTree }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	tasks, more, err := s.tasks.Tree(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &struct{ Body api.TaskTree }{api.TaskTree{Items: wireTasks(tasks), Truncated: more}}, nil
}

func (s *Server) cancelTasks(ctx context.Context, c policy.Caller, in *FilterInput) (*struct{ Body api.CancelledTasks }, error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	done, err := s.tasks.CancelAll(ctx, c, f)
	if err != nil {
		return nil, err
	}
	return &struct{ Body api.CancelledTasks }{api.CancelledTasks{Cancelled: done.Count, Denied: done.Denied, More: done.More}}, nil
}
