package httpapi

import (
	"context"
	"net/http"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// ConcurrencyLimits is the part of the task engine that bounds what runs at once.
type ConcurrencyLimits interface {
	Limits(ctx context.Context) ([]task.Limit, error)
	PutLimit(ctx context.Context, c policy.Caller, l task.Limit) (task.Limit, error)
	DeleteLimit(ctx context.Context, c policy.Caller, kind task.LimitKind, name string) error
	Pauses(ctx context.Context, c policy.Caller) ([]task.Pause, error)
	Pause(ctx context.Context, c policy.Caller, p task.Pause) (task.Pause, error)
	Resume(ctx context.Context, c policy.Caller, kind task.PauseKind, name string) error
}

// LimitInput names a limit.
type LimitInput struct {
	Kind string `path:"kind" enum:"all,project,session,agent" doc:"What the limit is of."`
	Name string `query:"name" maxLength:"128" doc:"The id of the project, session or agent; absent: each that has no limit of its own."`
}

func (s *Server) registerConcurrencyLimits() {
	handle(s, operation{
		id: "listLimits", action: "limit.list", method: http.MethodGet, path: "/v1/limits", permission: policy.ConfigRead, tag: "Configuration",
		summary: "List how many tasks may run at once, and what is paused",
	}, s.listLimits)
	handle(s, operation{
		id: "putLimit", action: "limit.put", method: http.MethodPut, path: "/v1/limits/{kind}", permission: policy.AdminAll, tag: "Configuration",
		summary: "Bound how many tasks run at once", errors: []int{http.StatusUnprocessableEntity},
		detail: "Of all tasks, of those of a project, a session or an agent; of one agent also how many are begun in a time. What runs already goes on; what is held back is not claimed until there is room.",
	}, s.putLimit)
	handle(s, operation{
		id: "deleteLimit", action: "limit.delete", method: http.MethodDelete, path: "/v1/limits/{kind}", permission: policy.AdminAll, tag: "Configuration",
		summary: "Remove a limit", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.deleteLimit)
	const pausing = "What runs goes on, and tasks are accepted. What is paused already stays as it is."
	missing := []int{http.StatusNotFound, http.StatusUnprocessableEntity}
	handle(s, operation{
		id: "pauseAgent", action: "agent.pause", method: http.MethodPost, path: "/v1/agents/{id}/pause", permission: policy.ConfigWrite, tag: "Registry",
		summary: "Begin none of an agent's tasks until resumed", errors: missing, detail: pausing,
	}, s.pause(task.PauseAgent))
	handle(s, operation{
		id: "resumeAgent", action: "agent.resume", method: http.MethodPost, path: "/v1/agents/{id}/resume", permission: policy.ConfigWrite, tag: "Registry",
		summary: "Begin an agent's tasks again", status: http.StatusNoContent, errors: missing,
	}, s.resume(task.PauseAgent))
	handle(s, operation{
		id: "pauseSession", action: "session.pause", method: http.MethodPost, path: "/v1/sessions/{id}/pause", permission: policy.TaskSubmit, tag: "Sessions",
		summary: "Begin none of a session's tasks until resumed", errors: missing, detail: pausing + " One may pause the sessions that one sees.",
	}, s.pause(task.PauseSession))
	handle(s, operation{
		id: "resumeSession", action: "session.resume", method: http.MethodPost, path: "/v1/sessions/{id}/resume", permission: policy.TaskSubmit, tag: "Sessions",
		summary: "Begin a session's tasks again", status: http.StatusNoContent, errors: missing,
	}, s.resume(task.PauseSession))
}

// pauseInput is why something is paused.
type pauseInput struct {
	NameInput
	Body api.NewPause
}

func (s *Server) pause(kind task.PauseKind) func(context.Context, policy.Caller, *pauseInput) (*struct{ Body api.Pause }, error) {
	return func(ctx context.Context, c policy.Caller, in *pauseInput) (*struct{ Body api.Pause }, error) {
		if err := s.seesPaused(ctx, c, kind, in.ID); err != nil {
			return nil, err
		}
		p, err := s.concurrency.Pause(ctx, c, task.Pause{Kind: kind, Name: in.ID, Reason: in.Body.Reason})
		return &struct{ Body api.Pause }{wirePause(p)}, err
	}
}

func (s *Server) resume(kind task.PauseKind) func(context.Context, policy.Caller, *NameInput) (*struct{}, error) {
	return func(ctx context.Context, c policy.Caller, in *NameInput) (*struct{}, error) {
		if err := s.seesPaused(ctx, c, kind, in.ID); err != nil {
			return nil, err
		}
		return nil, s.concurrency.Resume(ctx, c, kind, in.ID)
	}
}

// seesPaused returns NotFound for a session that c does not see. Where all is
// c's, clients may name sessions as they like.
func (s *Server) seesPaused(ctx context.Context, c policy.Caller, kind task.PauseKind, id string) error {
	if kind != task.PauseSession || c.AllProjects {
		return nil
	}
	session, err := parseID(id, "path.id")
	if err == nil {
		_, err = s.identity.Session(ctx, c, session)
	}
	return err
}

func (s *Server) listLimits(ctx context.Context, c policy.Caller, _ *struct{}) (*struct{ Body api.LimitList }, error) {
	limits, err := s.concurrency.Limits(ctx)
	if err != nil {
		return nil, err
	}
	pauses, err := s.concurrency.Pauses(ctx, c)
	if err != nil {
		return nil, err
	}
	list := api.LimitList{Items: make([]api.Limit, len(limits)), Pauses: make([]api.Pause, len(pauses))}
	for i, p := range pauses {
		list.Pauses[i] = wirePause(p)
	}
	for i, l := range limits {
		list.Items[i] = wireLimit(l)
	}
	return &struct{ Body api.LimitList }{list}, nil
}

func (s *Server) putLimit(ctx context.Context, c policy.Caller, in *struct {
	LimitInput
	Body api.NewLimit
}) (*struct{ Body api.Limit }, error) {
	n := task.Limit{Kind: task.LimitKind(in.Kind), Name: in.Name, MaxRunning: in.Body.MaxConcurrentTasks}
	if r := in.Body.Rate; r != nil {
		n.Rate = &task.Rate{Tasks: r.Tasks, Seconds: r.PerSeconds, Burst: r.Burst}
	}
	l, err := s.concurrency.PutLimit(ctx, c, n)
	return &struct{ Body api.Limit }{wireLimit(l)}, err
}

func (s *Server) deleteLimit(ctx context.Context, c policy.Caller, in *LimitInput) (*struct{}, error) {
	return nil, s.concurrency.DeleteLimit(ctx, c, task.LimitKind(in.Kind), in.Name)
}

func wireLimit(l task.Limit) api.Limit {
	wire := api.Limit{
		Kind: api.LimitKind(l.Kind), Name: l.Name, MaxConcurrentTasks: l.MaxRunning, UpdatedAt: l.UpdatedAt.UTC(), UpdatedBy: l.UpdatedBy,
	}
	if r := l.Rate; r != nil {
		wire.Rate = &api.Rate{Tasks: r.Tasks, PerSeconds: r.Seconds, Burst: r.Burst}
	}
	return wire
}

func wirePause(p task.Pause) api.Pause {
	return api.Pause{Kind: api.PauseKind(p.Kind), Name: p.Name, Reason: p.Reason, PausedAt: p.PausedAt.UTC(), PausedBy: p.PausedBy}
}
