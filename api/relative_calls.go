package api

import (
	"context"
	"net/http"
)

// RetryTask submits a task again that failed or was cancelled, and returns the
// new one.
func (c *Client) RetryTask(ctx context.Context, id string, opts ...SubmitOption) (Task, error) {
	path, err := item("/v1/tasks", id, "/retry")
	if err != nil {
		return Task{}, err
	}
	var out Task
	return out, c.do(ctx, call{method: http.MethodPost, path: path, header: submitHeader(opts), out: &out})
}

// TaskTree returns a task and its descendants, those nearest to it first.
func (c *Client) TaskTree(ctx context.Context, id string) (TaskTree, error) {
	var out TaskTree
	return out, c.get(ctx, "/v1/tasks", id, "/tree", nil, &out)
}

// CancelTasks cancels open tasks that f chooses, newest first, as many as the
// server does at once. Its Limit and Cursor do not count.
func (c *Client) CancelTasks(ctx context.Context, f TaskFilter) (CancelledTasks, error) {
	f.Limit, f.Cursor = 0, ""
	var out CancelledTasks
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/tasks/cancel", query: f.query(), out: &out, once: true})
}
