package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/edge"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

// Access says who is let in without an account.
type Access struct {
	// Token is the bearer token of the operator, a principal with the role
	// admin. Empty: there is none.
	Token string
	// Anonymous is who a request without a credential speaks for. Without a
	// UserID such requests are refused.
	Anonymous policy.Caller
}

// Operator is who Access.Token speaks for.
var Operator = policy.Caller{UserID: "operator", Roles: []policy.Role{policy.Admin}, AllProjects: true}

// Identity knows who asks.
type Identity interface {
	Authenticate(ctx context.Context, r identity.Request) (policy.Caller, error)
	// Valid returns the caller as it is by now.
	Valid(ctx context.Context, c policy.Caller) (policy.Caller, error)
	Sessions
	Memories
	Accounts
	Devices
}

// Policies decides.
type Policies interface {
	Decide(ctx context.Context, c policy.Caller, r policy.Request) (policy.Decision, error)
	// Policy returns what holds in a project; "" is in none.
	Policy(ctx context.Context, projectID string) (*policy.Policy, error)
}

// Recorder keeps denials.
type Recorder interface {
	Record(ctx context.Context, e audit.Entry)
}

// sessionCookie is what browsers hold instead of a token.
const sessionCookie = "__Host-coderclaw"

// credential is what a request brings along to say who it speaks for.
type credential struct {
	bearer string
	cookie string
	ticket string
}

func credentialOf(r *http.Request) (c credential, err error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if c.bearer = strings.TrimSpace(token); c.bearer == "" || !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "DPoP") {
			return c, fault.New(fault.Unauthenticated, "the credential is not accepted")
		}
		return c, nil
	}
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		c.cookie = cookie.Value
		return c, nil
	}
	if strings.HasSuffix(r.URL.Path, "/stream") {
		c.ticket = r.URL.Query().Get("ticket")
	}
	return c, nil
}

// ambient reports whether the request is let in by what a browser adds to it,
// whichever page makes it.
func (s *Server) ambient(r *http.Request) bool {
	if r.Header.Get("Authorization") != "" {
		return false
	}
	if s.access.Anonymous.UserID != "" {
		return true
	}
	_, err := r.Cookie(sessionCookie)
	return err == nil
}

// caller finds out who the request speaks for. A credential that is not
// accepted is an Unauthenticated fault, also where none would be needed.
func (s *Server) caller(r *http.Request) (policy.Caller, error) {
	peer := edge.PeerOf(r.Context())
	cred, err := credentialOf(r)
	var c policy.Caller
	switch {
	case err != nil:
	case cred == credential{}:
		// Whoever comes through a proxy may be from anywhere.
		if c = s.access.Anonymous; c.UserID == "" || !peer.Local {
			err = fault.New(fault.Unauthenticated, "a bearer token is needed")
		}
	case cred.bearer != "" && s.access.Token != "" && equal(cred.bearer, s.access.Token):
		c = Operator
	case strings.HasPrefix(cred.bearer, api.AgentTokenPrefix):
		c, err = s.agent(r.Context(), cred.bearer)
	default:
		o := requestOf(r.Context()).origin
		c, err = s.identity.Authenticate(r.Context(), identity.Request{
			Bearer: cred.bearer, Cookie: cred.cookie, Ticket: cred.ticket, Proof: o.Proof, Method: o.Method, URL: o.URL,
			Local: o.Local, Address: o.Address, RequestID: o.RequestID, UserAgent: o.UserAgent,
		})
	}
	c.RequestID, c.Address, c.Local = RequestID(r.Context()), peer.String(), peer.Local
	return c, err
}

// urlOf is the URL that a proof of the request must name. The server goes by
// its public name; clients on this machine may call it by another.
func (s *Server) urlOf(r *http.Request) string {
	if edge.PeerOf(r.Context()).Local && r.Host != "" {
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		return scheme + r.Host + r.URL.EscapedPath()
	}
	return s.publicURL + r.URL.EscapedPath()
}

// equal takes the same time wherever the strings differ, also in length.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// Names under which an operation keeps what authorize must know of it.
const (
	permissionOf = "permission"
	actionOf     = "action"
	workersOf    = "workers"
	agentsOf     = "agents"
)

