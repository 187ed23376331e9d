package clawctl

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
)

// gate is a server that lets in by its own tokens: it opens sessions for
// ann's password, renews them with rotating refresh tokens, ends them when one
// comes twice, and demands proofs of sessions that were opened with one.
type gate struct {
	*httptest.Server
	providers []api.LoginProvider
	login     api.Login // of POST /v1/logins
	pending   int       // how often FinishLogin is answered with 202
	failures  []int     // what FinishLogin is answered before that

	mu         sync.Mutex
	n          int // of the tokens that are good now; 0: no session
	thumbprint string
	opened     []api.NewSession
	started    []api.NewLogin
	finished   []api.FinishLogin
	renewals   int
	faults     []string // what no client of ours may do
	device     api.NewDevice
	expiresIn  int
}

func newGate(t *testing.T) *gate {
	g := &gate{expiresIn: 600, providers: []api.LoginProvider{{Name: "local", Flows: []string{"password"}}}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions", func(w http.ResponseWriter, r *http.Request) {
		var in api.NewSession
		if json.NewDecoder(r.Body).Decode(&in) != nil || in.Login != "" && in.Password != "correct horse" {
			problem(w, http.StatusUnauthorized, "unauthenticated", "the credential is not accepted")
			return
		}
		g.opened = append(g.opened, in)
		g.open(w, r, http.StatusCreated)
	})
	mux.HandleFunc("POST /v1/sessions/refresh", func(w http.ResponseWriter, r *http.Request) {
		var in api.RefreshRequest
		json.NewDecoder(r.Body).Decode(&in)
		g.renewals++
		thumbprint := g.thumbprint
		if g.n == 0 || in.RefreshToken != fmt.Sprintf("ccr_%d", g.n) {
			g.n = 0
			problem(w, http.StatusUnauthorized, "unauthenticated", "the credential is not accepted")
			return
		}
		g.open(w, r, http.StatusOK)
		if g.thumbprint != thumbprint {
			g.faults = append(g.faults, "a session was renewed with another key")
		}
	})
	mux.HandleFunc("GET /v1/logins/providers", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, api.LoginProviders{Items: g.providers})
	})
	mux.HandleFunc("POST /v1/logins", func(w http.ResponseWriter, r *http.Request) {
		var in api.NewLogin
		json.NewDecoder(r.Body).Decode(&in)
		g.started = append(g.started, in)
		writeJSON(w, http.StatusCreated, g.login)
	})
	mux.HandleFunc("POST /v1/logins/finish", func(w http.ResponseWriter, r *http.Request) {
		var in api.FinishLogin
		json.NewDecoder(r.Body).Decode(&in)
		g.finished = append(g.finished, in)
		if len(g.failures) > 0 {
			status := g.failures[0]
			g.failures = g.failures[1:]
			if status != http.StatusBadGateway {
				w.Header().Set("Retry-After", "1")
			}
			problem(w, status, "", fmt.Sprint("failure ", status))
			return
		}
		if g.pending > 0 {
			g.pending--
			w.WriteHeader(http.StatusAccepted)
			return
		}
		g.open(w, r, http.StatusOK)
	})
	mux.HandleFunc("DELETE /v1/sessions/current", g.inside(func(w http.ResponseWriter, _ *http.Request) {
		g.n = 0
		w.WriteHeader(http.StatusNoContent)
	}))
	mux.HandleFunc("GET /v1/me", g.inside(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, api.Me{UserID: "local:ann", Roles: []string{"developer"}, Permissions: []string{"task:read"}, SessionID: "s1", DeviceTrust: "untrusted"})
	}))
	mux.HandleFunc("POST /v1/devices/challenges", g.inside(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusCreated, api.DeviceChallenge{Challenge: g.URL + " ccc_1"})
	}))
	mux.HandleFunc("POST /v1/devices", g.inside(func(w http.ResponseWriter, r *http.Request) {
		json.NewDecoder(r.Body).Decode(&g.device)
		writeJSON(w, http.StatusCreated, api.Device{ID: "d1", Name: g.device.Name, Trust: "untrusted"})
	}))
	mux.HandleFunc("POST /v1/devices/{id}/verify", g.inside(func(w http.ResponseWriter, r *http.Request) {
		var in api.VerifyDevice
		json.NewDecoder(r.Body).Decode(&in)
		key, err := dpop.ParseJWK(g.device.Key)
		if err != nil || r.PathValue("id") != "d1" || in.Code != "cce_1" || !key.VerifyChallenge(in.Challenge, in.Signature) {
			problem(w, http.StatusForbidden, "forbidden", "no")
			return
		}
		writeJSON(w, http.StatusOK, api.Device{ID: "d1", Trust: "verified"})
	}))
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		g.Close()
		for _, fault := range g.faults {
			t.Error(fault)
		}
	})
	return g
}

