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
}

// LimitInput names a limit.
type LimitInput struct {
	Kind string `path:"kind" enum:"all,project,session,agent" doc:"What the limit is of."`
	Name string `query:"name" maxLength:"128" doc:"The id of the project, session or agent; absent: each that has no limit of its own."`
}

func (s *Server) registerConcurrencyLimits() {
	handle(s, operation{
		id: "listLimits", action: "limit.list", method: http.MethodGet, path: "/v1/limits", permission: policy.ConfigRead, tag: "Configuration",
		summary: "List how many tasks may run at once",
	}, s.listLimits)
	handle(s, operation{
		id: "putLimit", action: "limit.put", method: http.MethodPut, path: "/v1/limits/{kind}", permission: policy.AdminAll, tag: "Configuration",
		summary: "Bound how many tasks run at once", errors: []int{http.StatusUnprocessableEntity},
		detail: "Of all tasks, of those of a project, a session or an agent. What runs already goes on; what is held back is not claimed until there is room.",
	}, s.putLimit)
	handle(s, operation{
		id: "deleteLimit", action: "limit.delete", method: http.MethodDelete, path: "/v1/limits/{kind}", permission: policy.AdminAll, tag: "Configuration",
		summary: "Remove a limit", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.deleteLimit)
}

func (s *Server) listLimits(ctx context.Context, _ policy.Caller, _ *struct{}) (*struct{ Body api.LimitList }, error) {
	limits, err := s.concurrency.Limits(ctx)
	if err != nil {
		return nil, err
	}
	list := api.LimitList{Items: make([]api.Limit, len(limits))}
	for i, l := range limits {
		list.Items[i] = wireLimit(l)
	}
	return &struct{ Body api.LimitList }{list}, nil
}

func (s *Server) putLimit(ctx context.Context, c policy.Caller, in *struct {
	LimitInput
	Body api.NewLimit
}) (*struct{ Body api.Limit }, error) {
	l, err := s.concurrency.PutLimit(ctx, c, task.Limit{Kind: task.LimitKind(in.Kind), Name: in.Name, MaxRunning: in.Body.MaxConcurrentTasks})
	return &struct{ Body api.Limit }{wireLimit(l)}, err
}

func (s *Server) deleteLimit(ctx context.Context, c policy.Caller, in *LimitInput) (*struct{}, error) {
	return nil, s.concurrency.DeleteLimit(ctx, c, task.LimitKind(in.Kind), in.Name)
}

func wireLimit(l task.Limit) api.Limit {
	return api.Limit{
		Kind: api.LimitKind(l.Kind), Name: l.Name, MaxConcurrentTasks: l.MaxRunning, UpdatedAt: l.UpdatedAt.UTC(), UpdatedBy: l.UpdatedBy,
	}
}
