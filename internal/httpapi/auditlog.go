package httpapi

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// AuditLog is the record of every decision.
type AuditLog interface {
	Write(ctx context.Context, e audit.Entry) error
	Search(ctx context.Context, q audit.Query, before uuid.UUID, limit int) ([]audit.Entry, bool, error)
	Each(ctx context.Context, q audit.Query, yield func(audit.Entry) error) error
	Export(ctx context.Context, w io.Writer, q audit.Query, f audit.Format) error
	Checkpoint(ctx context.Context) (audit.Checkpoint, error)
	Proof(ctx context.Context, q audit.Query, id uuid.UUID) (audit.Proof, error)
	Consistency(ctx context.Context, from, to int64) (audit.Consistency, error)
	Verifier() string
}

type (
	// AuditInput selects entries.
	AuditInput struct {
		UserID       string    `query:"userId" maxLength:"300"`
		Action       string    `query:"action" maxLength:"64" example:"task.submit"`
		Result       string    `query:"result" enum:"allowed,denied,error"`
		ResourceType string    `query:"resourceType" maxLength:"64"`
		ResourceID   string    `query:"resourceId" maxLength:"300"`
		SessionID    string    `query:"sessionId" maxLength:"36"`
		ProjectID    string    `query:"projectId" maxLength:"128"`
		Since        time.Time `query:"since" doc:"The earliest time."`
		Until        time.Time `query:"until" doc:"The time before which it was."`
	}
	// FormatInput says in which form entries are wanted.
	FormatInput struct {
		Format string `query:"format" enum:"json,ocsf,cef" default:"json" doc:"json: as in lists. ocsf: Open Cybersecurity Schema Framework 1.3. cef: Common Event Format."`
	}
)

func (s *Server) registerAudit() {
	handle(s, operation{
		id: "listAudit", action: "audit.read", method: http.MethodGet, path: "/v1/audit", permission: policy.Admitted, tag: "Audit",
		summary: "List decisions, newest first", errors: []int{http.StatusUnprocessableEntity},
		detail: "Administrators see all, or those of the project that they are confined to; to look is recorded. Others see those of their own session.",
	}, s.listAudit)
	handle(s, operation{
		id: "exportAudit", action: "audit.export", method: http.MethodGet, path: "/v1/audit/export", permission: policy.Admitted, tag: "Audit",
		summary: "Get decisions, one a line, for other programs", errors: []int{http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		detail: "Who sees what is as in the list. The connection breaks off, without the end of the body, if the export cannot be completed.",
		responses: map[string]*huma.Response{"200": {
			Description: "One entry a line, newest first.",
			Content: map[string]*huma.MediaType{
				audit.JSON.ContentType(): {Schema: &huma.Schema{Type: huma.TypeString}},
				audit.CEF.ContentType():  {Schema: &huma.Schema{Type: huma.TypeString}},
			},
		}},
	}, s.exportAudit)
	handle(s, operation{
		id: "getAuditCheckpoint", action: "audit.checkpoint", method: http.MethodGet, path: "/v1/audit/checkpoint", permission: policy.Admitted, tag: "Audit",
		summary: "Get the state of the log as it was signed last", errors: []int{http.StatusNotFound},
	}, s.getAuditCheckpoint)
	handle(s, operation{
		id: "getAuditConsistency", action: "audit.checkpoint", method: http.MethodGet, path: "/v1/audit/consistency", permission: policy.Admitted, tag: "Audit",
		summary: "Get what shows that the log of one size begins with that of another", errors: []int{http.StatusUnprocessableEntity},
	}, s.getAuditConsistency)
	handle(s, operation{
		id: "getAuditProof", action: "audit.read", method: http.MethodGet, path: "/v1/audit/{id}/proof", permission: policy.Admitted, tag: "Audit",
		summary: "Get what shows that an entry is in the log", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "An entry is sealed within a second or two; until then the answer is 409.",
	}, s.getAuditProof)
}

func (in *AuditInput) query() audit.Query {
	return audit.Query{
		UserID: in.UserID, Action: in.Action, Result: audit.Result(in.Result), ResourceType: in.ResourceType, ResourceID: in.ResourceID,
		SessionID: in.SessionID, ProjectID: in.ProjectID, Since: in.Since, Until: in.Until,
	}
}

// mayAudit narrows a query to what the caller may see, and records that an
// administrator looks. none says that this is nothing.
func (s *Server) mayAudit(ctx context.Context, c policy.Caller, q *audit.Query, action, id string) (none bool, err error) {
	d, err := s.policies.Decide(ctx, c, policy.Request{Permission: policy.AdminAll, Action: action, ProjectID: c.ProjectID})
	if err != nil {
		return false, err
	}
	if d.Allowed {
		e := audit.NewEntry(c, action, "audit", id, d)
		return !c.AllProjects && !only(&q.ProjectID, c.ProjectID), s.audit.Write(ctx, e)
	}
	if c.SessionID == "" {
		s.recorder.Record(ctx, audit.NewEntry(c, action, "audit", id, d))
		return false, d.Err()
	}
	return !only(&q.SessionID, c.SessionID), nil
}

// only narrows a filter to one value. It reports whether something is left.
func only(filter *string, value string) bool {
	left := *filter == "" || *filter == value
	*filter = value
	return left && value != ""
}

func (s *Server) listAudit(ctx context.Context, c policy.Caller, in *struct {
	AuditInput
	PageInput
}) (*struct{ Body api.AuditList }, error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	q := in.query()
	list := api.AuditList{Items: []api.AuditEntry{}}
	none, err := s.mayAudit(ctx, c, &q, "audit.read", "")
	if err != nil || none {
		return &struct{ Body api.AuditList }{list}, err
	}
	entries, more, err := s.audit.Search(ctx, q, before, in.Limit)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		list.Items = append(list.Items, wireEntry(e))
	}
	if more {
		list.NextCursor = after(entries[len(entries)-1].ID)
	}
	return &struct{ Body api.AuditList }{list}, nil
}

