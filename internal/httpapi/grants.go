package httpapi

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// Grants is the part of the task engine that remembers approvals.
type Grants interface {
	Grants(ctx context.Context, c policy.Caller, before uuid.UUID, limit int) (grants []task.Grant, more bool, err error)
	RevokeGrant(ctx context.Context, c policy.Caller, id uuid.UUID) error
}

func (s *Server) registerGrants() {
	handle(s, operation{
		id: "listGrants", action: "grant.list", method: http.MethodGet, path: "/v1/grants", permission: policy.TaskRead, tag: "People",
		summary: "List the approvals that are remembered, newest first", errors: []int{http.StatusUnprocessableEntity},
	}, s.listGrants)
	handle(s, operation{
		id: "revokeGrant", action: "grant.revoke", method: http.MethodDelete, path: "/v1/grants/{id}", permission: policy.TaskSubmit, tag: "People",
		summary: "Forget an approval", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
		detail: "The next request is asked of people again. What it has let through stands.",
	}, s.revokeGrant)
}

func (s *Server) listGrants(ctx context.Context, c policy.Caller, in *PageInput) (*struct{ Body api.GrantList }, error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	grants, more, err := s.tasks.Grants(ctx, c, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.GrantList{Items: make([]api.Grant, len(grants))}
	for i, g := range grants {
		list.Items[i] = wireGrant(g)
	}
	if more {
		list.NextCursor = after(grants[len(grants)-1].ID)
	}
	return &struct{ Body api.GrantList }{list}, nil
}

func (s *Server) revokeGrant(ctx context.Context, c policy.Caller, in *struct {
	ID string `path:"id" format:"uuid" doc:"The grant's id."`
}) (*struct{}, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	return nil, s.tasks.RevokeGrant(ctx, c, id)
}

func wireGrant(g task.Grant) api.Grant {
	w := api.Grant{
		ID: g.ID.String(), Scope: api.GrantScope(g.Scope), ProjectID: g.ProjectID, AgentID: g.AgentID, Text: g.Text, Tool: wireToolCall(g.Tool),
		GrantedBy: g.GrantedBy, CreatedAt: g.CreatedAt.UTC(), ExpiresAt: g.ExpiresAt.UTC(), LastUsedAt: utc(g.LastUsedAt), Uses: g.Uses,
	}
	if g.TaskID != nil {
		w.TaskID = g.TaskID.String()
	}
	if g.Scope == task.GrantSession {
		w.SessionID = g.SessionID
	}
	return w
}
