package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// Tasks is the part of the task engine that the routes use.
type Tasks interface {
	Submit(ctx context.Context, c policy.Caller, n task.New, key string) (task.Task, error)
	SubmitBatch(ctx context.Context, c policy.Caller, batch []task.New, key string) ([]task.Task, error)
	Get(ctx context.Context, c policy.Caller, id uuid.UUID) (task.Task, error)
	List(ctx context.Context, c policy.Caller, f task.Filter, before uuid.UUID, limit int) (tasks []task.Task, more bool, err error)
	Update(ctx context.Context, c policy.Caller, id uuid.UUID, p task.Patch) (task.Task, error)
	Cancel(ctx context.Context, c policy.Caller, id uuid.UUID) (task.Task, error)
	Events(ctx context.Context, c policy.Caller, id uuid.UUID, after int64, limit int) ([]task.Event, error)
	Schedules
	Count(ctx context.Context) (task.Counts, error)
	Attempts(ctx context.Context, c policy.Caller, id uuid.UUID) ([]task.Attempt, error)
	// Delay explains why a task that waits for a worker does not run.
	Delay(ctx context.Context, t task.Task) (*task.Delay, error)
	TaskLog
	Questions
	Grants
	Relatives
}

// What several operations take. The types are exported only because huma passes
// over embedded ones that are not.
type (
	// IDInput names a task.
	IDInput struct {
		ID string `path:"id" format:"uuid" doc:"The task's id."`
	}
	// IdempotencyInput makes a submission safe to repeat.
	IdempotencyInput struct {
		Key string `header:"Idempotency-Key" maxLength:"255" doc:"Makes the request safe to repeat: the same key with the same body is answered with the first answer again, with another body with 422. Good for as long as the task exists."`
	}
	taskOutput struct {
		Body api.Task
	}
	createdOutput struct {
		Location string `header:"Location" doc:"The path of the new task."`
		Body     api.Task
	}
	batchOutput struct {
		Body api.TaskBatch
	}
	// FilterInput selects tasks.
	FilterInput struct {
		Status       []string  `query:"status,explode" doc:"Any of these statuses; repeat it or separate by commas."`
		AgentID      string    `query:"agentId"`
		SessionID    string    `query:"sessionId"`
		ProjectID    string    `query:"projectId"`
		ParentTaskID string    `query:"parentTaskId" format:"uuid"`
		ScheduleID   string    `query:"scheduleId" format:"uuid"`
		Label        []string  `query:"label,explode" doc:"key=value; repeat it to ask for several at once."`
		CreatedAfter time.Time `query:"createdAfter"`
		Query        string    `query:"q" maxLength:"200" doc:"Part of the description, in any case."`
	}
	// PageInput asks for one page of a list.
	PageInput struct {
		Limit  int    `query:"limit" default:"50" minimum:"1" maximum:"500" doc:"How many at most."`
		Cursor string `query:"cursor" maxLength:"500" doc:"The nextCursor of the page before."`
	}
)

