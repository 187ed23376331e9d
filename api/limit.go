package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// LimitKind says what a limit is of.
type LimitKind string

// The kinds of limits.
const (
	LimitAll     LimitKind = "all"
	LimitProject LimitKind = "project"
	LimitSession LimitKind = "session"
	LimitAgent   LimitKind = "agent"
)

// NewLimit is the body of PUT /v1/limits/{kind}.
type NewLimit struct {
	MaxConcurrentTasks *int  `json:"maxConcurrentTasks,omitempty" minimum:"0" maximum:"1000000" doc:"How many tasks run at once; 0: none. Absent: any number."`
	Rate               *Rate `json:"rate,omitempty" doc:"Of one agent only: how many of its tasks may be begun in a time."`
}

// Rate is how many tasks of an agent may be begun in a time. Each attempt counts.
type Rate struct {
	Tasks      int `json:"tasks" minimum:"1" maximum:"1000000" doc:"So many tasks, on average."`
	PerSeconds int `json:"perSeconds" minimum:"1" maximum:"2678400" doc:"In so many seconds."`
	Burst      int `json:"burst,omitempty" minimum:"0" maximum:"1000000" doc:"So many at once, after a time without any. Default: tasks."`
}

// PauseKind says what a pause is of.
type PauseKind string

// The kinds of pauses.
const (
	PauseAgent   PauseKind = "agent"
	PauseSession PauseKind = "session"
)

// NewPause is the body of POST /v1/agents/{id}/pause and
// POST /v1/sessions/{id}/pause.
type NewPause struct {
	Reason string `json:"reason,omitempty" maxLength:"2000" doc:"Shown with what is held back."`
}

// Pause says that no task of an agent or a session is begun for now.
type Pause struct {
	Kind     PauseKind `json:"kind" enum:"agent,session"`
	Name     string    `json:"name" doc:"The id of the agent or session."`
	Reason   string    `json:"reason,omitempty"`
	PausedAt time.Time `json:"pausedAt"`
	PausedBy string    `json:"pausedBy"`
}

// Limit is how many tasks may run at once, or be begun in a time.
type Limit struct {
	Kind               LimitKind `json:"kind" enum:"all,project,session,agent"`
	Name               string    `json:"name,omitempty" doc:"Of which; absent: of each that has no limit of its own."`
	MaxConcurrentTasks *int      `json:"maxConcurrentTasks,omitempty"`
	Rate               *Rate     `json:"rate,omitempty"`
	UpdatedAt          time.Time `json:"updatedAt"`
	UpdatedBy          string    `json:"updatedBy"`
}

// LimitList is all limits, by kind and name.
type LimitList struct {
	Items  []Limit `json:"items"`
	Pauses []Pause `json:"pauses" doc:"All agents that are paused, and the sessions that the caller may pause."`
}

// Limits returns how many tasks may run at once, and what is paused.
func (c *Client) Limits(ctx context.Context) (LimitList, error) {
	var out LimitList
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/limits", out: &out})
}

// Pause has no task of an agent or a session begun until Resume. What runs goes
// on, and tasks are accepted.
func (c *Client) Pause(ctx context.Context, kind PauseKind, id string, n NewPause) (Pause, error) {
	path, err := item("/v1/"+string(kind)+"s", id, "/pause")
	if err != nil {
		return Pause{}, err
	}
	var out Pause
	return out, c.do(ctx, call{method: http.MethodPost, path: path, in: n, out: &out})
}

// Resume ends a pause; where there is none it does nothing.
func (c *Client) Resume(ctx context.Context, kind PauseKind, id string) error {
	path, err := item("/v1/"+string(kind)+"s", id, "/resume")
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: http.MethodPost, path: path})
}

// PutLimit bounds how many tasks run at once.
func (c *Client) PutLimit(ctx context.Context, kind LimitKind, name string, n NewLimit) (Limit, error) {
	var out Limit
	return out, c.do(ctx, call{method: http.MethodPut, path: "/v1/limits/" + url.PathEscape(string(kind)), query: limitName(name), in: n, out: &out})
}

// DeleteLimit removes a limit.
func (c *Client) DeleteLimit(ctx context.Context, kind LimitKind, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/limits/" + url.PathEscape(string(kind)), query: limitName(name)})
}

func limitName(name string) url.Values {
	if name == "" {
		return nil
	}
	return url.Values{"name": {name}}
}
