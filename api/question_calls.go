package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// QuestionFilter chooses questions. What is zero does not restrict.
type QuestionFilter struct {
	TaskID string
	Kind   QuestionKind
	Status []QuestionStatus // any of them; nil: open
	Limit  int              // items on a page; the server's default is 50, its maximum 500
	Cursor string           // NextCursor of the page before
}

func (f QuestionFilter) query() url.Values {
	q := page(f.Limit, f.Cursor)
	for _, s := range f.Status {
		q.Add("status", string(s))
	}
	if f.TaskID != "" {
		q.Set("taskId", f.TaskID)
	}
	if f.Kind != "" {
		q.Set("kind", string(f.Kind))
	}
	return q
}

// Questions yields what agents ask of people as f chooses, newest first, and
// asks for the next page when it gets there. It ends after an error.
func (c *Client) Questions(ctx context.Context, f QuestionFilter) iter.Seq2[Question, error] {
	return pages(f.Cursor, func(cursor string) ([]Question, string, error) {
		f.Cursor = cursor
		var out QuestionList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/approvals", query: f.query(), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// AnswerQuestion approves, denies or answers, and returns the question as it is
// then. One that is open no more is an [*Error] with status 409.
func (c *Client) AnswerQuestion(ctx context.Context, id string, a Answer) (Question, error) {
	path, err := item("/v1/approvals", id, "")
	if err != nil {
		return Question{}, err
	}
	var out Question
	return out, c.do(ctx, call{method: http.MethodPost, path: path, in: a, out: &out, once: true})
}

// AnswerTask answers the one open question of a task, or a manual task that
// waits for people, and returns the task.
func (c *Client) AnswerTask(ctx context.Context, id string, a Answer) (Task, error) {
	path, err := item("/v1/tasks", id, "/input")
	if err != nil {
		return Task{}, err
	}
	var out Task
	return out, c.do(ctx, call{method: http.MethodPost, path: path, in: a, out: &out, once: true})
}
