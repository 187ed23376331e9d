package api

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// GrantScope says how far an approval is remembered.
type GrantScope string

// The scopes of grants.
const (
	GrantTask    GrantScope = "task"
	GrantSession GrantScope = "session"
	GrantProject GrantScope = "project"
)

// Grant is an approval that is remembered: it holds for the very same request of
// the same agent, within its scope, for as long as who gave it may approve it.
type Grant struct {
	ID         string     `json:"id" format:"uuid"`
	Scope      GrantScope `json:"scope" enum:"task,session,project"`
	TaskID     string     `json:"taskId,omitempty" format:"uuid" doc:"With scope task."`
	SessionID  string     `json:"sessionId,omitempty" doc:"With scope session."`
	ProjectID  string     `json:"projectId,omitempty"`
	AgentID    string     `json:"agentId"`
	Text       string     `json:"text" doc:"What was asked."`
	Tool       *ToolCall  `json:"tool,omitempty"`
	GrantedBy  string     `json:"grantedBy"`
	CreatedAt  time.Time  `json:"createdAt"`
	ExpiresAt  time.Time  `json:"expiresAt"`
	LastUsedAt *time.Time `json:"lastUsedAt,omitempty"`
	Uses       int        `json:"uses" doc:"How many requests it has let through."`
}

// GrantList is one page of grants, newest first.
type GrantList struct {
	Items      []Grant `json:"items"`
	NextCursor string  `json:"nextCursor,omitempty" doc:"Ask for the next page with ?cursor=. Absent on the last page."`
}

// Grants yields the approvals that are remembered and that the caller sees, newest
// first. It ends after an error.
func (c *Client) Grants(ctx context.Context) iter.Seq2[Grant, error] {
	return pages("", func(cursor string) ([]Grant, string, error) {
		var out GrantList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/grants", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// RevokeGrant forgets an approval: the next request is asked of people.
func (c *Client) RevokeGrant(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/grants", id)
}
