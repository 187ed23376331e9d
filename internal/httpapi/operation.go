package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coderclaw/runtime/internal/policy"
)

// operation describes a route. It cannot be registered without a permission.
type operation struct {
	id         string
	action     string // as the audit log names what it does
	method     string
	path       string
	permission policy.Permission
	tag        string
	summary    string
	detail     string
	status     int               // of success; default 200
	wait       time.Duration     // how long it may wait for a task, besides its work
	workers    bool              // it is also for workers' credentials, which have no permissions
	agents     bool              // it is also for the agent of the leased task that {id} names
	body       int64             // the largest body that is read; default maxBody
	request    *huma.RequestBody // what the handler reads by itself
	errors     []int             // besides those that every operation can answer with
	responses  map[string]*huma.Response
}

// workTimeout bounds the work for a request. It ends before streams begin.
const workTimeout = 10 * time.Second

// maxBody is the largest body that is read. huma refuses a body of exactly its
// limit.
const maxBody = 1<<20 + 1

// handle registers a route whose handler is told who asks. Its errors become
// problems here and nowhere else.
func handle[I, O any](s *Server, op operation, h func(context.Context, policy.Caller, *I) (*O, error)) {
	if op.permission == "" || op.action == "" {
		panic("httpapi: " + op.id + " names no permission or no action")
	}
	errs := append([]int{http.StatusInternalServerError, http.StatusServiceUnavailable}, op.errors...)
	security := []map[string][]string{}
	if op.permission != policy.Public {
		errs = append(errs, http.StatusUnauthorized, http.StatusForbidden)
		security = append(security, map[string][]string{"bearer": {}})
	}
	if op.method != http.MethodGet && op.method != http.MethodHead && op.method != http.MethodDelete {
		errs = append(errs, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	slices.Sort(errs)
	huma.Register(s.api, huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Tags: []string{op.tag},
		Summary: op.summary, Description: op.detail, DefaultStatus: op.status,
		Errors: slices.Compact(errs), RequestBody: op.request, Responses: op.responses, Security: security,
		MaxBodyBytes: cmp.Or(op.body, maxBody), RejectUnknownQueryParameters: true,
		Metadata:   map[string]any{permissionOf: op.permission, actionOf: op.action, workersOf: op.workers, agentsOf: op.agents},
		Extensions: map[string]any{"x-permission": string(op.permission)},
	}, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, workTimeout+op.wait)
		defer cancel()
		out, err := h(ctx, callerOf(ctx), in)
		if err != nil {
			return nil, problemOf(ctx, s.log, err)
		}
		return out, nil
	})
}
