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

// Schedules is the part of the task engine that the routes of schedules use.
type Schedules interface {
	CreateSchedule(ctx context.Context, c policy.Caller, n task.NewSchedule, key string) (task.Schedule, error)
	Schedule(ctx context.Context, c policy.Caller, id uuid.UUID) (task.Schedule, error)
	Schedules(ctx context.Context, c policy.Caller, before uuid.UUID, limit int) (all []task.Schedule, more bool, err error)
	UpdateSchedule(ctx context.Context, c policy.Caller, id uuid.UUID, p task.SchedulePatch) (task.Schedule, error)
	DeleteSchedule(ctx context.Context, c policy.Caller, id uuid.UUID) error
	TriggerSchedule(ctx context.Context, c policy.Caller, id uuid.UUID) (task.Task, error)
}

// upcomingRuns is how many of the next times of a schedule are shown.
const upcomingRuns = 5

type (
	// ScheduleInput names a schedule.
	ScheduleInput struct {
		ID string `path:"id" format:"uuid" doc:"The schedule's id."`
	}
	scheduleOutput struct {
		Body api.Schedule
	}
	createdScheduleOutput struct {
		Location string `header:"Location" doc:"The path of the new schedule."`
		Body     api.Schedule
	}
)

func (s *Server) registerSchedules() {
	handle(s, operation{
		id: "createSchedule", action: "schedule.create", method: http.MethodPost, path: "/v1/schedules", permission: policy.TaskSubmit, tag: "Schedules",
		summary: "Make a schedule", status: http.StatusCreated, errors: []int{http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "Its task is submitted at each tick by the rights that whoever made it has by then. A tick that is denied by then is recorded, and nothing is submitted; if they are gone the schedule is paused. With an Idempotency-Key the request can be repeated safely.",
	}, s.createSchedule)
	handle(s, operation{
		id: "listSchedules", action: "schedule.list", method: http.MethodGet, path: "/v1/schedules", permission: policy.TaskRead, tag: "Schedules",
		summary: "List schedules, newest first", errors: []int{http.StatusUnprocessableEntity},
	}, s.listSchedules)
	handle(s, operation{
		id: "getSchedule", action: "schedule.read", method: http.MethodGet, path: "/v1/schedules/{id}", permission: policy.TaskRead, tag: "Schedules",
		summary: "Get a schedule", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getSchedule)
	handle(s, operation{
		id: "updateSchedule", action: "schedule.update", method: http.MethodPatch, path: "/v1/schedules/{id}", permission: policy.TaskSubmit, tag: "Schedules",
		summary: "Pause, resume or change a schedule", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "Whoever changes more than whether it is paused takes the schedule over: its tasks are then submitted by their rights. A schedule that is resumed, or whose times are changed, begins anew.",
	}, s.updateSchedule)
	handle(s, operation{
		id: "deleteSchedule", action: "schedule.delete", method: http.MethodDelete, path: "/v1/schedules/{id}", permission: policy.TaskSubmit, tag: "Schedules",
		summary: "Delete a schedule", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
		detail: "Tasks that it submitted go on.",
	}, s.deleteSchedule)
	handle(s, operation{
		id: "triggerSchedule", action: "schedule.run", method: http.MethodPost, path: "/v1/schedules/{id}/trigger", permission: policy.TaskSubmit, tag: "Schedules",
		summary: "Submit a schedule's task at once", status: http.StatusCreated, errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "Also while it is paused or a run has not ended; in the name and by the rights of whoever asks.",
	}, s.triggerSchedule)
}

func (s *Server) createSchedule(ctx context.Context, c policy.Caller, in *struct {
	Key  string `header:"Idempotency-Key" maxLength:"255" doc:"Makes the request safe to repeat: the same key with the same body is answered with the schedule that it made, as that is by now, with another body with 422. Good for as long as the schedule exists."`
	Body api.NewSchedule
}) (*createdScheduleOutput, error) {
	n := in.Body
	t, err := newTask(n.Task, "body.task")
	if err != nil {
		return nil, err
	}
	sc, err := s.tasks.CreateSchedule(ctx, c, task.NewSchedule{
		Name: n.Name, Cron: n.Cron, TimeZone: n.TimeZone, IntervalSeconds: n.IntervalSeconds, Overlap: task.Overlap(n.Overlap),
		DeadlineSeconds: n.StartingDeadlineSeconds, Paused: n.Paused, Task: t,
	}, in.Key)
	return &createdScheduleOutput{Location: "/v1/schedules/" + sc.ID.String(), Body: wireSchedule(sc)}, err
}

func (s *Server) listSchedules(ctx context.Context, c policy.Caller, in *PageInput) (*struct{ Body api.ScheduleList }, error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	all, more, err := s.tasks.Schedules(ctx, c, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.ScheduleList{Items: make([]api.Schedule, len(all))}
	for i, sc := range all {
		list.Items[i] = wireSchedule(sc)
	}
	if more {
		list.NextCursor = after(all[len(all)-1].ID)
	}
	return &struct{ Body api.ScheduleList }{list}, nil
}

func (s *Server) getSchedule(ctx context.Context, c policy.Caller, in *ScheduleInput) (*scheduleOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	sc, err := s.tasks.Schedule(ctx, c, id)
	return &scheduleOutput{wireSchedule(sc)}, err
}

func (s *Server) updateSchedule(ctx context.Context, c policy.Caller, in *struct {
	ScheduleInput
	Body api.SchedulePatch
}) (*scheduleOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	p := task.SchedulePatch{
		Name: in.Body.Name, Cron: in.Body.Cron, TimeZone: in.Body.TimeZone, IntervalSeconds: in.Body.IntervalSeconds,
		Overlap: (*task.Overlap)(in.Body.Overlap), DeadlineSeconds: in.Body.StartingDeadlineSeconds, Paused: in.Body.Paused,
	}
	if in.Body.Task != nil {
		t, err := newTask(*in.Body.Task, "body.task")
		if err != nil {
			return nil, err
		}
		p.Task = &t
	}
	sc, err := s.tasks.UpdateSchedule(ctx, c, id, p)
	return &scheduleOutput{wireSchedule(sc)}, err
}

func (s *Server) deleteSchedule(ctx context.Context, c policy.Caller, in *ScheduleInput) (*struct{}, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	return nil, s.tasks.DeleteSchedule(ctx, c, id)
}

func (s *Server) triggerSchedule(ctx context.Context, c policy.Caller, in *ScheduleInput) (*createdOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	t, err := s.tasks.TriggerSchedule(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return created(t), nil
}

func wireSchedule(sc task.Schedule) api.Schedule {
	w := api.Schedule{
		ID: sc.ID.String(), Name: sc.Name, Cron: sc.Cron, TimeZone: sc.TimeZone, IntervalSeconds: sc.IntervalSeconds,
		Overlap: api.Overlap(sc.Overlap), StartingDeadlineSeconds: sc.DeadlineSeconds, Paused: sc.Paused, PausedReason: sc.PausedReason, Task: wireNewTask(sc.Task),
		ProjectID: sc.ProjectID, UserID: sc.UserID, SessionID: sc.SessionID, NextRuns: append([]time.Time{}, sc.Upcoming(upcomingRuns)...), Missed: sc.Missed,
		CreatedAt: sc.CreatedAt.UTC(), UpdatedAt: sc.UpdatedAt.UTC(),
	}
	if sc.LastTaskID != nil {
		w.LastTaskID = sc.LastTaskID.String()
	}
	if sc.LastRunAt != nil {
		w.LastRun = &api.ScheduleRun{At: sc.LastRunAt.UTC(), Result: api.RunResult(sc.LastResult), Reason: sc.LastReason}
		if sc.LastTickAt != nil {
			w.LastRun.ScheduledFor = new(sc.LastTickAt.UTC())
		}
	}
	return w
}

// wireNewTask is a task to be submitted, as a client would.
func wireNewTask(n task.New) api.NewTask {
	return api.NewTask{
		Description: n.Description, Input: n.Input, AgentID: n.AgentID, SkillID: n.SkillID, Model: n.Model, Thinking: api.Thinking(n.Thinking),
		SessionID: n.SessionID, ProjectID: n.ProjectID, Dispatch: api.Dispatch(n.Dispatch), Priority: n.Priority, ConcurrencyKey: n.ConcurrencyKey, ConcurrencyLimit: n.ConcurrencyLimit,
		TimeoutSeconds: n.TimeoutSeconds, SilenceSeconds: n.SilenceSeconds, RetryOn: n.RetryOn, MaxAttempts: n.MaxAttempts, Labels: n.Labels, Requires: n.Requires, Metadata: n.Metadata, Budget: wireBudget(n.Budget),
	}
}
