// Package provider turns a credential of somebody else - a bearer token of an
// OpenID Connect issuer, a login at GitHub or Google, a GitHub Actions token -
// into an Identity: who it speaks for, in our terms.
//
// It keeps no accounts and no sessions and has no database. What it refuses it
// explains twice: precisely in the cause, for the log, and by its class alone
// in the message, for whoever sent it.
package provider

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"
)

// Identity is who an accepted credential speaks for.
type Identity struct {
	// Provider is the name of an OIDC provider, or github, google or
	// github-actions.
	Provider string
	// Issuer and Subject are the provider's own name for the principal.
	Issuer  string
	Subject string
	// UserID is our name for it, the only one that anything may be tied to:
	// oidc:<provider>:<subject>, github:<numeric id>, google:<subject> or
	// ci:<numeric repository id>. It survives renamed accounts and is never
	// derived from an e-mail address, so that no provider can speak for the
	// users of another.
	UserID string
	// Name and Email are for people to read, and nothing else. They hold
	// printable text only.
	Name  string
	Email string
	// StatedAt is when the provider said all this. Of two identities of one
	// principal the later counts, whichever was shown first.
	StatedAt time.Time
	// Groups are what the provider says the principal is a member of, each with
	// the provider in front: oidc:<provider>:<group>, github:<organisation>,
	// github:<organisation>/<team>, google:<domain>.
	Groups []string
	// Roles are those that the configuration gives it, by project id; "" is
	// every project.
	Roles map[string][]string
	// ProjectID, if not empty, is the only project the credential is good for.
	ProjectID string
	// TokenID is the token's jti, if it has one; unique within its issuer.
	TokenID string
	// ExpiresAt is when a bearer token ends. It is zero after a login, whose
	// session is as long as the server wants.
	ExpiresAt time.Time
	// OneUse says that the token may be accepted once: who keeps state must
	// remember Issuer and TokenID until ExpiresAt and a minute more.
	OneUse bool
}

// Options are what a Set needs of its surroundings. All of them are optional.
type Options struct {
	// Transport carries the requests to the providers. Nil is one of our own
	// that uses no proxy and, but for providers that are configured on loopback
	// themselves, dials neither loopback nor link-local addresses. Whatever it
	// is, redirects are not followed and long answers are cut off.
	Transport http.RoundTripper
	// Now is the clock that tokens and cached keys are judged by.
	Now func() time.Time
	Log *slog.Logger
}

// Set is all that is configured to vouch for others. Its methods may be called
// at the same time.
type Set struct {
	bearers map[string]bearer // by issuer
	flows   map[string]Flow   // by provider
	clients clients
}

// bearer accepts the tokens of one issuer.
type bearer interface {
	accept(ctx context.Context, t token) (Identity, error)
}

// New returns the providers of a configuration, or an error that names every
// fault in it. It asks nothing of the network: a provider that is down is asked
// when somebody needs it.
func New(c Config, o Options) (*Set, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Set{bearers: map[string]bearer{}, flows: map[string]Flow{}, clients: newClients(o.Transport)}
	for _, p := range c.OIDC {
		issuer := newIssuer(p.Issuer, anyAlgorithm, s.clients.of(p.Issuer), o)
		provider := &oidcProvider{config: p, issuer: issuer}
		s.bearers[p.Issuer] = provider
		if p.ClientID != "" {
			s.flows[p.Name] = &oidcFlow{
				client:   oauthClient{name: p.Name, id: p.ClientID, secret: p.ClientSecret, http: issuer.keys.client},
				issuer:   issuer,
				groups:   p.GroupsClaim != "",
				identify: provider.identity,
			}
		}
	}
	if c.Google != nil {
		issuer := newIssuer(googleIssuer, onlyRS256, s.clients.of(googleIssuer), o)
		provider := &googleProvider{config: *c.Google, issuer: issuer}
		s.bearers[googleIssuer] = provider
		s.flows[googleName] = &oidcFlow{
			client:   oauthClient{name: googleName, id: c.Google.ClientID, secret: c.Google.ClientSecret, inForm: true, http: issuer.keys.client},
			issuer:   issuer,
			domains:  c.Google.HostedDomains,
			identify: provider.identity,
		}
	}
	if c.GitHub != nil {
		s.flows[githubName] = newGitHub(*c.GitHub, s.clients.of(c.GitHub.baseURL()), o.Now)
	}
	if len(c.GitHubActions) > 0 {
		url := c.actionsIssuer()
		s.bearers[url] = newActions(c.GitHubActions, c.PublicURL, newIssuer(url, onlyRS256, s.clients.of(url), o))
	}
	return s, nil
}

// VerifyToken accepts a JWT of one of the configured issuers. The issuer is
// found by the exact iss of the token before anything else is done with it: a
// token of a stranger costs no network.
//
// It returns an Unauthenticated fault for a token that is not accepted, a
// Forbidden one for a principal that is known and may not come in, and an
// Unavailable one if the issuer's keys cannot be had.
func (s *Set) VerifyToken(ctx context.Context, raw string) (Identity, error) {
	t, err := parseToken(raw)
	if err != nil {
		return Identity{}, err
	}
	b, ok := s.bearers[t.issuer]
	if !ok {
		return Identity{}, refuse(classIssuer, "the issuer %.100q is not configured", t.issuer)
	}
	return b.accept(ctx, t)
}

// Login returns how people log in at the named provider: github, google or an
// OIDC provider with a client id.
func (s *Set) Login(name string) (Flow, bool) {
	f, ok := s.flows[name]
	return f, ok
}

// Logins returns the names that Login knows, sorted.
func (s *Set) Logins() []string { return slices.Sorted(maps.Keys(s.flows)) }

// Close gives up the connections that are kept for later. A Set that is
// replaced by another should be closed; requests under way are not disturbed.
func (s *Set) Close() { s.clients.close() }
