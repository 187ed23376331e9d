package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

// Sessions opens, shows and ends sessions.
type Sessions interface {
	OpenSession(ctx context.Context, o identity.Opening) (identity.Opened, error)
	Refresh(ctx context.Context, refreshToken string, o identity.Origin) (identity.Opened, error)
	Sessions(ctx context.Context, c policy.Caller, f identity.SessionFilter, before uuid.UUID, limit int) ([]identity.Session, bool, error)
	Session(ctx context.Context, c policy.Caller, id uuid.UUID) (identity.Session, error)
	Revoke(ctx context.Context, c policy.Caller, id uuid.UUID) error
	Ticket(ctx context.Context, c policy.Caller) (ticket string, expiresAt time.Time, err error)
	Logins(ctx context.Context) ([]string, error)
	BeginLogin(ctx context.Context, n identity.NewLogin) (identity.Login, error)
	FinishLogin(ctx context.Context, e identity.LoginEnd, o identity.Origin) (identity.Opened, error)
	JWKS(ctx context.Context) ([]byte, error)
}

// loginCookie holds a login's id while the browser is at the provider.
const loginCookie = "__Host-coderclaw-login"

// currentSession stands for the caller's own session in paths.
const currentSession = "current"

type (
	openedOutput struct {
		Status    int
		Location  string        `header:"Location" doc:"The path of the session."`
		SetCookie []http.Cookie `header:"Set-Cookie" doc:"For a browser: the session."`
		Body      *api.OpenedSession
	}
	// SessionInput names a session.
	SessionInput struct {
		ID string `path:"id" maxLength:"36" doc:"The session's id, or current for that of the request."`
	}
	// ProofInput carries a proof of a key.
	ProofInput struct {
		Proof string `header:"DPoP" maxLength:"8192" doc:"A proof (RFC 9449) of the key that the session is to be bound to."`
	}
)

func (s *Server) registerSessions() {
	handle(s, operation{
		id: "openSession", action: "session.create", method: http.MethodPost, path: "/v1/sessions", permission: policy.Public, tag: "Sessions",
		summary: "Exchange a credential for a session", status: http.StatusCreated,
		errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		detail: "With a DPoP proof the session is bound to its key: every request needs a proof then. For a browser the answer sets a cookie and holds no tokens.",
	}, s.openSession)
	handle(s, operation{
		id: "refreshSession", action: "session.refresh", method: http.MethodPost, path: "/v1/sessions/refresh", permission: policy.Public, tag: "Sessions",
		summary: "Get the next access token", errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		detail: "A refresh token is good once. If it comes again, it was stolen, and the session ends.",
	}, s.refreshSession)
	handle(s, operation{
		id: "listSessions", action: "session.list", method: http.MethodGet, path: "/v1/sessions", permission: policy.Authenticated, tag: "Sessions",
		summary: "List one's sessions; all, for an administrator", errors: []int{http.StatusUnprocessableEntity},
	}, s.listSessions)
	handle(s, operation{
		id: "getSession", action: "session.read", method: http.MethodGet, path: "/v1/sessions/{id}", permission: policy.Authenticated, tag: "Sessions",
		summary: "Get a session", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getSession)
	handle(s, operation{
		id: "revokeSession", action: "session.revoke", method: http.MethodDelete, path: "/v1/sessions/{id}", permission: policy.Authenticated, tag: "Sessions",
		summary: "End a session at once, its streams included", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.revokeSession)
	handle(s, operation{
		id: "createStreamTicket", action: "session.ticket", method: http.MethodPost, path: "/v1/stream-tickets", permission: policy.Admitted, tag: "Sessions",
		summary: "Get a ticket for one stream", status: http.StatusCreated, errors: []int{http.StatusConflict},
		detail: "An EventSource can send no header: it opens the stream with ?ticket=, once and within a minute.",
	}, s.createStreamTicket)
	handle(s, operation{
		id: "listLoginProviders", action: "login.list", method: http.MethodGet, path: "/v1/logins/providers", permission: policy.Public, tag: "Sessions",
		summary: "List the ways to log in",
	}, s.listLoginProviders)
	handle(s, operation{
		id: "beginLogin", action: "login.begin", method: http.MethodPost, path: "/v1/logins", permission: policy.Public, tag: "Sessions",
		summary: "Begin a login at an identity provider", status: http.StatusCreated,
		errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusBadGateway},
	}, s.beginLogin)
	handle(s, operation{
		id: "finishLogin", action: "session.create", method: http.MethodPost, path: "/v1/logins/finish", permission: policy.Public, tag: "Sessions",
		summary: "End a login at an identity provider", status: http.StatusCreated,
		detail: "Answers 202, without a session, while the person has not decided, and 429 if it is asked too often.",
		errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusBadGateway},
	}, s.finishLogin)
	handle(s, operation{
		id: "returnFromLogin", action: "session.create", method: http.MethodGet, path: identity.LoginCallback, permission: policy.Public, tag: "Sessions",
		summary: "Where a browser comes back from an identity provider", status: http.StatusSeeOther,
		errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusBadGateway},
	}, s.returnFromLogin)
	handle(s, operation{
		id: "getKeySet", action: "keys.read", method: http.MethodGet, path: "/.well-known/jwks.json", permission: policy.Public, tag: "Sessions",
		summary: "The keys that access tokens are signed with (RFC 7517)",
	}, s.getKeySet)
}