// open answers with the next tokens, bound to the key that signed r.
func (g *gate) open(w http.ResponseWriter, r *http.Request, status int) {
	g.n++
	g.thumbprint = ""
	kind, device := "Bearer", ""
	if raw := r.Header.Get("DPoP"); raw != "" {
		device = "d1"
		proof, err := dpop.Verify(raw, r.Method, g.URL+r.URL.Path, "", now)
		if err != nil {
			g.faults = append(g.faults, err.Error())
		}
		kind, g.thumbprint = "DPoP", proof.Thumbprint
	}
	writeJSON(w, status, api.OpenedSession{
		Session:     api.Session{ID: "s1", UserID: "local:ann", ProjectID: "web", DeviceID: device, KeyBound: kind == "DPoP", CreatedAt: now, ExpiresAt: now.Add(12 * time.Hour)},
		AccessToken: fmt.Sprintf("access%d", g.n), RefreshToken: fmt.Sprintf("ccr_%d", g.n), TokenType: kind, ExpiresIn: g.expiresIn,
	})
}

// inside serves h to whoever has a token, and a proof if the session wants one.
func (g *gate) inside(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if g.n == 0 || token != fmt.Sprintf("access%d", g.n) {
			problem(w, http.StatusUnauthorized, "unauthenticated", "the credential is not accepted")
			return
		}
		if g.thumbprint != "" {
			proof, err := dpop.Verify(r.Header.Get("DPoP"), r.Method, g.URL+r.URL.Path, token, now)
			if err != nil || proof.Thumbprint != g.thumbprint || scheme != "DPoP" {
				g.faults = append(g.faults, fmt.Sprintf("%s %s: %s, %v", r.Method, r.URL.Path, scheme, err))
			}
		}
		h(w, r)
	}
}

// person is somebody at a machine of their own.
func (g *gate) person(t *testing.T) invocation {
	return invocation{env: map[string]string{"CODERCLAW_URL": g.URL}, home: t.TempDir(), stdin: "correct horse\n"}
}

var byPassword = []string{"login", "--user", "ann", "--password-stdin"}

// succeeds runs a command that is to succeed, and to print no secret.
func (in invocation) succeeds(t *testing.T, args ...string) string {
	t.Helper()
	got := in.run(t, args...)
	if got.code != exitOK {
		t.Fatalf("clawctl %s: got %+v", strings.Join(args, " "), got)
	}
	silent(t, got)
	return got.stdout
}

// fails runs a command that is to fail with this, and to print no secret.
func (in invocation) fails(t *testing.T, want string, args ...string) {
	t.Helper()
	got := in.run(t, args...)
	if got.code != exitFailed || !strings.Contains(got.stderr, want) {
		t.Errorf("clawctl %s: got %+v, want %q", strings.Join(args, " "), got, want)
	}
	silent(t, got)
}

func silent(t *testing.T, got result) {
	t.Helper()
	for _, secret := range []string{"access1", "access2", "ccr_", "correct horse", "PRIVATE", "verifier"} {
		if strings.Contains(got.stdout+got.stderr, secret) {
			t.Errorf("%q is printed: %+v", secret, got)
		}
	}
}

func (in invocation) keptFile(g *gate) string {
	return filepath.Join(in.home, ".config", "coderclaw", "credentials", url.QueryEscape(g.URL)+".json")
}

// memoryKeyring is a keyring of one process.
type memoryKeyring struct {
	secrets map[string]string
	broken  error
}

func (k *memoryKeyring) get(_ context.Context, server string) (string, error) {
	secret, ok := k.secrets[server]
	switch {
	case k.broken != nil:
		return "", k.broken
	case !ok:
		return "", errNotInKeyring
	}
	return secret, nil
}

func (k *memoryKeyring) set(_ context.Context, server, secret string) error {
	if k.broken == nil {
		k.secrets[server] = secret
	}
	return k.broken
}

