package httpapi

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/task"
)

// WireTask is a task as clients see it.
func WireTask(t task.Task) api.Task {
	w := api.Task{
		ID: t.ID.String(), Status: api.TaskStatus(t.Status), Description: t.Description, Input: t.Input,
		AgentID: t.AgentID, SkillID: t.SkillID, Model: t.Model, Thinking: api.Thinking(t.Thinking),
		SessionID: t.SessionID, ProjectID: t.ProjectID, UserID: t.UserID, DependsOn: uuidStrings(t.DependsOn),
		Dispatch: api.Dispatch(t.Dispatch), Priority: t.Priority, ConcurrencyKey: t.ConcurrencyKey, ConcurrencyLimit: t.ConcurrencyLimit, Labels: t.Labels, Requires: t.Requires, Metadata: t.Metadata,
		Progress: t.Progress, Output: t.Output, Error: t.Error, WaitingReason: api.WaitingReason(t.WaitingReason),
		Attempt: t.Attempt, MaxAttempts: t.MaxAttempts, TimeoutSeconds: t.TimeoutSeconds,
		SilenceSeconds: t.SilenceSeconds, RetryOn: t.RetryOn, StatusReason: t.StatusReason,
		CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(),
	}
	if t.ParentTaskID != nil {
		w.ParentTaskID = t.ParentTaskID.String()
	}
	if t.RetryOf != nil {
		w.RetryOf = t.RetryOf.String()
	}
	if t.RetriedBy != nil {
		w.RetriedBy = t.RetriedBy.String()
	}
	if t.ScheduleID != nil {
		w.ScheduleID = t.ScheduleID.String()
	}
	w.Budget = wireBudget(t.Budget)
	if t.Usage != nil {
		w.Usage = wireAmounts(t.Usage.Used)
	}
	w.RunAfter, w.ExpiresAt, w.DeadlineAt = utc(t.RunAfter), utc(t.ExpiresAt), utc(t.DeadlineAt)
	w.StartedAt, w.CompletedAt = utc(t.StartedAt), utc(t.CompletedAt)
	return w
}

func utc(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	return new(at.UTC())
}

func wireTasks(tasks []task.Task) []api.Task {
	w := make([]api.Task, len(tasks))
	for i, t := range tasks {
		w[i] = WireTask(t)
	}
	return w
}

func wireEvent(e task.Event) api.Event {
	return api.Event{
		Type: api.EventType(e.Type), TaskID: e.TaskID.String(), Seq: e.Seq, Status: api.TaskStatus(e.Status),
		Timestamp: e.CreatedAt.UTC(), Message: e.Message, Progress: e.Progress, Data: e.Data,
	}
}

// newTask reads a task to be submitted; at is its path in the request.
func newTask(n api.NewTask, at string) (task.New, error) {
	parent, dependsOn, err := parseRelatives(n, at)
	if err != nil {
		return task.New{}, err
	}
	budget, err := newBudget(n.Budget, at+".budget")
	return task.New{
		Description: n.Description, Input: n.Input, AgentID: n.AgentID, SkillID: n.SkillID,
		Model: n.Model, Thinking: string(n.Thinking), SessionID: n.SessionID, ProjectID: n.ProjectID,
		ParentTaskID: parent, DependsOn: dependsOn, Dispatch: task.Dispatch(n.Dispatch), Priority: n.Priority, ConcurrencyKey: n.ConcurrencyKey, ConcurrencyLimit: n.ConcurrencyLimit,
		RunAfter: n.RunAfter, TimeoutSeconds: n.TimeoutSeconds, MaxAttempts: n.MaxAttempts,
		ExpiresAt: n.ExpiresAt, DeadlineAt: n.DeadlineAt, SilenceSeconds: n.SilenceSeconds, RetryOn: n.RetryOn,
		Labels: n.Labels, Requires: n.Requires, Metadata: n.Metadata, Budget: budget,
	}, err
}

func parseRelatives(n api.NewTask, at string) (parent *uuid.UUID, dependsOn []uuid.UUID, err error) {
	if n.ParentTaskID != "" {
		id, err := parseID(n.ParentTaskID, at+".parentTaskId")
		if err != nil {
			return nil, nil, err
		}
		parent = &id
	}
	for _, d := range n.DependsOn {
		id, err := parseID(d, at+".dependsOn")
		if err != nil {
			return nil, nil, err
		}
		dependsOn = append(dependsOn, id)
	}
	return parent, dependsOn, nil
}

// parseID reads a task id that is part of a request. Only the canonical form
// is one, so that a task has one address.
func parseID(s, path string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return uuid.Nil, fault.InvalidFields([]fault.Field{{Path: path, Message: "must be a UUID"}})
	}
	return id, nil
}

// parseIDs is parseID for a list.
func parseIDs(list []string, path string) ([]uuid.UUID, error) {
	ids := make([]uuid.UUID, len(list))
	for i, text := range list {
		var err error
		if ids[i], err = parseID(text, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// texts turns names into names of another kind.
func texts[T, F ~string](from []F) []T {
	if from == nil {
		return nil
	}
	to := make([]T, len(from))
	for i, f := range from {
		to[i] = T(f)
	}
	return to
}

func uuidStrings(ids []uuid.UUID) []string {
	if len(ids) == 0 {
		return nil
	}
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = id.String()
	}
	return s
}

// deref returns what p points to, or the zero value.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