// authorize stands before every operation, and before its body is read: who
// asks, may they, and not too often?
func (s *Server) authorize(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	c, p := s.admitted(r, ctx.Operation().Metadata, ctx.Param("id"))
	if p != nil {
		writeProblem(w, r, p)
		return
	}
	next(huma.WithValue(ctx, callerKey, c))
}

// aboutTasks are the actions that the engine decides about again, when it knows
// the task.
var aboutTasks = []string{"task.submit", "task.cancel"}

func (s *Server) admitted(r *http.Request, operation map[string]any, id string) (policy.Caller, *Problem) {
	permission, action := operation[permissionOf].(policy.Permission), operation[actionOf].(string)
	ctx, peer := r.Context(), edge.PeerOf(r.Context())
	req := requestOf(ctx)
	req.peerKey = peer.Key()
	req.origin = identity.Origin{
		Local: peer.Local, Address: peer.String(), RequestID: req.id, UserAgent: r.UserAgent(),
		Proof: r.Header.Get("DPoP"), Method: r.Method, URL: s.urlOf(r),
	}
	if permission == policy.Public {
		return policy.Caller{RequestID: RequestID(ctx), Address: peer.String(), Local: peer.Local},
			s.limited(s.limits.anonymous, peer.Key())
	}
	c, err := s.caller(r)
	forAgent := operation[agentsOf].(bool)
	if fault.CodeOf(err) == fault.LeaseLost && !(forAgent && s.names(r, id)) {
		err = fault.New(fault.Unauthenticated, "the credential is not accepted")
	}
	if code := fault.CodeOf(err); code == fault.Unauthenticated || code == fault.LeaseLost {
		// A request without a credential is a question, not a failed attempt.
		if cred, badHeader := credentialOf(r); badHeader != nil || cred != (credential{}) {
			if wait, ok := s.limits.failures.Take(peer.Key()); !ok {
				return c, tooMany(wait)
			}
			s.recorder.Record(ctx, audit.NewEntry(c, "request.authenticate", "", "", policy.Decision{Layer: policy.LayerSession, Reason: err.Error()}))
		}
	}
	if err != nil {
		return c, problemOf(ctx, s.log, err)
	}
	if !s.unlimited(c) {
		if p := s.limited(s.limits.principal, c.UserID); p != nil {
			return c, p
		}
	}
	if c.Worker != nil && operation[workersOf].(bool) {
		permission = policy.Work
	}
	if c.Lease != nil && forAgent && strings.EqualFold(c.Lease.TaskID, id) {
		permission = policy.Report
	}
	d, err := s.policies.Decide(ctx, c, policy.Request{
		Permission: permission, Action: action, ProjectID: c.ProjectID,
		Preliminary: slices.Contains(aboutTasks, action),
	})
	if err == nil && !d.Allowed {
		resource, _, _ := strings.Cut(action, ".")
		s.recorder.Record(ctx, audit.NewEntry(c, action, resource, id, d))
		err = d.Err()
	}
	if err != nil {
		return c, problemOf(ctx, s.log, err)
	}
	return c, nil
}

// callerOf returns who authorize let in.
func callerOf(ctx context.Context) policy.Caller {
	c, _ := ctx.Value(callerKey).(policy.Caller)
	return c
}

// mayFollow reports whether the caller may go on following a stream: sessions
// end and are revoked, and policies change, while it is open.
func (s *Server) mayFollow(ctx context.Context, c *policy.Caller) bool {
	return s.stillMay(ctx, c, policy.TaskRead, "task.read")
}

// stillMay reports whether the caller, whom it brings up to date, may go on with
// what it was allowed when it began.
func (s *Server) stillMay(ctx context.Context, c *policy.Caller, p policy.Permission, action string) bool {
	if c.SessionID != "" {
		now, err := s.identity.Valid(ctx, *c)
		if err != nil {
			return false
		}
		*c = now
	}
	d, err := s.policies.Decide(ctx, *c, policy.Request{Permission: p, Action: action, ProjectID: c.ProjectID})
	return err == nil && d.Allowed
}