func (k *memoryKeyring) remove(_ context.Context, server string) error {
	if _, err := k.get(context.Background(), server); err != nil {
		return err
	}
	delete(k.secrets, server)
	return nil
}

func TestALoginSpeaksForTheUserUntilLogout(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	ann.fails(t, `Log in with "clawctl login"`, "whoami")
	if got := ann.succeeds(t, append(byPassword, "--project", "web")...); got != "Logged in as local:ann in project web until 2026-11-23T21:00:00Z\n" {
		t.Errorf("got %q", got)
	}
	if in := g.opened[0]; in.Login != "ann" || in.ProjectID != "web" {
		t.Errorf("the server was asked for %+v", in)
	}
	if got := ann.succeeds(t, "whoami"); !strings.Contains(got, "User:        local:ann\n") {
		t.Errorf("got %s", got)
	}
	ann.succeeds(t, "logout")
	if g.n != 0 {
		t.Error("the server was not told")
	}
	if _, err := os.Stat(ann.keptFile(g)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the credentials are there still: %v", err)
	}
	ann.fails(t, "the credential is not accepted", "whoami")
	if got := ann.run(t, "logout"); got.code != exitOK || !strings.Contains(got.stderr, "There is no login at "+g.URL) {
		t.Errorf("a second logout: got %+v", got)
	}
}

func TestAWrongPasswordIsToldWithoutAdviceToLogIn(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	ann.stdin = "wrong\n"
	got := ann.run(t, byPassword...)
	if want := "clawctl: the credential is not accepted (401 unauthenticated)\n"; got.code != exitFailed || got.stderr != want {
		t.Errorf("got %+v", got)
	}
}

func TestWithoutAKeyringCredentialsAreInAFileOfTheUsersAlone(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	ann.succeeds(t, byPassword...)
	path := ann.keptFile(g)
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	ann.fails(t, errNoKeyring.Error(), "whoami", "--keyring", "os")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	ann.fails(t, path+" can be read or written by others (mode 0640)", "whoami")
	if err := os.WriteFile(path, []byte(`{"refreshToken":"ccr_`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ann.fails(t, "what is kept for "+g.URL+" is damaged", "whoami")
}

func TestCredentialsAreInTheKeyringIfThereIsOne(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	ring := &memoryKeyring{secrets: map[string]string{}}
	ann.keyring = ring
	ann.succeeds(t, byPassword...)
	if !strings.Contains(ring.secrets[g.URL], "ccr_1") {
		t.Errorf("the keyring has %q", ring.secrets)
	}
	if _, err := os.Stat(ann.keptFile(g)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file, too: %v", err)
	}
	ann.succeeds(t, "whoami")
	ring.broken = errors.New("the keyring is locked")
	ann.fails(t, "Your login may be in the keyring, which could not be read: the keyring is locked", "whoami")
	ann.fails(t, "the keyring is locked", "whoami", "--keyring", "os")
	// From here on the file counts, for the entry of the keyring is old.
	ann.succeeds(t, byPassword...)
	ring.broken = nil
	ann.succeeds(t, "whoami")
	ann.succeeds(t, append(byPassword, "--keyring", "os")...)
	if _, err := os.Stat(ann.keptFile(g)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there still: %v", err)
	}
	ann.succeeds(t, "logout")
	if len(ring.secrets) != 0 {
		t.Errorf("the keyring has %q", ring.secrets)
	}
}

func TestASessionIsRenewedAndItsEndTold(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.expiresIn = 20 // by the time a request arrives it may be over
	ann := g.person(t)
	ann.succeeds(t, byPassword...)
	ann.succeeds(t, "whoami")
	ann.succeeds(t, "whoami")
	if g.renewals != 2 {
		t.Errorf("it was renewed %d times", g.renewals)
	}
	g.n = 0
	ann.fails(t, "the session has ended: the credential is not accepted (401 unauthenticated)\nLog in with", "whoami")
	if _, err := os.Stat(ann.keptFile(g)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is of no use is kept: %v", err)
	}
}

func TestTokensAreExchangedForSessions(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	robot := g.person(t)
	robot.env["CODERCLAW_TOKEN"] = "ccl_1_s3cret"
	if got := robot.run(t, "login"); got.code != exitOK || !strings.Contains(got.stderr, "CODERCLAW_TOKEN is set, and goes before this login.") || strings.Contains(got.stdout+got.stderr, "s3cret") {
		t.Errorf("got %+v", got)
	}
	robot.env["CODERCLAW_TOKEN"] = ""
	robot.succeeds(t, "login", "--token", "e30.e30.sig")
	robot.succeeds(t, "login", "--user", "ann", "--password-stdin", "--code", "ccb_1")
	if g.opened[0].APIKey != "ccl_1_s3cret" || g.opened[1].Token != "e30.e30.sig" || g.opened[2].Code != "ccb_1" || g.opened[2].Login != "ann" {
		t.Errorf("the server was asked for %+v", g.opened)
	}
}

func TestAJobOfGitHubActionsLogsIn(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer job" || r.URL.Query().Get("api-version") != "2.0" {
			t.Errorf("GitHub was asked %s with %q", r.URL, r.Header.Get("Authorization"))
		}
		writeJSON(w, http.StatusOK, map[string]string{"value": "token-for-" + r.URL.Query().Get("audience")})
	}))
	defer hub.Close()
	job := g.person(t)
	job.fails(t, "this is no job of GitHub Actions", "login", "--github-actions")
	job.env["ACTIONS_ID_TOKEN_REQUEST_URL"] = hub.URL + "/idtoken?api-version=2.0"
	job.env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "job"
	job.succeeds(t, "login", "--github-actions", "--project", "web")
	job.succeeds(t, "login", "--github-actions", "--audience", "claw")
	if g.opened[0].Token != "token-for-"+g.URL || g.opened[0].ProjectID != "web" || g.opened[1].Token != "token-for-claw" {
		t.Errorf("the server was asked for %+v", g.opened)
	}
}

