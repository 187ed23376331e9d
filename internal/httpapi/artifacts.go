package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// Artifacts is the part of the task engine that keeps files.
type Artifacts interface {
	Artifacts(ctx context.Context, c policy.Caller, taskID uuid.UUID) ([]task.Artifact, error)
	Artifact(ctx context.Context, c policy.Caller, taskID uuid.UUID, name string) (task.Artifact, error)
	ReadArtifact(ctx context.Context, a task.Artifact) (*task.ArtifactReader, error)
	PutArtifact(ctx context.Context, c policy.Caller, n task.NewArtifact, content io.Reader) (a task.Artifact, created bool, err error)
	DeleteArtifact(ctx context.Context, c policy.Caller, taskID uuid.UUID, name string, cond task.ArtifactCondition) error
}

type (
	// ArtifactInput names an artifact.
	ArtifactInput struct {
		IDInput
		Name string `path:"name" doc:"1 to 200 printable characters, no slashes." example:"report.html"`
	}
	// ConditionInput lets a change happen only to what the client has seen.
	ConditionInput struct {
		IfMatch     string `header:"If-Match" maxLength:"66" doc:"The ETag of the artifact that must be there."`
		IfNoneMatch string `header:"If-None-Match" maxLength:"1" doc:"*: there must be none."`
	}
	putArtifactInput struct {
		ArtifactInput
		LeaseInput
		ConditionInput
		Digest string `header:"Content-Digest" maxLength:"1000" doc:"What the content must hash to, by sha-256 (RFC 9530)." example:"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"`
	}
)

func (s *Server) registerArtifacts() {
	file := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
	content := map[string]*huma.Response{
		"200": {Description: "The content, with its media type.", Content: map[string]*huma.MediaType{"application/octet-stream": file}},
		"206": {Description: "The parts of it that Range asks for.", Content: map[string]*huma.MediaType{"application/octet-stream": file}},
		"304": {Description: "It is the one that If-None-Match names."},
		"412": {Description: "It is not the one that If-Match names."},
		"416": {Description: "It has no such part."},
	}
	kept := map[string]*huma.MediaType{"application/json": {
		Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.Artifact](), true, "Artifact"),
	}}
	handle(s, operation{
		id: "listArtifacts", action: "artifact.list", method: http.MethodGet, path: "/v1/tasks/{id}/artifacts", permission: policy.TaskRead, tag: "Artifacts",
		summary: "List the artifacts of a task, by name", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.listArtifacts)
	handle(s, operation{
		id: "getArtifact", action: "artifact.read", method: http.MethodGet, path: "/v1/tasks/{id}/artifacts/{name}", permission: policy.TaskRead, tag: "Artifacts",
		summary: "Get an artifact", responses: content, errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		detail: "With Range and conditions on the ETag (RFC 9110). What has begun is sent to its end, even if the artifact is replaced meanwhile; the connection breaks off if that cannot be done. No browser shows it as a page of the server.",
	}, s.getArtifact)
	handle(s, operation{
		id: "headArtifact", action: "artifact.read", method: http.MethodHead, path: "/v1/tasks/{id}/artifacts/{name}", permission: policy.TaskRead, tag: "Artifacts",
		summary: "Get what is known of an artifact, without its content", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		responses: map[string]*huma.Response{"200": {Description: "Its size, media type and ETag, in the headers."}},
	}, s.getArtifact)
	handle(s, operation{
		id: "putArtifact", action: "artifact.put", method: http.MethodPut, path: "/v1/tasks/{id}/artifacts/{name}", permission: policy.TaskSubmit, workers: true, tag: "Artifacts",
		summary: "Put an artifact, or replace it",
		detail:  "For tasks with dispatch manual, by whoever submitted them; with Lease-Token, for a task that a worker holds. The body is the content, of any media type. Nobody sees any of it before all of it is kept. 409 if a condition is not met, or the task has ended.",
		request: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": file}},
		responses: map[string]*huma.Response{
			"200": {Description: "It stands in place of another.", Content: kept},
			"201": {Description: "It is new.", Content: kept},
		},
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
	}, s.putArtifact)
	handle(s, operation{
		id: "deleteArtifact", action: "artifact.delete", method: http.MethodDelete, path: "/v1/tasks/{id}/artifacts/{name}", permission: policy.TaskSubmit, tag: "Artifacts",
		summary: "Delete an artifact", status: http.StatusNoContent,
		detail: "For whoever submitted the task, and for administrators. 409 if a condition is not met.",
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.deleteArtifact)
}

func artifactETag(a task.Artifact) string { return `"` + hex.EncodeToString(a.SHA256) + `"` }

func (in *ConditionInput) condition() (cond task.ArtifactCondition, err error) {
	bad := func(header, message string) error {
		return fault.InvalidFields([]fault.Field{{Path: "header." + header, Message: message}})
	}
	switch {
	case in.IfMatch != "" && in.IfNoneMatch != "":
		return cond, bad("If-Match", "and If-None-Match exclude each other")
	case in.IfNoneMatch != "" && in.IfNoneMatch != "*":
		return cond, bad("If-None-Match", "must be *")
	case in.IfMatch == "":
		return task.ArtifactCondition{Absent: in.IfNoneMatch == "*"}, nil
	}
	digits, quoted := strings.CutPrefix(in.IfMatch, `"`)
	digits, closed := strings.CutSuffix(digits, `"`)
	cond.SHA256, err = hex.DecodeString(digits)
	if !quoted || !closed || err != nil || len(cond.SHA256) == 0 {
		return cond, bad("If-Match", "must be the ETag of another answer")
	}
	return cond, nil
}

// digest reads the sha-256 of a Content-Digest, a dictionary of which other
// members do not matter (RFC 9530, section 2); nil if there is none.
func digest(header string) ([]byte, error) {
	for member := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(member), "=")
		if name != "sha-256" {
			continue
		}
		text, opened := strings.CutPrefix(value, ":")
		text, closed := strings.CutSuffix(text, ":")
		sum, err := base64.StdEncoding.DecodeString(text)
		if !opened || !closed || err != nil || len(sum) != 32 {
			return nil, fault.InvalidFields([]fault.Field{{Path: "header.Content-Digest", Message: "must hold a SHA-256 in Base64, as sha-256=:…:"}})
		}
		return sum, nil
	}
	return nil, nil
}