// guess runs what takes a credential from a stranger: an address that has tried
// too many bad ones must wait.
func (s *Server) guess(ctx context.Context, try func() error) error {
	key := requestOf(ctx).peerKey
	if wait, ok := s.limits.failures.Check(key); !ok {
		return tooMany(wait)
	}
	err := try()
	if fault.CodeOf(err) == fault.Unauthenticated {
		s.limits.failures.Take(key)
	}
	return err
}

func opening(n api.NewSession) identity.Opening {
	o := identity.Opening{
		Credential: identity.Credential{Login: n.Login, Password: n.Password, Code: n.Code, APIKey: n.APIKey, Token: n.Token},
		DeviceID:   n.DeviceID, Enrol: identity.DeviceEnrolment{Name: n.DeviceName, Code: n.EnrolmentCode}, ProjectID: n.ProjectID, TTL: time.Duration(n.ExpiresSeconds) * time.Second, Browser: n.Browser,
		Roles: texts[policy.Role](n.Roles),
	}
	return o
}

func (s *Server) openSession(ctx context.Context, _ policy.Caller, in *struct {
	ProofInput
	Body api.NewSession
}) (out *openedOutput, err error) {
	err = s.guess(ctx, func() error {
		o := opening(in.Body)
		o.Origin = requestOf(ctx).origin
		opened, err := s.identity.OpenSession(ctx, o)
		out = s.opened(opened)
		return err
	})
	return out, err
}

// opened is the answer that a session is opened.
func (s *Server) opened(o identity.Opened) *openedOutput {
	w := api.OpenedSession{
		Session: wireSession(o.Session), AccessToken: o.AccessToken, RefreshToken: o.RefreshToken, ExpiresIn: int(o.ExpiresIn.Seconds()),
	}
	if o.AccessToken != "" {
		w.TokenType = "Bearer"
		if o.Session.KeyThumbprint != "" {
			w.TokenType = "DPoP"
		}
	}
	out := &openedOutput{Status: http.StatusCreated, Location: "/v1/sessions/" + w.Session.ID, Body: &w}
	if o.Cookie != "" {
		out.SetCookie = []http.Cookie{cookie(sessionCookie, o.Cookie, time.Until(o.Session.ExpiresAt))}
	}
	return out
}