func wireEntry(e audit.Entry) api.AuditEntry {
	return api.AuditEntry{
		ID: e.ID.String(), Time: e.CreatedAt.UTC(), UserID: e.UserID, SessionID: e.SessionID, DeviceID: e.DeviceID, ProjectID: e.ProjectID,
		Action: e.Action, ResourceType: e.ResourceType, ResourceID: e.ResourceID, Result: string(e.Result), Layer: e.Layer, Rule: e.Rule,
		Reason: e.Reason, PolicyVersion: e.PolicyVersion, RequestID: e.RequestID, Address: e.Address, Details: e.Details,
	}
}

func (s *Server) exportAudit(ctx context.Context, c policy.Caller, in *struct {
	AuditInput
	FormatInput
}) (*huma.StreamResponse, error) {
	q, format := in.query(), audit.Format(in.Format)
	release, err := s.takeStream(c)
	if err != nil {
		return nil, err
	}
	none, err := s.mayAudit(ctx, c, &q, "audit.export", "")
	if err != nil {
		release()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		requestOf(hc.Context()).stream = func(w http.ResponseWriter, r *http.Request) {
			defer release()
			w.Header().Set("Content-Type", format.ContentType())
			out := &exportWriter{w: w, c: http.NewResponseController(w), timeout: s.writeTimeout}
			if none {
				return
			}
			if err := s.audit.Export(r.Context(), out, q, format); err != nil {
				s.log.WarnContext(r.Context(), "audit export broken off", "error", err)
				if !out.begun {
					writeProblem(w, r, problemOf(r.Context(), s.log, err))
					return
				}
				// The client must not take what it has for all there is.
				panic(http.ErrAbortHandler)
			}
		}
	}}, nil
}

// exportWriter writes as long as the client takes what it is sent.
type exportWriter struct {
	w       http.ResponseWriter
	c       *http.ResponseController
	timeout time.Duration
	begun   bool
}

func (o *exportWriter) Write(p []byte) (int, error) {
	o.begun = true
	if err := o.c.SetWriteDeadline(time.Now().Add(o.timeout)); err != nil {
		return 0, err
	}
	n, err := o.w.Write(p)
	if err == nil {
		err = o.c.Flush()
	}
	return n, err
}

func (s *Server) getAuditCheckpoint(ctx context.Context, _ policy.Caller, _ *struct{}) (*struct{ Body api.AuditCheckpoint }, error) {
	c, err := s.audit.Checkpoint(ctx)
	return &struct{ Body api.AuditCheckpoint }{api.AuditCheckpoint{Note: c.Note, Size: c.Size, Verifier: s.audit.Verifier()}}, err
}

func (s *Server) getAuditConsistency(ctx context.Context, _ policy.Caller, in *struct {
	From int64 `query:"from" minimum:"0"`
	To   int64 `query:"to" minimum:"0" doc:"0: the newest checkpoint's."`
}) (*struct{ Body api.AuditConsistency }, error) {
	p, err := s.audit.Consistency(ctx, in.From, in.To)
	w := api.AuditConsistency{From: p.From, To: p.To, Hashes: []string{}, Checkpoint: p.Checkpoint}
	for _, h := range p.Hashes {
		w.Hashes = append(w.Hashes, base64.StdEncoding.EncodeToString(h[:]))
	}
	return &struct{ Body api.AuditConsistency }{w}, err
}

func (s *Server) getAuditProof(ctx context.Context, c policy.Caller, in *IDInput) (*struct{ Body api.AuditProof }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	var q audit.Query
	none, err := s.mayAudit(ctx, c, &q, "audit.read", in.ID)
	if err != nil {
		return nil, err
	}
	if none {
		return nil, fault.New(fault.NotFound, "no audit entry %s", id)
	}
	p, err := s.audit.Proof(ctx, q, id)
	w := api.AuditProof{Index: p.Index, Leaf: []byte(p.Leaf), Hashes: []string{}, Checkpoint: p.Checkpoint}
	for _, h := range p.Hashes {
		w.Hashes = append(w.Hashes, base64.StdEncoding.EncodeToString(h[:]))
	}
	return &struct{ Body api.AuditProof }{w}, err
}
