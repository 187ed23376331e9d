package provider_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
)

const callback = "https://claw.corp.example/callback"

// login goes through the browser and returns what the server then exchanges.
func login(t *testing.T, f provider.Flow, transport http.RoundTripper) provider.AuthResponse {
	t.Helper()
	const verifier, state, nonce = "a-verifier-of-at-least-forty-three-characters", "state", "nonce"
	address, err := f.AuthCodeURL(t.Context(), provider.AuthRequest{
		State: state, Nonce: nonce, CodeChallenge: providertest.Challenge(verifier), RedirectURI: callback,
	})
	if err != nil {
		t.Fatal(err)
	}
	back := providertest.Browse(t, transport, address)
	if back.Get("state") != state {
		t.Fatalf("the browser came back with %q", back)
	}
	return provider.AuthResponse{Code: back.Get("code"), CodeVerifier: verifier, Nonce: nonce, RedirectURI: callback}
}

func flow(t *testing.T, s *provider.Set, name string) provider.Flow {
	t.Helper()
	f, ok := s.Login(name)
	if !ok {
		t.Fatalf("nobody can log in at %s, but at %q", name, s.Logins())
	}
	return f
}

func TestAPersonLogsInByBrowser(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) {
		c.GroupsClaim, c.GroupRoles = "groups", map[string][]string{"ops": {"admin"}}
		c.UsernameClaim = "nickname"
	})
	b.issuer.SignIn(claims{"sub": "bob", "nickname": "Bob", "groups": []string{"ops"}})
	f := flow(t, b.set, "corp")
	got, err := f.Exchange(t.Context(), login(t, f, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got.UserID != "oidc:corp:bob" || got.Name != "Bob" || len(got.Roles[""]) != 1 || !got.ExpiresAt.IsZero() || got.TokenID != "" {
		t.Errorf("the login speaks for %+v", got)
	}
}

func TestBrokenLoginsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	f := flow(t, b.set, "corp")
	for _, c := range []struct {
		does    string
		message string
		breaks  func(*provider.AuthResponse)
	}{
		{"another code", "code of the login", func(r *provider.AuthResponse) { r.Code = "guessed" }},
		{"another verifier", "code of the login", func(r *provider.AuthResponse) { r.CodeVerifier = strings.Repeat("x", 43) }},
		{"another address", "code of the login", func(r *provider.AuthResponse) { r.RedirectURI = "https://evil.example" }},
		{"the nonce of another login", "nonce", func(r *provider.AuthResponse) { r.Nonce = "other" }},
		{"no nonce", "nonce", func(r *provider.AuthResponse) { r.Nonce = "" }},
	} {
		r := login(t, f, nil)
		c.breaks(&r)
		_, err := f.Exchange(t.Context(), r)
		wantRefused(t, err, fault.Unauthenticated, c.message, "")
		if r.Code != "guessed" && strings.Contains(err.Error(), r.Code) {
			t.Errorf("%s: the error repeats the code", c.does)
		}
	}
	r := login(t, f, nil)
	if _, err := f.Exchange(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	_, err := f.Exchange(t.Context(), r)
	wantRefused(t, err, fault.Unauthenticated, "code of the login", "invalid_grant")
}

func TestALoginTakesIDTokensForUsAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) { c.Audiences = []string{"api", providertest.ClientID} })
	f := flow(t, b.set, "corp")
	for class, said := range map[string]claims{
		"audience": {"sub": "bob", "aud": "api", "azp": nil},
		"issuer":   {"sub": "bob", "iss": "https://elsewhere.example"},
		"nonce":    {"sub": "bob", "nonce": nil},
		"expired":  {"sub": "bob", "exp": 1},
	} {
		b.issuer.SignIn(said)
		_, err := f.Exchange(t.Context(), login(t, f, nil))
		wantRefused(t, err, fault.Unauthenticated, class, "")
	}
}

