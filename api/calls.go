package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// SubmitOption changes how tasks are submitted.
type SubmitOption func(http.Header)

// WithIdempotencyKey names a submission: the server answers a repeated one with
// the tasks of the first, in another process and at another time too. Without
// it each call of SubmitTask or SubmitTasks makes up a key of its own, so that
// its retries submit once.
func WithIdempotencyKey(key string) SubmitOption {
	return func(h http.Header) { h.Set("Idempotency-Key", key) }
}

// SubmitTask submits one task and returns it as the server took it.
func (c *Client) SubmitTask(ctx context.Context, t NewTask, opts ...SubmitOption) (Task, error) {
	var out Task
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/tasks", header: submitHeader(opts), in: t, out: &out})
}

// SubmitTasks submits up to 1,000 tasks at once, all or none, and returns them
// in the same order.
func (c *Client) SubmitTasks(ctx context.Context, tasks []NewTask, opts ...SubmitOption) ([]Task, error) {
	var out TaskBatch
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/tasks/batch", header: submitHeader(opts), in: NewTaskBatch{Tasks: tasks}, out: &out})
	return out.Items, err
}

func submitHeader(opts []SubmitOption) http.Header {
	h := http.Header{"Idempotency-Key": {rand.Text()}}
	for _, opt := range opts {
		opt(h)
	}
	return h
}

// Task returns the task as it is now.
func (c *Client) Task(ctx context.Context, id string) (Task, error) {
	var out Task
	return out, c.get(ctx, "/v1/tasks", id, "", nil, &out)
}

// Attempts returns the tries at a task, oldest first.
func (c *Client) Attempts(ctx context.Context, id string) ([]Attempt, error) {
	var out AttemptList
	err := c.get(ctx, "/v1/tasks", id, "/attempts", nil, &out)
	return out.Items, err
}

// TaskFilter chooses tasks. What is zero does not restrict.
type TaskFilter struct {
	Status       []TaskStatus // any of them
	AgentID      string
	SessionID    string
	ProjectID    string
	ParentTaskID string
	ScheduleID   string
	Labels       map[string]string // all of them
	CreatedAfter time.Time
	Query        string // part of the description, in any case
	Limit        int    // items on a page; the server's default is 50, its maximum 500
	Cursor       string // NextCursor of the page before
}

func (f TaskFilter) query() url.Values {
	q := page(f.Limit, f.Cursor)
	for _, s := range f.Status {
		q.Add("status", string(s))
	}
	for _, key := range slices.Sorted(maps.Keys(f.Labels)) {
		q.Add("label", key+"="+f.Labels[key])
	}
	if !f.CreatedAfter.IsZero() {
		q.Set("createdAfter", f.CreatedAfter.UTC().Format(time.RFC3339Nano))
	}
	for name, value := range map[string]string{
		"agentId": f.AgentID, "sessionId": f.SessionID, "projectId": f.ProjectID, "parentTaskId": f.ParentTaskID, "scheduleId": f.ScheduleID, "q": f.Query,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// Tasks returns one page of the tasks that f chooses, newest first.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) (TaskList, error) {
	var out TaskList
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/tasks", query: f.query(), out: &out})
}

// AllTasks yields the tasks that f chooses, newest first, and asks for the next
// page when it gets there. It ends after an error.
func (c *Client) AllTasks(ctx context.Context, f TaskFilter) iter.Seq2[Task, error] {
	return pages(f.Cursor, func(cursor string) ([]Task, string, error) {
		f.Cursor = cursor
		list, err := c.Tasks(ctx, f)
		return list.Items, list.NextCursor, err
	})
}

// UpdateOption changes how a task is updated.
type UpdateOption func(http.Header)

// WithLeaseToken shows the lease under which a worker writes.
func WithLeaseToken(token string) UpdateOption {
	return func(h http.Header) { h.Set("Lease-Token", token) }
}

// UpdateTask changes a task and returns it: a worker changes the one that it
// holds a lease of, anybody else one of their own that is dispatched manually.
func (c *Client) UpdateTask(ctx context.Context, id string, p TaskPatch, opts ...UpdateOption) (Task, error) {
	path, err := item("/v1/tasks", id, "")
	if err != nil {
		return Task{}, err
	}
	h := http.Header{}
	for _, opt := range opts {
		opt(h)
	}
	var out Task
	return out, c.do(ctx, call{method: http.MethodPatch, path: path, header: h, in: p, out: &out, once: true})
}

// CancelTask cancels a task with its open descendants and returns it. A task
// that has ended is an [*Error] with status 409.
func (c *Client) CancelTask(ctx context.Context, id string) (Task, error) {
	path, err := item("/v1/tasks", id, "/cancel")
	if err != nil {
		return Task{}, err
	}
	var out Task
	return out, c.do(ctx, call{method: http.MethodPost, path: path, out: &out, once: true})
}

// TaskEvents yields the task's history, oldest first. It ends after an error.
func (c *Client) TaskEvents(ctx context.Context, id string) iter.Seq2[Event, error] {
	return pages("", func(cursor string) ([]Event, string, error) {
		var out EventList
		err := c.get(ctx, "/v1/tasks", id, "/events", page(500, cursor), &out)
		return out.Items, out.NextCursor, err
	})
}

// Agents returns all agents.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	return collect(pages("", func(cursor string) ([]Agent, string, error) {
		var out AgentList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/agents", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	}))
}