func TestADeviceLoginShowsACodeAndWaits(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.providers = append(g.providers, api.LoginProvider{Name: "github", Flows: []string{"browser", "device"}})
	g.login = api.Login{ID: "l1", UserCode: "ABCD" + evil, VerificationURL: "https://hub.example/device?\u202e", ExpiresAt: now.Add(time.Minute)}
	g.pending = 3
	ann := g.person(t)
	got := ann.run(t, "login", "--provider", "github")
	if want := "Open https://hub.example/device?� on any machine and type in this code: ABCD" + tame + "\n"; got.code != exitOK || got.stderr != want {
		t.Errorf("got %+v, want %q", got, want)
	}
	if len(g.finished) != 4 || g.finished[3].ID != "l1" || g.started[0].Flow != "device" || g.started[0].Provider != "github" {
		t.Errorf("the server got %+v and %+v", g.started, g.finished)
	}
	// Haste and a provider that cannot be reached pass; a refusal does not.
	g.pending, g.failures, g.finished = 0, []int{429, 503, 503}, nil
	if got := ann.run(t, "login", "--provider", "github"); got.code != exitOK || strings.Count(got.stderr, "failure") != 1 || !strings.Contains(got.stderr, "failure 503. Trying on until ") {
		t.Errorf("got %+v", got)
	}
	g.failures, g.finished = []int{503, 502, 503}, nil
	ann.fails(t, "failure 502", "login", "--provider", "github")
	if len(g.finished) != 2 {
		t.Errorf("it was tried %d times", len(g.finished))
	}
	g.failures = nil
	g.pending, g.login.ExpiresAt = 1<<30, now.Add(-time.Second)
	ann.fails(t, "the code has expired", "login", "--device-flow")
	if got := ann.run(t, "login"); got.code != exitUsage || !strings.Contains(got.stderr, "choose one with --provider: local, github") {
		t.Errorf("got %+v", got)
	}
	if got := ann.run(t, "login", "--provider", "gitlab"); got.code != exitUsage || !strings.Contains(got.stderr, "the server has local, github") {
		t.Errorf("got %+v", got)
	}
}

// atBrowser makes the login of a browser: visit is what the browser does with
// the page that it is sent to, and the address that it is to come back to.
func atBrowser(t *testing.T, visit func(ann invocation, page, back *url.URL) error) (*gate, invocation) {
	g := newGate(t)
	g.providers = []api.LoginProvider{{Name: "corp", Flows: []string{"browser", "device"}}}
	g.login = api.Login{ID: "l1", AuthorizationURL: "https://idp.example/authorize?state=st4te&client_id=claw", ExpiresAt: now.Add(time.Minute)}
	ann := g.person(t)
	ann.env["DISPLAY"] = ":0"
	ann.browse = func(_ context.Context, address string) error {
		page, err := url.Parse(address)
		if err != nil {
			return err
		}
		back, err := url.Parse(g.started[len(g.started)-1].RedirectURL)
		if err != nil {
			return err
		}
		return visit(ann, page, back)
	}
	return g, ann
}