// cookie is sent back to this host alone, over TLS or the loopback, and neither
// shown to pages nor sent with requests that other sites' pages make.
func cookie(name, value string, age time.Duration) http.Cookie {
	return http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(age.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

func (s *Server) refreshSession(ctx context.Context, _ policy.Caller, in *struct {
	ProofInput
	Body api.RefreshRequest
}) (out *openedOutput, err error) {
	err = s.guess(ctx, func() error {
		opened, err := s.identity.Refresh(ctx, in.Body.RefreshToken, requestOf(ctx).origin)
		out = s.opened(opened)
		out.Status = http.StatusOK
		return err
	})
	return out, err
}

func (s *Server) listSessions(ctx context.Context, c policy.Caller, in *struct {
	PageInput
	UserID string `query:"userId" maxLength:"300"`
	Ended  bool   `query:"ended" doc:"List those that have ended, too."`
}) (*struct{ Body api.SessionList }, error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	sessions, more, err := s.identity.Sessions(ctx, c, identity.SessionFilter{UserID: in.UserID, Ended: in.Ended}, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.SessionList{Items: make([]api.Session, len(sessions))}
	for i, found := range sessions {
		list.Items[i] = wireSession(found)
	}
	if more {
		list.NextCursor = after(sessions[len(sessions)-1].ID)
	}
	return &struct{ Body api.SessionList }{list}, nil
}

// before reads a cursor over ids, newest first.
func (in *PageInput) before() (uuid.UUID, error) {
	if in.Cursor == "" {
		return uuid.Max, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(in.Cursor)
	if err != nil {
		return uuid.Nil, badCursor()
	}
	id, err := uuid.FromBytes(raw)
	if err != nil {
		return uuid.Nil, badCursor()
	}
	return id, nil
}

// after is the cursor that before reads.
func after(last uuid.UUID) string { return base64.RawURLEncoding.EncodeToString(last[:]) }

// last reads a cursor over ids that are texts; "" begins.
func (in *PageInput) last() (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(in.Cursor)
	if err != nil || !printable(string(raw)) {
		return "", badCursor()
	}
	return string(raw), nil
}

// afterText is the cursor that last reads.
func afterText(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

// id returns which session is meant.
func (in *SessionInput) id(c policy.Caller) (uuid.UUID, error) {
	text := in.ID
	if text == currentSession {
		if text = c.SessionID; text == "" {
			return uuid.Nil, fault.New(fault.NotFound, "the request belongs to no session")
		}
	}
	return parseID(text, "path.id")
}

func (s *Server) getSession(ctx context.Context, c policy.Caller, in *SessionInput) (*struct{ Body api.Session }, error) {
	id, err := in.id(c)
	if err != nil {
		return nil, err
	}
	found, err := s.identity.Session(ctx, c, id)
	return &struct{ Body api.Session }{wireSession(found)}, err
}

func (s *Server) revokeSession(ctx context.Context, c policy.Caller, in *SessionInput) (*struct{}, error) {
	id, err := in.id(c)
	if err != nil {
		return nil, err
	}
	return nil, s.identity.Revoke(ctx, c, id)
}

func (s *Server) createStreamTicket(ctx context.Context, c policy.Caller, _ *struct{}) (*struct{ Body api.StreamTicket }, error) {
	ticket, expires, err := s.identity.Ticket(ctx, c)
	return &struct{ Body api.StreamTicket }{api.StreamTicket{Ticket: ticket, ExpiresAt: expires.UTC()}}, err
}

func (s *Server) listLoginProviders(ctx context.Context, _ policy.Caller, _ *struct{}) (*struct{ Body api.LoginProviders }, error) {
	names, err := s.identity.Logins(ctx)
	if err != nil {
		return nil, err
	}
	list := api.LoginProviders{Items: []api.LoginProvider{}}
	for _, name := range names {
		flows := []string{"browser", "device"}
		if name == string(policy.Local) {
			flows = []string{"password"}
		}
		list.Items = append(list.Items, api.LoginProvider{Name: name, Flows: flows})
	}
	return &struct{ Body api.LoginProviders }{list}, nil
}

type beganOutput struct {
	SetCookie []http.Cookie `header:"Set-Cookie"`
	Body      api.Login
}

func (s *Server) beginLogin(ctx context.Context, _ policy.Caller, in *struct{ Body api.NewLogin }) (*beganOutput, error) {
	n := in.Body
	// A browser that comes back here ends the login with what it was given now.
	returns := n.RedirectURL == s.publicURL+identity.LoginCallback
	session := opening(n.Session)
	session.Browser = session.Browser || returns
	l, err := s.identity.BeginLogin(ctx, identity.NewLogin{
		Provider: n.Provider, Device: n.Flow == "device", RedirectURI: n.RedirectURL, CodeChallenge: n.CodeChallenge, Session: session,
	})
	if err != nil {
		return nil, err
	}
	out := &beganOutput{Body: api.Login{
		ID: l.ID, AuthorizationURL: l.AuthorizationURL, UserCode: l.UserCode, VerificationURL: l.VerificationURI,
		VerificationURLComplete: l.VerificationURIComplete, IntervalSeconds: int(l.Interval.Seconds()), ExpiresAt: l.ExpiresAt,
	}}
	if returns {
		out.SetCookie = []http.Cookie{cookie(loginCookie, l.ID, time.Until(l.ExpiresAt))}
	}
	return out, nil
}

func (s *Server) finishLogin(ctx context.Context, _ policy.Caller, in *struct {
	ProofInput
	Body api.FinishLogin
}) (*openedOutput, error) {
	return s.endLogin(ctx, identity.LoginEnd{
		ID: in.Body.ID, Code: in.Body.Code, State: in.Body.State, CodeVerifier: in.Body.CodeVerifier,
		Enrol: identity.DeviceEnrolment{Name: in.Body.DeviceName, Code: in.Body.EnrolmentCode},
	})
}

func (s *Server) endLogin(ctx context.Context, e identity.LoginEnd) (out *openedOutput, err error) {
	err = s.guess(ctx, func() error {
		opened, err := s.identity.FinishLogin(ctx, e, requestOf(ctx).origin)
		switch {
		case errors.Is(err, identity.ErrAuthorizationPending):
			out = &openedOutput{Status: http.StatusAccepted}
			return nil
		case errors.Is(err, identity.ErrSlowDown):
			return tooMany(slowDown)
		}
		out = s.opened(opened)
		return err
	})
	return out, err
}

// slowDown is what a client adds to its interval (RFC 8628, section 3.5).
const slowDown = 5 * time.Second

func (s *Server) returnFromLogin(ctx context.Context, _ policy.Caller, in *struct {
	Login string `cookie:"__Host-coderclaw-login"`
	Code  string `query:"code" maxLength:"2048"`
	State string `query:"state" maxLength:"256"`
	// What else providers send along.
	Error            string `query:"error" maxLength:"200"`
	ErrorDescription string `query:"error_description" maxLength:"2000"`
	Issuer           string `query:"iss" maxLength:"2048"`
	SessionState     string `query:"session_state" maxLength:"2048"`
	Scope            string `query:"scope" maxLength:"2048"`
}) (*openedOutput, error) {
	if in.Code == "" {
		return nil, fault.New(fault.Unauthenticated, "the identity provider did not let you in")
	}
	out, err := s.endLogin(ctx, identity.LoginEnd{ID: in.Login, Code: in.Code, State: in.State})
	if err != nil {
		return nil, err
	}
	return &openedOutput{
		Status: http.StatusSeeOther, Location: "/", SetCookie: append(out.SetCookie, cookie(loginCookie, "", -time.Second)),
	}, nil
}

type keySetOutput struct {
	ContentType  string `header:"Content-Type"`
	CacheControl string `header:"Cache-Control"`
	Body         []byte
}

func (s *Server) getKeySet(ctx context.Context, _ policy.Caller, _ *struct{}) (*keySetOutput, error) {
	set, err := s.identity.JWKS(ctx)
	return &keySetOutput{"application/jwk-set+json", "public, max-age=300", set}, err
}

func wireSession(f identity.Session) api.Session {
	w := api.Session{
		ID: f.ID.String(), UserID: f.UserID, Method: f.Method, ProjectID: f.ProjectID, KeyBound: f.KeyThumbprint != "",
		Address: f.Address, UserAgent: f.UserAgent, CreatedAt: f.CreatedAt, ExpiresAt: f.ExpiresAt,
		LastSeenAt: f.LastSeenAt, RevokedAt: f.RevokedAt, RevokedBy: f.RevokedBy, RevokedBecause: f.RevokedBecause,
		Roles: texts[string](f.Roles), Scopes: texts[string](f.Scopes),
	}
	if f.DeviceID != nil {
		w.DeviceID = f.DeviceID.String()
	}
	return w
}