// Agent returns one agent.
func (c *Client) Agent(ctx context.Context, id string) (Agent, error) {
	var out Agent
	return out, c.get(ctx, "/v1/agents", id, "", nil, &out)
}

// PutAgent creates the agent, or replaces its definition.
func (c *Client) PutAgent(ctx context.Context, id string, d AgentDefinition) (Agent, error) {
	path, err := item("/v1/agents", id, "")
	if err != nil {
		return Agent{}, err
	}
	var out Agent
	return out, c.do(ctx, call{method: http.MethodPut, path: path, in: d, out: &out})
}

// DeleteAgent removes an agent that PutAgent created.
func (c *Client) DeleteAgent(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/agents", id)
}

// Skills returns all skills.
func (c *Client) Skills(ctx context.Context) ([]Skill, error) {
	return collect(pages("", func(cursor string) ([]Skill, string, error) {
		var out SkillList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/skills", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	}))
}

// Skill returns one skill.
func (c *Client) Skill(ctx context.Context, id string) (Skill, error) {
	var out Skill
	return out, c.get(ctx, "/v1/skills", id, "", nil, &out)
}

// ExecuteSkill submits a task that uses the skill, and returns it as the server
// took it. t.SkillID may be left empty.
func (c *Client) ExecuteSkill(ctx context.Context, id string, t NewTask, opts ...SubmitOption) (Task, error) {
	path, err := item("/v1/skills", id, "/execute")
	if err != nil {
		return Task{}, err
	}
	var out Task
	return out, c.do(ctx, call{method: http.MethodPost, path: path, header: submitHeader(opts), in: t, out: &out})
}

// PutSkill creates the skill, or replaces its definition.
func (c *Client) PutSkill(ctx context.Context, id string, d SkillDefinition) (Skill, error) {
	path, err := item("/v1/skills", id, "")
	if err != nil {
		return Skill{}, err
	}
	var out Skill
	return out, c.do(ctx, call{method: http.MethodPut, path: path, in: d, out: &out})
}

// DeleteSkill removes a skill that PutSkill created.
func (c *Client) DeleteSkill(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/skills", id)
}

// Status tells how the server is. It needs no credential.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/status", out: &out})
}

// Me tells for whom the client speaks.
func (c *Client) Me(ctx context.Context) (Me, error) {
	var out Me
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/me", out: &out})
}

func (c *Client) get(ctx context.Context, collection, id, rest string, q url.Values, out any) error {
	path, err := item(collection, id, rest)
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: http.MethodGet, path: path, query: q, out: out})
}

// item returns the path of one member of a collection.
func item(collection, id, rest string) (string, error) {
	// These three would name another resource.
	if id == "" || id == "." || id == ".." {
		return "", fmt.Errorf("%q is no id", id)
	}
	return collection + "/" + url.PathEscape(id) + rest, nil
}

// page returns the query for one page of a list; zero leaves it to the server.
func page(limit int, cursor string) url.Values {
	q := url.Values{}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return q
}

// pages yields the items of all pages, starting at the one that cursor names.
func pages[T any](cursor string, fetch func(cursor string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for at := cursor; ; {
			items, next, err := fetch(at)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, it := range items {
				if !yield(it, nil) {
					return
				}
			}
			switch next {
			case "":
				return
			case at:
				var none T
				yield(none, fmt.Errorf("the server names page %q as the one after itself", next))
				return
			}
			at = next
		}
	}
}

func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for it, err := range seq {
		if err != nil {
			return nil, err
		}
		all = append(all, it)
	}
	return all, nil
}
