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
	MaxConcurrentTasks int `json:"maxConcurrentTasks" minimum:"0" maximum:"1000000" doc:"How many tasks run at once; 0: none."`
}

// Limit is how many tasks may run at once.
type Limit struct {
	Kind               LimitKind `json:"kind" enum:"all,project,session,agent"`
	Name               string    `json:"name,omitempty" doc:"Of which; absent: of each that has no limit of its own."`
	MaxConcurrentTasks int       `json:"maxConcurrentTasks"`
	UpdatedAt          time.Time `json:"updatedAt"`
	UpdatedBy          string    `json:"updatedBy"`
}

// LimitList is all limits, by kind and name.
type LimitList struct {
	Items []Limit `json:"items"`
}

// Limits returns how many tasks may run at once.
func (c *Client) Limits(ctx context.Context) ([]Limit, error) {
	var out LimitList
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/limits", out: &out})
	return out.Items, err
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
