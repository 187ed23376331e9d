package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
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

// Ask puts a question to people, under a lease.
func (c *Client) Ask(ctx context.Context, taskID, leaseToken string, q NewQuestion) (Question, error) {
	var out Question
	return out, c.leased(ctx, taskID, leaseToken, call{method: http.MethodPost, path: "/questions", in: q, out: &out})
}

// Question returns a question that was asked under a lease, waiting up to
// waitSeconds for it to be open no more.
func (c *Client) Question(ctx context.Context, taskID, leaseToken, questionID string, waitSeconds int) (Question, error) {
	var out Question
	q := url.Values{"waitSeconds": {strconv.Itoa(waitSeconds)}}
	return out, c.leased(ctx, taskID, leaseToken, call{method: http.MethodGet, path: "/questions/" + url.PathEscape(questionID), query: q, out: &out})
}

// AuthorizeSkill asks, under a lease, whether the agent may use a skill.
func (c *Client) AuthorizeSkill(ctx context.Context, taskID, leaseToken, skillID string, u SkillUse) (SkillDecision, error) {
	var out SkillDecision
	return out, c.leased(ctx, taskID, leaseToken, call{method: http.MethodPost, path: "/skills/" + url.PathEscape(skillID) + "/authorize", in: u, out: &out})
}

// leased makes a call below a task, under its lease.
func (c *Client) leased(ctx context.Context, taskID, leaseToken string, r call) error {
	r.path, r.header, r.once = "/v1/tasks/"+url.PathEscape(taskID)+r.path, http.Header{}, true
	WithLeaseToken(leaseToken)(r.header)
	return c.do(ctx, r)
}
