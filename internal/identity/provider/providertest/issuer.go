// Package providertest has identity providers for tests: an OpenID Connect
// issuer and a GitHub, both real servers that speak the real protocols over
// sockets. The issuer can also lie about anything.
package providertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What is registered at every provider for the server that is tested.
const (
	ClientID     = "coderclaw"
	ClientSecret = "s3cr3t & more"
)

// The paths of an Issuer.
const (
	Discovery = "/.well-known/openid-configuration"
	JWKS      = "/keys"
	Authorize = "/authorize"
	TokenPath = "/token"
	Device    = "/device"
)

// Claims are those of a token; nil takes one away.
type Claims map[string]any

// Issuer is an OpenID Connect provider. Its methods may be called while it
// serves.
type Issuer struct {
	URL string // what it calls itself
	// Now is its clock; set it before the first request.
	Now func() time.Time

	address string // where it is
	grants  grants

	mu      sync.Mutex
	kid     string
	key     crypto.Signer
	keys    map[string]crypto.PublicKey // published
	answers map[string]http.HandlerFunc // instead of the usual
	fetches map[string]int
	down    bool
	person  Claims
}

// NewIssuer returns an issuer with an ES256 key that serves until the test ends.
func NewIssuer(t testing.TB) *Issuer { return newIssuer(t, "", "k1", newECKey(t)) }

// NewIssuerAt returns an issuer with an RS256 key that calls itself by another
// address, https://accounts.google.com say. It can be reached there through
// Transport.
func NewIssuerAt(t testing.TB, address string) *Issuer {
	return newIssuer(t, address, "r1", rsaKey())
}

// NewActions returns an issuer of GitHub Actions tokens; see ActionsToken.
func NewActions(t testing.TB) *Issuer { return newIssuer(t, "", "r1", rsaKey()) }

func newIssuer(t testing.TB, address, kid string, key crypto.Signer) *Issuer {
	t.Helper()
	i := &Issuer{
		Now:     time.Now,
		kid:     kid,
		key:     key,
		keys:    map[string]crypto.PublicKey{kid: key.Public()},
		answers: map[string]http.HandlerFunc{},
		fetches: map[string]int{},
		person:  Claims{"sub": "ann"},
	}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	i.address, i.URL = server.URL, server.URL
	if address != "" {
		i.URL = address
	}
	return i
}

// rsaKey is shared: making one takes long, and no test is about it.
var rsaKey = sync.OnceValue(func() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newECKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Rotate makes the issuer sign with a new ES256 key and withdraw the others.
func (i *Issuer) Rotate(t testing.TB, kid string) {
	t.Helper()
	key := newECKey(t)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid, i.key, i.keys = kid, key, map[string]crypto.PublicKey{kid: key.Public()}
}

// UseKey makes the issuer sign with a key and publish it beside the others.
func (i *Issuer) UseKey(kid string, key crypto.Signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid, i.key, i.keys[kid] = kid, key, key.Public()
}

// Key returns the key that the issuer signs with.
func (i *Issuer) Key() (kid string, key crypto.Signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.kid, i.key
}

// Fetches returns how often a path was asked for.
func (i *Issuer) Fetches(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches[path]
}

// SetDown makes the issuer break every connection, or serve again.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Answer makes the issuer answer a path in another way; nil is the usual one.
func (i *Issuer) Answer(path string, with http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answers[path] = with
}

// SignIn says who sits at the browser: what the issuer says of everybody who
// logs in from now on.
func (i *Issuer) SignIn(person Claims) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.person = person
}

// Decide lets the person with that user code log in, or declines.
func (i *Issuer) Decide(userCode string, allow bool) { i.grants.decide(userCode, allow) }

// Transport reaches the issuer under the name that it has given itself, and
// everybody else under theirs.
func (i *Issuer) Transport() http.RoundTripper {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	return redirector{i, transport}
}

type redirector struct {
	*Issuer
	http.RoundTripper
}

func (r redirector) RoundTrip(request *http.Request) (*http.Response, error) {
	named, err := url.Parse(r.URL)
	if err != nil {
		return nil, err
	}
	if request.URL.Host == named.Host {
		there, err := url.Parse(r.address)
		if err != nil {
			return nil, err
		}
		request = request.Clone(request.Context())
		request.URL.Scheme, request.URL.Host = there.Scheme, there.Host
	}
	return r.RoundTripper.RoundTrip(request)
}

// ServeHTTP makes Issuer an http.Handler.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetches[r.URL.Path]++
	down, other := i.down, i.answers[r.URL.Path]
	person := maps.Clone(i.person)
	i.mu.Unlock()
	switch {
	case down:
		panic(http.ErrAbortHandler) // closes the connection
	case other != nil:
		other(w, r)
		return
	}
	switch r.URL.Path {
	case Discovery:
		writeJSON(w, http.StatusOK, i.Metadata())
	case JWKS:
		writeJSON(w, http.StatusOK, i.keySet())
	case Authorize:
		i.grants.authorize(w, r, person)
	case TokenPath:
		i.token(w, r)
	case Device:
		i.grants.startDevice(w, r, person, i.URL+"/activate", i.Now())
	default:
		http.NotFound(w, r)
	}
}

// Metadata returns what the issuer publishes about itself.
func (i *Issuer) Metadata() map[string]any {
	return map[string]any{
		"issuer":                                i.URL,
		"authorization_endpoint":                i.URL + Authorize,
		"token_endpoint":                        i.URL + TokenPath,
		"device_authorization_endpoint":         i.URL + Device,
		"jwks_uri":                              i.URL + JWKS,
		"scopes_supported":                      []string{"openid", "profile", "email", "groups"},
		"id_token_signing_alg_values_supported": []string{"ES256", "RS256"},
	}
}

func (i *Issuer) keySet() jose.JSONWebKeySet {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for kid, key := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key, KeyID: kid, Use: "sig"})
	}
	return set
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	if !authenticated(r) {
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	g, failed := i.grants.redeem(r, i.Now())
	if failed != "" {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": failed})
		return
	}
	said := Claims{"aud": ClientID, "azp": ClientID}
	if g.nonce != "" {
		said["nonce"] = g.nonce
	}
	maps.Copy(said, g.person)
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": "opaque",
		"token_type":   "Bearer",
		"expires_in":   300,
		"id_token":     i.Token(said),
	})
}

// authenticated reports whether it is our client that asks, by the header or
// by the form (RFC 6749, section 2.3.1).
func authenticated(r *http.Request) bool {
	id, secret, ok := r.BasicAuth()
	if !ok {
		return r.PostFormValue("client_id") == ClientID && r.PostFormValue("client_secret") == ClientSecret
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	return err1 == nil && err2 == nil && id == ClientID && secret == ClientSecret
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		panic(fmt.Errorf("write an answer: %w", err))
	}
}
