// Package access lets people and programs in at the real server, by a real
// OpenID provider and by one that forges whatever it can.
package access

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	oidcclient "github.com/zitadel/oidc/v3/pkg/client"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/oauth2"
)

const (
	clientID = "coderclaw"
	password = "correct horse battery staple"
)

// signer is a key of a provider's.
type signer struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       crypto.Signer
}

func newRSA(t *testing.T, id string) *signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{id, jose.RS256, key}
}

func newECDSA(t *testing.T, id string) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{id, jose.ES256, key}
}

func (s *signer) SignatureAlgorithm() jose.SignatureAlgorithm { return s.algorithm }
func (s *signer) Key() any                                    { return s.key }
func (s *signer) ID() string                                  { return s.id }

// public is its public half.
type public struct{ *signer }

func (p public) Algorithm() jose.SignatureAlgorithm { return p.algorithm }
func (p public) Use() string                        { return "sig" }
func (p public) Key() any                           { return p.key.Public() }

// issuer is an OpenID provider, with people in groups.
type issuer struct {
	*storage.Storage
	url     string
	secret  string // of the client; empty: it has none. Set it before the first request.
	http    *httptest.Server
	asked   atomic.Int64 // how often anything was asked for
	keySets atomic.Int64 // how often the keys were

	mu     sync.Mutex
	signer *signer
	groups map[string][]string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	i := &issuer{
		url: "http://localhost:" + port + "/", signer: newRSA(t, "first"),
		groups: map[string][]string{"ann": {"engineers"}, "bob": {"visitors"}},
	}
	i.Storage = storage.NewStorageWithClients(i, map[string]*storage.Client{clientID: storage.NativeClient(clientID, "http://127.0.0.1/callback")})
	handler := exampleop.SetupServer(i.url, i, slog.New(slog.DiscardHandler), false)
	i.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		if r.URL.Path == "/keys" {
			i.keySets.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	if err := i.http.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	i.http.Listener = listener
	i.http.Start()
	t.Cleanup(i.http.Close)
	return i
}

// The people who have an account there.

func (i *issuer) GetUserByID(id string) *storage.User {
	if id != "ann" && id != "bob" {
		return nil
	}
	return &storage.User{ID: id, Username: id, Password: password, FirstName: id, Email: id + "@example.com", EmailVerified: true}
}

func (i *issuer) GetUserByUsername(name string) *storage.User { return i.GetUserByID(name) }
func (i *issuer) ExampleClientID() string                     { return clientID }

// client may also log in by device, and finds everything in its ID tokens.
type client struct {
	op.Client
	confidential bool
}

func (client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c client) GrantTypes() []oidc.GrantType {
	return append(slices.Clone(c.Client.GrantTypes()), oidc.GrantTypeDeviceCode)
}

func (c client) AuthMethod() oidc.AuthMethod {
	if c.confidential {
		return oidc.AuthMethodBasic
	}
	return c.Client.AuthMethod()
}

func (i *issuer) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := i.Storage.GetClientByClientID(ctx, id)
	return client{c, i.secret != ""}, err
}

func (i *issuer) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != clientID || i.secret == "" || secret != i.secret {
		return oidc.ErrInvalidClient()
	}
	return nil
}

func (i *issuer) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, token op.IDTokenRequest, scopes []string) error {
	err := i.Storage.SetUserinfoFromRequest(ctx, info, token, scopes)
	i.mu.Lock()
	defer i.mu.Unlock()
	info.AppendClaims("groups", i.groups[token.GetSubject()])
	return err
}

func (i *issuer) current() *signer {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.signer
}

func (i *issuer) SigningKey(context.Context) (op.SigningKey, error) { return i.current(), nil }

func (i *issuer) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{public{i.current()}}, nil
}

// rotate replaces the key. What the old one has signed is good no more.
func (i *issuer) rotate(s *signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.signer = s
}

func (i *issuer) move(person string, groups ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.groups[person] = groups
}

// claims are those of an ID token for ann.
func (i *issuer) claims() map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": i.url, "aud": clientID, "sub": "ann", "groups": []string{"engineers"},
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

// sign makes a token of claims.
func sign(t *testing.T, algorithm jose.SignatureAlgorithm, key any, id string, claims map[string]any) string {
	t.Helper()
	return signWith(t, jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: id}}, new(jose.SignerOptions), claims)
}

func signWith(t *testing.T, key jose.SigningKey, o *jose.SignerOptions, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(key, o.WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// tokens returns what the issuer gives a program that a person has logged in to
// with a browser.
func (i *issuer) tokens(t *testing.T, person string) (id, access string) {
	t.Helper()
	at, err := oidcclient.Discover(t.Context(), i.url, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	program := oauth2.Config{
		ClientID: clientID, RedirectURL: "http://127.0.0.1/callback", Scopes: []string{oidc.ScopeOpenID, oidc.ScopeProfile},
		Endpoint: oauth2.Endpoint{AuthURL: at.AuthorizationEndpoint, TokenURL: at.TokenEndpoint, AuthStyle: oauth2.AuthStyleInParams},
	}
	verifier, b := oauth2.GenerateVerifier(), browser(t)
	b.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), program.RedirectURL) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	resp, err := i.logIn(t, b, program.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)), person)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		t.Fatal(err)
	}
	token, err := program.Exchange(t.Context(), back.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	id, ok := token.Extra("id_token").(string)
	if !ok {
		t.Fatal("the provider gives no ID token")
	}
	return id, token.AccessToken
}