func TestAPersonLogsInOnAnotherDevice(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	f := flow(t, b.set, "corp")
	start, err := f.StartDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if start.UserCode == "" || start.VerificationURI != b.issuer.URL+"/activate" || !strings.HasSuffix(start.VerificationURIComplete, start.UserCode) ||
		start.Interval != 5*time.Second || !start.ExpiresAt.Equal(b.Now().Add(15*time.Minute)) {
		t.Errorf("the login starts with %+v", start)
	}
	poll := func(want error) {
		t.Helper()
		if _, err := f.PollDevice(t.Context(), start.DeviceCode); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	poll(provider.ErrAuthorizationPending)
	poll(provider.ErrSlowDown)
	b.Advance(start.Interval)
	b.issuer.Decide(start.UserCode, true)
	got, err := f.PollDevice(t.Context(), start.DeviceCode)
	if err != nil || got.UserID != "oidc:corp:ann" {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = f.PollDevice(t.Context(), start.DeviceCode)
	wantRefused(t, err, fault.Unauthenticated, "not any more", "invalid_grant")
}

func TestADeviceLoginCanBeDeclinedAndRunsOut(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	f := flow(t, b.set, "corp")
	declined, err := f.StartDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.issuer.Decide(declined.UserCode, false)
	_, err = f.PollDevice(t.Context(), declined.DeviceCode)
	wantRefused(t, err, fault.Unauthenticated, "declined", "access_denied")
	late, err := f.StartDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Advance(16 * time.Minute)
	_, err = f.PollDevice(t.Context(), late.DeviceCode)
	wantRefused(t, err, fault.Unauthenticated, "not any more", "expired_token")
}

func TestProvidersThatDoNotKnowUsSaySo(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) { c.ClientSecret = "wrong" })
	f := flow(t, b.set, "corp")
	_, err := f.Exchange(t.Context(), login(t, f, nil))
	wantRefused(t, err, fault.ProviderRefused, "does not accept this server", "invalid_client")
	for does, answer := range map[string]http.HandlerFunc{
		"an error of its own":     func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"error":"server_error"}`)) },
		"an error without a name": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"a page":                  func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"a redirect":              http.RedirectHandler("https://evil.example/token", http.StatusTemporaryRedirect).ServeHTTP,
	} {
		b.issuer.Answer(providertest.TokenPath, answer)
		_, err := f.Exchange(t.Context(), login(t, f, nil))
		wantRefused(t, err, fault.Unavailable, "cannot be reached", "")
		if strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: the error has the secret: %v", does, err)
		}
	}
}

func TestTheSecretGoesWhereTheProviderWantsIt(t *testing.T) {
	t.Parallel()
	for method, header := range map[string]bool{"client_secret_basic": true, "client_secret_post": false} {
		b := newBench(t, nil)
		m := b.issuer.Metadata()
		m["token_endpoint_auth_methods_supported"] = []string{method}
		b.issuer.Answer(providertest.Discovery, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, m) })
		var got *http.Request
		b.issuer.Answer(providertest.TokenPath, func(w http.ResponseWriter, r *http.Request) {
			r.ParseForm()
			got = r
			writeJSON(w, map[string]string{"error": "invalid_grant"})
		})
		f := flow(t, b.set, "corp")
		f.Exchange(t.Context(), login(t, f, nil))
		if _, _, ok := got.BasicAuth(); ok != header || got.PostForm.Has("client_secret") == header {
			t.Errorf("%s: header %q, form %q", method, got.Header["Authorization"], got.PostForm)
		}
	}
}

func TestAProviderWithoutAFlowSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.issuer.Metadata()
	delete(m, "device_authorization_endpoint")
	delete(m, "authorization_endpoint")
	b.issuer.Answer(providertest.Discovery, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, m) })
	f := flow(t, b.set, "corp")
	_, err := f.StartDevice(t.Context())
	wantRefused(t, err, fault.Invalid, "no login by device code", "")
	_, err = f.AuthCodeURL(t.Context(), provider.AuthRequest{})
	wantRefused(t, err, fault.Invalid, "no login by browser", "")
}

func TestADeviceLoginOpensNothingButWebPages(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	f := flow(t, b.set, "corp")
	for _, page := range []string{"javascript:alert(1)", "file:///etc/passwd", "http://idp.example/activate", ""} {
		b.issuer.Answer(providertest.Device, func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, map[string]any{"device_code": "d", "user_code": "u", "verification_uri": page, "expires_in": 60})
		})
		_, err := f.StartDevice(t.Context())
		wantRefused(t, err, fault.Unavailable, "cannot be reached", "")
	}
}

func TestGoogleAccountsComeFromTheHostedDomain(t *testing.T) {
	t.Parallel()
	at := newClock()
	issuer := providertest.NewIssuerAt(t, "https://accounts.google.com")
	issuer.Now = at.Now
	set := newSet(t, provider.Config{Google: &provider.Google{
		ClientID: providertest.ClientID, ClientSecret: providertest.ClientSecret,
		HostedDomains: []string{"corp.example"}, DomainRoles: map[string][]string{"corp.example": {"developer"}},
	}}, at, issuer.Transport())
	f := flow(t, set, "google")
	corp := claims{"sub": "1102", "hd": "corp.example", "name": "Ann", "email": "ann@corp.example", "email_verified": true}
	issuer.SignIn(corp)
	got, err := f.Exchange(t.Context(), login(t, f, issuer.Transport()))
	if err != nil {
		t.Fatal(err)
	}
	if got.UserID != "google:1102" || got.Name != "Ann" || got.Email != "ann@corp.example" || got.Groups[0] != "google:corp.example" || got.Roles[""][0] != "developer" {
		t.Errorf("the login speaks for %+v", got)
	}
	address, err := f.AuthCodeURL(t.Context(), provider.AuthRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := url.Parse(address); err != nil || u.Host != "accounts.google.com" || u.Query().Get("hd") != "corp.example" {
		t.Errorf("the browser goes to %s", address)
	}
	if bearer, err := set.VerifyToken(t.Context(), issuer.Token(corp)); err != nil || bearer.UserID != got.UserID || bearer.ExpiresAt.IsZero() {
		t.Errorf("as a bearer token: %+v, %v", bearer, err)
	}
	for _, c := range []claims{
		{"sub": "1103", "email": "eve@corp.example", "email_verified": true},
		{"sub": "1104", "hd": "other.example", "email": "eve@corp.example", "email_verified": true},
		{"sub": "1105", "hd": []string{"corp.example"}},
	} {
		issuer.SignIn(c)
		_, err := f.Exchange(t.Context(), login(t, f, issuer.Transport()))
		wantRefused(t, err, fault.Forbidden, "not allowed in", "")
		_, err = set.VerifyToken(t.Context(), issuer.Token(c))
		wantRefused(t, err, fault.Forbidden, "not allowed in", "")
	}
}