func wireArtifact(a task.Artifact) api.Artifact {
	return api.Artifact{
		TaskID: a.TaskID.String(), Name: a.Name, Size: a.Size, SHA256: hex.EncodeToString(a.SHA256),
		ContentType: a.ContentType, CreatedAt: a.CreatedAt.UTC(), CreatedBy: a.CreatedBy,
	}
}

func (s *Server) listArtifacts(ctx context.Context, c policy.Caller, in *IDInput) (*struct{ Body api.ArtifactList }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	all, err := s.artifacts.Artifacts(ctx, c, id)
	list := api.ArtifactList{Items: make([]api.Artifact, len(all))}
	for i, a := range all {
		list.Items[i] = wireArtifact(a)
	}
	return &struct{ Body api.ArtifactList }{list}, err
}

func (s *Server) getArtifact(ctx context.Context, c policy.Caller, in *ArtifactInput) (*huma.StreamResponse, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	a, err := s.artifacts.Artifact(ctx, c, id, in.Name)
	if err != nil {
		return nil, err
	}
	return s.transferring(c, policy.TaskRead, "artifact.read", func(t *transfer) { t.sendArtifact(a) })
}

func (s *Server) putArtifact(_ context.Context, c policy.Caller, in *putArtifactInput) (*huma.StreamResponse, error) {
	n := task.NewArtifact{Name: in.Name}
	var err error
	if n.TaskID, err = parseID(in.ID, "path.id"); err != nil {
		return nil, err
	}
	if n.Lease, err = in.token(); err != nil {
		return nil, err
	}
	if n.If, err = in.condition(); err != nil {
		return nil, err
	}
	if n.SHA256, err = digest(in.Digest); err != nil {
		return nil, err
	}
	permission := policy.TaskSubmit
	if c.Worker != nil {
		permission = policy.Work
	}
	return s.transferring(c, permission, "artifact.put", func(t *transfer) { t.takeArtifact(n) })
}

func (s *Server) deleteArtifact(ctx context.Context, c policy.Caller, in *struct {
	ArtifactInput
	ConditionInput
}) (*struct{}, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	cond, err := in.condition()
	if err != nil {
		return nil, err
	}
	return nil, s.artifacts.DeleteArtifact(ctx, c, id, in.Name, cond)
}

const (
	// transferPause is how long the other side may take for the next piece.
	transferPause = 30 * time.Second
	// reviewInterval is how often it is asked whether a transfer may go on,
	// besides whenever rights change.
	reviewInterval = 15 * time.Second
)

// transfer is a content on its way in or out, which may take much longer than
// other requests: for as long as it goes on, and the caller may have it go on.
type transfer struct {
	s          *Server
	w          http.ResponseWriter
	r          *http.Request
	control    *http.ResponseController
	caller     policy.Caller
	permission policy.Permission
	action     string
	changed    <-chan struct{}
	reviewed   time.Time
	err        error
}

