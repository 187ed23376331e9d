package provider

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
)

// Flow is how a person logs in at a provider, with the server as the client:
// in a browser that is sent there and back (RFC 6749, section 4.1, with PKCE,
// RFC 7636), or with a code that is typed in on another device (RFC 8628).
//
// All methods return an Unavailable fault if the provider cannot be reached, a
// ProviderRefused one if it does not know us, an Unauthenticated one for a login that did not succeed and
// a Forbidden one for an account that is not allowed in.
type Flow interface {
	// AuthCodeURL returns where to send the browser.
	AuthCodeURL(ctx context.Context, r AuthRequest) (string, error)
	// Exchange trades the code that the browser came back with, once.
	Exchange(ctx context.Context, r AuthResponse) (Identity, error)
	// StartDevice returns the codes of a login on another device. It returns an
	// Invalid fault if the provider has no such login.
	StartDevice(ctx context.Context) (DeviceStart, error)
	// PollDevice asks whether that login has succeeded. It returns
	// ErrAuthorizationPending or ErrSlowDown if it has not yet.
	PollDevice(ctx context.Context, deviceCode string) (Identity, error)
}

// AuthRequest is what the browser takes to the provider.
type AuthRequest struct {
	State string // comes back with the browser; the server compares it
	Nonce string // comes back within the ID token; the flow compares it
	// CodeChallenge is the base64url SHA-256 of the code verifier (S256).
	CodeChallenge string
	RedirectURI   string
}

// AuthResponse is what the browser brought back, and what the server kept of
// the AuthRequest.
type AuthResponse struct {
	Code         string
	CodeVerifier string
	Nonce        string
	RedirectURI  string
}

// DeviceStart is a login on another device that has begun.
type DeviceStart struct {
	DeviceCode string // a secret of the server
	UserCode   string // for the person to type in at VerificationURI
	// VerificationURIComplete, if not empty, has the user code in it.
	VerificationURI         string
	VerificationURIComplete string
	Interval                time.Duration // between polls, at least
	ExpiresAt               time.Time
}

// What PollDevice returns before there is an outcome.
var (
	ErrAuthorizationPending = errors.New("the person has not decided yet")
	// ErrSlowDown also asks for 5 s more between all polls to come.
	ErrSlowDown = errors.New("the person has not decided yet, and that was asked too soon")
)

// oidcFlow is the login at an OpenID Connect provider.
type oidcFlow struct {
	client   oauthClient
	issuer   *issuer
	groups   bool     // ask for the scope groups, where there is one
	domains  []string // Google: the domains that are let in
	identify func(s statement, c claims) (Identity, error)
}

func (f *oidcFlow) AuthCodeURL(ctx context.Context, r AuthRequest) (string, error) {
	e, err := f.issuer.keys.endpoints(ctx)
	if err != nil {
		return "", err
	}
	if e.Authorization == "" {
		return "", fault.New(fault.Invalid, "the identity provider %s has no login by browser", f.client.name)
	}
	values := authorization(f.client.id, f.scope(e), r)
	values.Set("response_type", "code")
	values.Set("nonce", r.Nonce)
	if len(f.domains) == 1 {
		// Spares the person a choice. It proves nothing: the claim does.
		values.Set("hd", f.domains[0])
	}
	return withQuery(e.Authorization, values), nil
}

func (f *oidcFlow) Exchange(ctx context.Context, r AuthResponse) (Identity, error) {
	if r.Nonce == "" {
		return Identity{}, refuse(classNonce, "the login has none")
	}
	e, err := f.issuer.keys.endpoints(ctx)
	if err != nil {
		return Identity{}, err
	}
	answer, err := f.client.with(e).post(ctx, e.Token, exchange(r))
	if err != nil {
		return Identity{}, err
	}
	return f.accept(ctx, answer.IDToken, r.Nonce)
}

func (f *oidcFlow) StartDevice(ctx context.Context) (DeviceStart, error) {
	e, err := f.issuer.keys.endpoints(ctx)
	if err != nil {
		return DeviceStart{}, err
	}
	if e.Device == "" {
		return DeviceStart{}, fault.New(fault.Invalid, "the identity provider %s has no login by device code", f.client.name)
	}
	return f.client.with(e).startDevice(ctx, e.Device, f.scope(e), f.issuer.now())
}

func (f *oidcFlow) PollDevice(ctx context.Context, deviceCode string) (Identity, error) {
	e, err := f.issuer.keys.endpoints(ctx)
	if err != nil {
		return Identity{}, err
	}
	answer, err := f.client.with(e).post(ctx, e.Token, deviceGrant(deviceCode))
	if err != nil {
		return Identity{}, err
	}
	return f.accept(ctx, answer.IDToken, "")
}

// accept verifies the ID token that we were given, for us alone. The nonce says
// that it is an answer to our question; there is none in a device login, whose
// answers come directly to whoever asked.
func (f *oidcFlow) accept(ctx context.Context, raw, nonce string) (Identity, error) {
	t, err := parseToken(raw)
	if err != nil {
		return Identity{}, err
	}
	s, err := f.issuer.verify(ctx, t, idTokenTypes, []string{f.client.id})
	if err != nil {
		return Identity{}, err
	}
	if t.claims.text("nonce") != nonce {
		return Identity{}, refuse(classNonce, "the token of %.100q belongs to another login", s.subject)
	}
	return f.identify(s, t.claims)
}

func (f *oidcFlow) scope(e endpoints) string {
	scope := "openid profile email"
	if f.groups && slices.Contains(e.Scopes, "groups") {
		scope += " groups"
	}
	return scope
}

// authorization returns what every authorization request has (RFC 6749, section
// 4.1.1; RFC 7636, section 4.3).
func authorization(clientID, scope string, r AuthRequest) url.Values {
	return url.Values{
		"client_id":             {clientID},
		"redirect_uri":          {r.RedirectURI},
		"scope":                 {scope},
		"state":                 {r.State},
		"code_challenge":        {r.CodeChallenge},
		"code_challenge_method": {"S256"},
	}
}

func exchange(r AuthResponse) url.Values {
	return url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {r.Code},
		"code_verifier": {r.CodeVerifier},
		"redirect_uri":  {r.RedirectURI},
	}
}

func deviceGrant(deviceCode string) url.Values {
	return url.Values{
		"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
		"device_code": {deviceCode},
	}
}

func withQuery(address string, values url.Values) string {
	if strings.Contains(address, "?") {
		return address + "&" + values.Encode()
	}
	return address + "?" + values.Encode()
}
