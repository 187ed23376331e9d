package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
)

// statusOf is the only place where faults become HTTP statuses.
var statusOf = map[fault.Code]int{
	fault.Invalid:             http.StatusUnprocessableEntity,
	fault.Unauthenticated:     http.StatusUnauthorized,
	fault.Forbidden:           http.StatusForbidden,
	fault.NotFound:            http.StatusNotFound,
	fault.Conflict:            http.StatusConflict,
	fault.InvalidTransition:   http.StatusConflict,
	fault.LeaseLost:           http.StatusConflict,
	fault.AgentUnavailable:    http.StatusUnprocessableEntity,
	fault.IdempotencyMismatch: http.StatusUnprocessableEntity,
	fault.TooLarge:            http.StatusRequestEntityTooLarge,
	fault.TooMany:             http.StatusTooManyRequests,
	fault.ProviderRefused:     http.StatusBadGateway,
	fault.Unavailable:         http.StatusServiceUnavailable,
	fault.AuditUnavailable:    http.StatusServiceUnavailable,
}

// slugOf names the problems that the HTTP layer finds by itself.
var slugOf = map[int]string{
	http.StatusBadRequest:            "bad-request",
	http.StatusUnauthorized:          string(fault.Unauthenticated),
	http.StatusForbidden:             string(fault.Forbidden),
	http.StatusNotFound:              string(fault.NotFound),
	http.StatusMethodNotAllowed:      "method-not-allowed",
	http.StatusNotAcceptable:         "not-acceptable",
	http.StatusRequestTimeout:        "request-timeout",
	http.StatusRequestEntityTooLarge: string(fault.TooLarge),
	http.StatusUnsupportedMediaType:  "unsupported-media-type",
	http.StatusUnprocessableEntity:   string(fault.Invalid),
	http.StatusInternalServerError:   "internal",
}

// Problem is api.Problem as an error that huma can write.
type Problem struct {
	api.Problem
	header http.Header // besides what the status asks for
}

func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// GetStatus is the HTTP status of the answer.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders are the headers that the problem asks for.
func (p *Problem) GetHeaders() http.Header {
	if p.header != nil {
		return p.header
	}
	switch p.Status {
	case http.StatusUnauthorized:
		return http.Header{"Www-Authenticate": {`Bearer realm="coderclaw"`}} // RFC 6750, section 3
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return http.Header{"Retry-After": {"1"}}
	}
	return nil
}

// ContentType is that of a problem (RFC 9457, section 3).
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func newProblem(status int, slug, detail string) *Problem {
	if slug == "" {
		if slug = slugOf[status]; slug == "" {
			slug = strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "-")
		}
	}
	return &Problem{Problem: api.Problem{Type: "/problems/" + slug, Title: http.StatusText(status), Status: status, Detail: detail}}
}

// problemOf turns an error of the engine into the answer to give. What is not a
// fault is nobody's business but the log's.
func problemOf(ctx context.Context, log *slog.Logger, err error) *Problem {
	var f *fault.Error
	var p *Problem
	switch {
	case errors.As(err, &p):
	case errors.As(err, &f) && statusOf[f.Code] != 0:
		p = newProblem(statusOf[f.Code], string(f.Code), f.Message)
		for _, field := range f.Fields {
			p.Errors = append(p.Errors, api.ProblemField{Location: field.Path, Message: field.Message})
		}
		if p.Status >= 500 {
			log.WarnContext(ctx, "request not served", "error", err)
		}
	case errors.Is(err, context.DeadlineExceeded):
		log.WarnContext(ctx, "request not served in time", "error", err)
		p = newProblem(http.StatusServiceUnavailable, string(fault.Unavailable), "the database did not answer in time")
	case ctx.Err() != nil:
		// The client has gone, or the server is stopping; nobody reads this.
		p = newProblem(http.StatusServiceUnavailable, string(fault.Unavailable), "the request was abandoned")
	default:
		log.ErrorContext(ctx, "request failed", "error", err)
		p = newProblem(http.StatusInternalServerError, "", "something went wrong on our side; the log has the details under the request id")
	}
	p.RequestID = RequestID(ctx)
	return p
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	p.RequestID = RequestID(r.Context())
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", p.ContentType(""))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// huma's own errors become problems too. Its details carry the offending value,
// which may be a secret, and are cut down to place and message. These hooks are
// global to the process, so they are set once, here.
func init() {
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return humaProblem("", status, message, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
		r, _ := humachi.Unwrap(ctx)
		return humaProblem(RequestID(r.Context()), status, message, errs)
	}
	huma.DefaultArrayNullable = false
	huma.ValidateStrictCasing = true
}

func humaProblem(requestID string, status int, message string, errs []error) *Problem {
	p := newProblem(status, "", message)
	p.RequestID = requestID
	for _, err := range errs[:min(len(errs), fault.MaxFields)] {
		if d, ok := err.(huma.ErrorDetailer); ok {
			detail := d.ErrorDetail()
			p.Errors = append(p.Errors, api.ProblemField{Location: detail.Location, Message: detail.Message})
		}
	}
	if len(p.Errors) > 0 {
		p.Detail = strings.TrimSpace(p.Errors[0].Location + " " + p.Errors[0].Message)
	}
	return p
}