func (s *Server) registerTasks() {
	handle(s, operation{
		id: "submitTask", action: "task.submit", method: http.MethodPost, path: "/v1/tasks", permission: policy.TaskSubmit, tag: "Tasks",
		summary: "Submit a task", status: http.StatusCreated, errors: []int{http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "The task is kept before the answer is sent. With an Idempotency-Key the request can be repeated safely.",
	}, s.submitTask)
	handle(s, operation{
		id: "submitTasks", action: "task.submit", method: http.MethodPost, path: "/v1/tasks/batch", permission: policy.TaskSubmit, tag: "Tasks",
		summary: "Submit up to 1,000 tasks, all or none", status: http.StatusCreated,
		errors: []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.submitTasks)
	handle(s, operation{
		id: "listTasks", action: "task.list", method: http.MethodGet, path: "/v1/tasks", permission: policy.TaskRead, tag: "Tasks",
		summary: "List tasks, newest first", errors: []int{http.StatusUnprocessableEntity},
	}, s.listTasks)
	handle(s, operation{
		id: "getTask", action: "task.read", method: http.MethodGet, path: "/v1/tasks/{id}", permission: policy.TaskRead, agents: true, tag: "Tasks",
		summary: "Get a task", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getTask)
	handle(s, operation{
		id: "updateTask", action: "task.update", method: http.MethodPatch, path: "/v1/tasks/{id}", permission: policy.TaskSubmit, workers: true, tag: "Tasks",
		summary: "Report on a manual or a leased task", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		detail: "For tasks with dispatch manual, by whoever submitted them; with Lease-Token, for a task that a worker holds. A step that the status machine does not have is answered with 409 invalid-transition.",
	}, s.updateTask)
	handle(s, operation{
		id: "cancelTask", action: "task.cancel", method: http.MethodPost, path: "/v1/tasks/{id}/cancel", permission: policy.TaskCancel, tag: "Tasks",
		summary: "Cancel a task and its open descendants", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "The worker that runs it stops the agent. A terminal task is answered with 409 invalid-transition.",
	}, s.cancelTask)
	handle(s, operation{
		id: "listTaskEvents", action: "task.read", method: http.MethodGet, path: "/v1/tasks/{id}/events", permission: policy.TaskRead, tag: "Tasks",
		summary: "List the history of a task, oldest first", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.listTaskEvents)
	handle(s, operation{
		id: "listTaskAttempts", action: "task.read", method: http.MethodGet, path: "/v1/tasks/{id}/attempts", permission: policy.TaskRead, tag: "Tasks",
		summary: "List the tries at a task, oldest first", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.listAttempts)
}

func (s *Server) submitTask(ctx context.Context, c policy.Caller, in *struct {
	IdempotencyInput
	Body api.NewTask
}) (*createdOutput, error) {
	n, err := newTask(in.Body, "body")
	if err != nil {
		return nil, err
	}
	t, err := s.tasks.Submit(ctx, c, n, in.Key)
	if err != nil {
		return nil, err
	}
	return created(t), nil
}

func created(t task.Task) *createdOutput {
	return &createdOutput{Location: "/v1/tasks/" + t.ID.String(), Body: WireTask(t)}
}

func (s *Server) submitTasks(ctx context.Context, c policy.Caller, in *struct {
	IdempotencyInput
	Body api.NewTaskBatch
}) (*batchOutput, error) {
	batch := make([]task.New, len(in.Body.Tasks))
	for i, n := range in.Body.Tasks {
		var err error
		if batch[i], err = newTask(n, fmt.Sprintf("body.tasks[%d]", i)); err != nil {
			return nil, err
		}
	}
	tasks, err := s.tasks.SubmitBatch(ctx, c, batch, in.Key)
	if err != nil {
		return nil, err
	}
	return &batchOutput{api.TaskBatch{Items: wireTasks(tasks)}}, nil
}

func (s *Server) listTasks(ctx context.Context, c policy.Caller, in *struct {
	FilterInput
	PageInput
}) (*struct{ Body api.TaskList }, error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	tasks, more, err := s.tasks.List(ctx, c, f, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.TaskList{}
	if more {
		list.NextCursor = after(tasks[len(tasks)-1].ID)
	}
	list.Items = wireTasks(tasks)
	return &struct{ Body api.TaskList }{list}, nil
}

func (in *FilterInput) filter() (task.Filter, error) {
	f := task.Filter{AgentID: in.AgentID, SessionID: in.SessionID, ProjectID: in.ProjectID, CreatedAfter: in.CreatedAfter, Query: in.Query}
	for _, list := range in.Status {
		for name := range strings.SplitSeq(list, ",") {
			st := task.Status(strings.TrimSpace(name))
			if !st.Known() {
				return f, fault.InvalidFields([]fault.Field{{Path: "query.status", Message: "must name statuses"}})
			}
			f.Status = append(f.Status, st)
		}
	}
	if in.ParentTaskID != "" {
		id, err := parseID(in.ParentTaskID, "query.parentTaskId")
		if err != nil {
			return f, err
		}
		f.ParentTaskID = &id
	}
	if in.ScheduleID != "" {
		id, err := parseID(in.ScheduleID, "query.scheduleId")
		if err != nil {
			return f, err
		}
		f.ScheduleID = &id
	}
	for _, label := range in.Label {
		k, v, ok := strings.Cut(label, "=")
		if !ok || k == "" {
			return f, fault.InvalidFields([]fault.Field{{Path: "query.label", Message: "must be key=value"}})
		}
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		f.Labels[k] = v
	}
	return f, nil
}

func badCursor() error {
	return fault.InvalidFields([]fault.Field{{Path: "query.cursor", Message: "must be the nextCursor of another answer"}})
}

func (s *Server) getTask(ctx context.Context, c policy.Caller, in *IDInput) (*taskOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	if c.Lease != nil {
		return s.ofAgent(ctx, c, id)
	}
	t, err := s.tasks.Get(ctx, c, id)
	if err != nil {
		return nil, err
	}
	wire := WireTask(t)
	why, err := s.tasks.Delay(ctx, t)
	if why != nil {
		wire.Pending = &api.PendingReason{Reason: string(why.Reason), Limit: why.Limit, Ahead: why.Ahead}
		if why.Pause != nil {
			wire.Pending.Pause = new(wirePause(*why.Pause))
		}
	}
	return &taskOutput{wire}, err
}

func (s *Server) updateTask(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	LeaseInput
	Body api.TaskPatch
}) (*taskOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	lease, err := in.token()
	if err != nil {
		return nil, err
	}
	p := in.Body
	t, err := s.tasks.Update(ctx, c, id, task.Patch{
		Lease:  lease,
		Status: task.Status(deref(p.Status)), WaitingReason: task.WaitingReason(p.WaitingReason), Progress: p.Progress,
		Output: p.Output, Error: p.Error, Message: p.Message, Data: p.Data,
	})
	return &taskOutput{WireTask(t)}, err
}

func (s *Server) cancelTask(ctx context.Context, c policy.Caller, in *IDInput) (*taskOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	t, err := s.tasks.Cancel(ctx, c, id)
	return &taskOutput{WireTask(t)}, err
}

func (s *Server) listAttempts(ctx context.Context, c policy.Caller, in *IDInput) (*struct{ Body api.AttemptList }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	attempts, err := s.tasks.Attempts(ctx, c, id)
	if err != nil {
		return nil, err
	}
	list := api.AttemptList{Items: make([]api.Attempt, len(attempts))}
	for i, a := range attempts {
		list.Items[i] = api.Attempt{
			Attempt: a.Number, WorkerID: a.WorkerID, StartedAt: a.StartedAt.UTC(), EndedAt: utc(a.EndedAt), Outcome: a.Outcome, Reason: a.Reason,
		}
	}
	return &struct{ Body api.AttemptList }{list}, nil
}

func (s *Server) listTaskEvents(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	PageInput
}) (*struct{ Body api.EventList }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	var after int64
	if in.Cursor != "" {
		if after, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil || after < 0 {
			return nil, badCursor()
		}
	}
	events, err := s.tasks.Events(ctx, c, id, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	list := api.EventList{Items: make([]api.Event, 0, len(events))}
	if len(events) > in.Limit {
		events = events[:in.Limit]
		list.NextCursor = strconv.FormatInt(events[in.Limit-1].Seq, 10)
	}
	for _, e := range events {
		list.Items = append(list.Items, wireEvent(e))
	}
	return &struct{ Body api.EventList }{list}, nil
}