// fetch does what a browser does, beside the program.
func fetch(t *testing.T, address string, change func(*http.Request), check func(*http.Response)) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Error(err)
		return
	}
	if change != nil {
		change(req)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	check(res)
}

func TestABrowserLoginComesBackToThisMachine(t *testing.T) {
	t.Parallel()
	var visited sync.WaitGroup
	g, ann := atBrowser(t, func(_ invocation, page, back *url.URL) error {
		if back.Hostname() != "127.0.0.1" || page.Query().Get("state") != "st4te" {
			t.Errorf("sent to %s, back to %s", page, back)
		}
		visited.Go(func() {
			// Neither a page that has taken the address's name over nor a wrong
			// path is the browser that comes back.
			fetch(t, back.String()+"?state=st4te&code=stolen", func(r *http.Request) { r.Host = "evil.example" }, func(res *http.Response) {
				if res.StatusCode != http.StatusMisdirectedRequest {
					t.Errorf("another name: %s", res.Status)
				}
			})
			fetch(t, back.Scheme+"://"+back.Host+"/favicon.ico", nil, func(res *http.Response) {
				if res.StatusCode != http.StatusNotFound {
					t.Errorf("another path: %s", res.Status)
				}
			})
			fetch(t, back.String()+"?state=st4te&code=c0de", nil, func(res *http.Response) {
				if res.StatusCode != http.StatusOK || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Referrer-Policy") != "no-referrer" ||
					!strings.HasPrefix(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
					t.Errorf("got %s, %v", res.Status, res.Header)
				}
			})
		})
		return nil
	})
	got := ann.run(t, "login")
	visited.Wait()
	if got.code != exitOK || got.stdout != "Logged in as local:ann in project web until 2026-11-23T21:00:00Z\n" {
		t.Fatalf("got %+v", got)
	}
	silent(t, got)
	in := g.finished[0]
	challenge := sha256.Sum256([]byte(in.CodeVerifier))
	if len(g.finished) != 1 || in.ID != "l1" || in.Code != "c0de" || in.State != "st4te" || len(in.CodeVerifier) < 43 ||
		g.started[0].CodeChallenge != base64.RawURLEncoding.EncodeToString(challenge[:]) {
		t.Errorf("the server got %+v and %+v", g.started, g.finished)
	}
}

func TestABrowserLoginOfAnotherIsRefused(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"state=other&code=c0de": "belongs to another login (the state is wrong)",
		"code=c0de":             "belongs to another login (the state is wrong)",
		"state=st4te":           "the provider has sent no code",
		"state=st4te&error=access_denied&error_description=" + url.QueryEscape(evil): "the provider refuses the login: access_denied: " + tame,
	} {
		var visited sync.WaitGroup
		g, ann := atBrowser(t, func(_ invocation, _, back *url.URL) error {
			visited.Go(func() {
				fetch(t, back.String()+"?"+query, nil, func(res *http.Response) {
					if res.StatusCode != http.StatusBadRequest {
						t.Errorf("%s: the browser got %s", query, res.Status)
					}
				})
			})
			return nil
		})
		ann.fails(t, want, "login")
		visited.Wait()
		if len(g.finished) != 0 {
			t.Errorf("%s: the server got %+v", query, g.finished)
		}
	}
}

func TestABrowserIsSentToPagesOnly(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"file:///etc/passwd?state=x":           "the server names no page to log in at",
		"--help":                               "the server names no page to log in at",
		"javascript:alert(1)":                  "the server names no page to log in at",
		"https://u:p@idp.example/?state=x":     "the server names no page to log in at",
		"https://idp.example/?nonce=x":         "the server names no state",
		"https://idp.example/?state=x\x1b[31m": "the server names no page to log in at",
	} {
		g, ann := atBrowser(t, func(invocation, *url.URL, *url.URL) error {
			t.Errorf("the browser was sent to %q", address)
			return nil
		})
		g.login.AuthorizationURL = address
		ann.fails(t, want, "login")
	}
}