// transferring is the answer that a transfer makes.
func (s *Server) transferring(c policy.Caller, p policy.Permission, action string, carry func(*transfer)) (*huma.StreamResponse, error) {
	release, err := s.takeStream(c)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		requestOf(hc.Context()).stream = func(w http.ResponseWriter, r *http.Request) {
			defer release()
			carry(&transfer{
				s: s, w: w, r: r, control: http.NewResponseController(w), caller: c, permission: p, action: action,
				changed: s.accessChanged.wait(), reviewed: time.Now(),
			})
		}
	}}, nil
}

// step gives the other side time for the next piece, unless the transfer is to
// end.
func (t *transfer) step() error {
	select {
	case <-t.changed:
		t.changed = t.s.accessChanged.wait()
	default:
		if time.Since(t.reviewed) < reviewInterval {
			return t.extend()
		}
	}
	t.reviewed = time.Now()
	if !t.s.stillMay(t.r.Context(), &t.caller, t.permission, t.action) {
		return fault.New(fault.Forbidden, "%s is not allowed any more", t.action)
	}
	return t.extend()
}

// extend moves the deadlines on; recorders in tests have none.
func (t *transfer) extend() error {
	next := time.Now().Add(transferPause)
	if err := errors.Join(t.control.SetReadDeadline(next), t.control.SetWriteDeadline(next)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// sendArtifact sends an artifact, or the parts of it that are asked for.
func (t *transfer) sendArtifact(a task.Artifact) {
	ctx := t.r.Context()
	content, err := t.s.artifacts.ReadArtifact(ctx, a)
	if err != nil {
		writeProblem(t.w, t.r, problemOf(ctx, t.s.log, err))
		return
	}
	defer func() { _ = content.Close() }() // it was only read
	h := t.w.Header()
	h.Set("Content-Type", a.ContentType)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": a.Name}))
	// Whatever it is, it is not a page of ours.
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
	h.Set("ETag", artifactETag(a))
	h.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(a.SHA256)+":") // RFC 9530, section 3
	http.ServeContent(transferWriter{t.w, t}, t.r, "", time.Time{}, content)
	if err := errors.Join(t.err, content.Err()); err != nil {
		if ctx.Err() == nil {
			t.s.log.WarnContext(ctx, "an artifact was not sent to its end", "task", a.TaskID, "artifact", a.Name, "error", err)
		}
		// The client must not take what it has for all there is.
		panic(http.ErrAbortHandler)
	}
}

// transferWriter is the answer of a transfer.
type transferWriter struct {
	http.ResponseWriter
	t *transfer
}

func (w transferWriter) Write(p []byte) (n int, err error) {
	if err = w.t.step(); err == nil {
		n, err = w.ResponseWriter.Write(p)
	}
	if err != nil && w.t.err == nil {
		w.t.err = err
	}
	return n, err
}

// takeArtifact keeps the request's body.
func (t *transfer) takeArtifact(n task.NewArtifact) {
	ctx := t.r.Context()
	refuse := func(err error) { writeProblem(t.w, t.r, problemOf(ctx, t.s.log, err)) }
	switch {
	case t.r.Header.Get("Content-Range") != "": // RFC 9110, section 14.5
		refuse(newProblem(http.StatusBadRequest, "", "an artifact is put as a whole, not in parts"))
		return
	case t.r.Header.Get("Content-Encoding") != "":
		refuse(newProblem(http.StatusUnsupportedMediaType, "", "an artifact is kept as it is sent: send it without a Content-Encoding"))
		return
	}
	n.ContentType, n.Size = t.r.Header.Get("Content-Type"), t.r.ContentLength
	a, created, err := t.s.artifacts.PutArtifact(ctx, t.caller, n, transferReader{t})
	if err != nil {
		refuse(err)
		return
	}
	var body bytes.Buffer
	if err := encodeJSON(&body, wireArtifact(a)); err != nil {
		refuse(err)
		return
	}
	h := t.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("ETag", artifactETag(a))
	if created {
		h.Set("Location", t.r.URL.EscapedPath())
		t.w.WriteHeader(http.StatusCreated)
	}
	_, _ = t.w.Write(body.Bytes()) // the client may be gone
}

// transferReader is the body of a transfer. At its end the caller must still be
// one who may.
type transferReader struct{ t *transfer }

func (r transferReader) Read(p []byte) (int, error) {
	if err := r.t.step(); err != nil {
		return 0, err
	}
	n, err := r.t.r.Body.Read(p)
	if errors.Is(err, io.EOF) {
		r.t.reviewed = time.Time{}
		if err := r.t.step(); err != nil {
			return n, err
		}
	}
	return n, err
}