func TestABrowserLoginThatNobodyEndsRunsOut(t *testing.T) {
	t.Parallel()
	g, ann := atBrowser(t, func(invocation, *url.URL, *url.URL) error { return errors.New("no browser " + evil) })
	g.login.ExpiresAt = now.Add(20 * time.Millisecond)
	got := ann.run(t, "login")
	if got.code != exitFailed || !strings.Contains(got.stderr, "nobody has logged in in time") || !strings.Contains(got.stderr, "(no browser "+tame+")") {
		t.Errorf("got %+v", got)
	}
}

func TestAnEnrolledMachineBindsItsSessions(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	ann.succeeds(t, byPassword...)
	ann.fails(t, "this machine has no key yet", "device", "verify", "--code", "cce_1")
	if got := ann.succeeds(t, "device", "enroll", "--name", "ann's laptop", "--code", "cce_0"); got != "d1 is untrusted\n" {
		t.Errorf("got %q", got)
	}
	key, err := dpop.ParseJWK(g.device.Key)
	if err != nil || key.Algorithm() != "EdDSA" || g.device.Name != "ann's laptop" || g.device.Code != "cce_0" || !key.VerifyChallenge(g.device.Challenge, g.device.Signature) {
		t.Errorf("the server got %+v, %v", g.device, err)
	}
	ann.fails(t, "this machine is device d1 already", "device", "enroll", "--name", "x")
	ann.succeeds(t, "whoami") // by the session from before, which is not bound

	g.expiresIn = 20
	ann.succeeds(t, byPassword...)
	if g.thumbprint != key.Thumbprint() {
		t.Errorf("the session is bound to %q", g.thumbprint)
	}
	ann.succeeds(t, "whoami") // renewed, and signed
	if got := ann.succeeds(t, "device", "verify", "--code", "cce_1"); got != "d1 is verified\n" {
		t.Errorf("got %q", got)
	}
	ann.succeeds(t, "logout")
	ann.succeeds(t, byPassword...)
	if g.thumbprint != key.Thumbprint() {
		t.Error("the key did not outlive the logout")
	}
	ann.succeeds(t, "device", "forget")
	ann.succeeds(t, byPassword...)
	if g.thumbprint != "" {
		t.Errorf("the session is bound to %q", g.thumbprint)
	}
	ann.fails(t, "this machine has no key", "device", "forget")
}

func TestALoginCanMakeTheMachineADevice(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	with := func(args ...string) []string { return append(append([]string{}, byPassword...), args...) }
	for flag, text := range map[string]string{"--enrolment-code": "this machine has no key yet", "--device-name": "goes with --enroll"} {
		if got := ann.run(t, with(flag, "x")...); got.code != exitUsage || !strings.Contains(got.stderr, text) {
			t.Errorf("%s alone: got %+v", flag, got)
		}
	}
	ann.succeeds(t, with("--enroll", "--device-name", "ann's laptop", "--enrolment-code", "cce_1")...)
	if n := g.opened[len(g.opened)-1]; n.DeviceName != "ann's laptop" || n.EnrolmentCode != "cce_1" || g.thumbprint == "" {
		t.Errorf("asked for %+v, with the key %q", n, g.thumbprint)
	}
	thumbprint := g.thumbprint
	ann.succeeds(t, "whoami")
	ann.fails(t, "is device d1 already", with("--enroll")...)
	ann.succeeds(t, byPassword...)
	if g.thumbprint != thumbprint {
		t.Errorf("the next session is bound to %q", g.thumbprint)
	}

	g.providers = []api.LoginProvider{{Name: "corp", Flows: []string{"device"}}}
	g.login = api.Login{ID: "l1", UserCode: "ABCD", VerificationURL: "https://login.example.com/device", IntervalSeconds: 1, ExpiresAt: now.Add(time.Hour)}
	bob := g.person(t)
	bob.succeeds(t, "login", "--enroll", "--device-name", "bob's desk")
	if f := g.finished[0]; f.DeviceName != "bob's desk" || g.started[0].Session.DeviceName != "" {
		t.Errorf("ended with %+v, begun with %+v", f, g.started[0])
	}
}

func TestWhatIsKeptIsNotPrinted(t *testing.T) {
	t.Parallel()
	kept := credentials{Server: "http://x", AccessToken: "s3cret", RefreshToken: "s3cret", DeviceKey: "s3cret"}
	if text := fmt.Sprintf("%v %+v %#v %s %v", kept, kept, kept, kept, &kept); strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}
