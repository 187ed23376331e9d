package access

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/coderclaw/runtime/test/server"
)

const patience = 2 * time.Minute

// place is a server that lets in who the issuer vouches for.
type place struct {
	t      *testing.T
	url    string
	issuer *issuer
	bin    string // directory of clawctl
}

const operatorToken = "the-operators-token-of-this-test"

func newPlace(t *testing.T) *place {
	t.Helper()
	i := newIssuer(t)
	p := &place{t: t, issuer: i, bin: t.TempDir()}
	p.url = server.StartWith(t, server.Settings{
		Environment: []string{"CODERCLAW_TOKEN=" + operatorToken},
		Files: map[string]string{
			"runtime.yaml": "security:\n  requireAuth: true\n  defaultRoles: [readonly]\n",
			"security.yaml": fmt.Sprintf(`identity:
  providers: [oidc, local]
  oidc:
    - name: corp
      issuer: %s
      clientId: %s
      groupsClaim: groups
      groupRoles:
        engineers: [developer]
`, i.url, clientID),
		},
	})
	server.Build(t, p.bin, "clawctl")
	// The person's browser: it tells the test where it is sent.
	script := "#!/bin/sh\nprintf '%s\\n' \"$1\" > \"$HOME/browser\"\n"
	if err := os.WriteFile(filepath.Join(p.bin, "xdg-open"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// person is somebody at a machine of their own.
type person struct {
	*place
	name string
	home string
}

func (p *place) person(name string) *person {
	return &person{p, name, p.t.TempDir()}
}

func (p *person) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "clawctl"), append(args, "--url", p.url, "--keyring", "file")...)
	cmd.Env = []string{"HOME=" + p.home, "PATH=" + p.bin + ":" + os.Getenv("PATH"), "DISPLAY=:0"}
	return cmd
}

// clawctl runs a command to its end.
func (p *person) clawctl(wantCode int, args ...string) (stdout, stderr string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := p.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		p.t.Fatalf("%s: clawctl %v: exit code %d, want %d: %s%s", p.name, args, code, wantCode, &out, &errs)
	}
	return out.String(), errs.String()
}

// roles are those that the server knows the person to have.
func (p *person) roles() []string {
	p.t.Helper()
	out, _ := p.clawctl(0, "whoami", "-o", "json")
	var me struct {
		UserID string   `json:"userId"`
		Roles  []string `json:"roles"`
	}
	if err := json.Unmarshal([]byte(out), &me); err != nil || me.UserID != "oidc:corp:"+p.name {
		p.t.Fatalf("%s is %q (%v)", p.name, out, err)
	}
	return me.Roles
}

// watch starts a command and returns what it says that matches, as soon as it
// does, and a function that waits for its end.
func (p *person) watch(pattern string, args ...string) (found []string, end func()) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	cmd := p.command(ctx, args...)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		p.t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(io.TeeReader(stderr, &said))
	for found == nil && lines.Scan() {
		found = regexp.MustCompile(pattern).FindStringSubmatch(lines.Text())
	}
	end = func() {
		p.t.Helper()
		defer cancel()
		for lines.Scan() {
			continue
		}
		if err := cmd.Wait(); err != nil {
			p.t.Fatalf("%s: clawctl %v: %v: %s", p.name, args, err, &said)
		}
	}
	if found == nil {
		end()
		p.t.Fatalf("%s: clawctl %v does not say %s: %s", p.name, args, pattern, &said)
	}
	return found, end
}

// page is what a browser shows.
func page(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v %s", resp.Request.URL, resp.StatusCode, err, text)
	}
	return string(text)
}

func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: patience}
}

// login logs in with a browser, on this machine.
func (p *person) login() {
	p.t.Helper()
	found, end := p.watch(`Log in in the browser: (\S+)`, "login", "--provider", "corp")
	b := browser(p.t)
	resp, err := b.Get(found[1])
	form := page(p.t, resp, err)
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(form)
	if id == nil {
		p.t.Fatalf("the provider shows no login: %s", form)
	}
	resp, err = b.PostForm(p.issuer.url+"login/username", url.Values{"id": {id[1]}, "username": {p.name}, "password": {password}})
	if text := page(p.t, resp, err); !strings.Contains(text, "You are logged in") {
		p.t.Fatalf("the browser shows %s", text)
	}
	end()
}

// loginByDevice logs in with a browser on another machine.
func (p *person) loginByDevice() {
	p.t.Helper()
	found, end := p.watch(`Open (\S+) on any machine and type in this code: (\S+)`, "login", "--provider", "corp", "--device-flow")
	b := browser(p.t)
	resp, err := b.PostForm(p.issuer.url+"device/login", url.Values{"user_code": {found[2]}, "username": {p.name}, "password": {password}})
	page(p.t, resp, err)
	resp, err = b.PostForm(p.issuer.url+"device/confirm", url.Values{"action": {"allowed"}})
	page(p.t, resp, err)
	end()
}

func TestPeopleLogInAtTheirProviderAndHaveTheRolesOfTheirGroups(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	ann, bob := p.person("ann"), p.person("bob")

	ann.login()
	if roles := ann.roles(); !slices.Equal(roles, []string{"developer"}) {
		t.Errorf("an engineer has the roles %v", roles)
	}
	out, _ := ann.clawctl(0, "submit", "Where is the tooth of the saw?", "--manual")
	task := strings.TrimSpace(out)

	bob.loginByDevice()
	if roles := bob.roles(); !slices.Equal(roles, []string{"readonly"}) {
		t.Errorf("a visitor has the roles %v, not those of everybody", roles)
	}
	if _, why := bob.clawctl(1, "submit", "May I?", "--manual"); !strings.Contains(why, "task:submit") {
		t.Errorf("a visitor who submits is told %s", why)
	}
	if _, why := bob.clawctl(1, "tasks", "get", task); !strings.Contains(why, "no task") {
		t.Errorf("another's task: %s", why)
	}

	// What the provider says at the next login counts, for the old session too.
	p.issuer.move("ann", "visitors")
	again := p.person("ann")
	again.login()
	for _, a := range []*person{again, ann} {
		if roles := a.roles(); !slices.Equal(roles, []string{"readonly"}) {
			t.Errorf("a former engineer has the roles %v", roles)
		}
	}

	ann.clawctl(0, "logout")
	if _, why := ann.clawctl(1, "whoami"); !strings.Contains(why, "Log in with") {
		t.Errorf("after the logout: %s", why)
	}
	again.roles()

	// Without its provider the server goes on with whom it knows.
	p.issuer.http.Close()
	again.roles()
	if _, why := p.person("ann").clawctl(1, "login", "--provider", "corp", "--device-flow"); !strings.Contains(why, "503") {
		t.Errorf("a login without provider: %s", why)
	}
	operator := p.status("Bearer " + operatorToken)
	if operator != http.StatusOK {
		t.Errorf("the operator gets %d", operator)
	}
}

// status is what the server answers to a request with a credential.
func (p *place) status(authorization string) int {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+"/v1/me", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestOnlyTokensThatTheProviderHasSignedForUsAreAccepted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	key := p.issuer.current()
	evil := newSigner(t, key.id)
	with := func(changes map[string]any) map[string]any {
		claims := p.issuer.claims()
		maps.Copy(claims, changes)
		return claims
	}
	rs256 := func(s *signer, id string, changes map[string]any) string {
		return sign(t, jose.RS256, s.key, id, with(changes))
	}
	if got := p.status("Bearer " + rs256(key, key.id, nil)); got != http.StatusOK {
		t.Fatalf("a good token gets %d", got)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	claims, err := json.Marshal(p.issuer.claims())
	if err != nil {
		t.Fatal(err)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims) + "."
	good := rs256(key, key.id, nil)
	hour := time.Hour
	for what, token := range map[string]string{
		"a forged signature":            rs256(evil, key.id, nil),
		"a key that is not known":       rs256(evil, "another", nil),
		"no key's name, another's key":  rs256(evil, "", nil),
		"another audience":              rs256(key, key.id, map[string]any{"aud": "someone-else"}),
		"several audiences and no azp":  rs256(key, key.id, map[string]any{"aud": []string{clientID, "someone-else"}}),
		"another issuer":                rs256(key, key.id, map[string]any{"iss": "http://localhost:1/"}),
		"the issuer without its slash":  rs256(key, key.id, map[string]any{"iss": strings.TrimSuffix(p.issuer.url, "/")}),
		"an hour too old":               rs256(key, key.id, map[string]any{"exp": time.Now().Add(-hour).Unix()}),
		"no end":                        rs256(key, key.id, map[string]any{"exp": nil}),
		"an hour too early":             rs256(key, key.id, map[string]any{"nbf": time.Now().Add(hour).Unix()}),
		"nobody":                        rs256(key, key.id, map[string]any{"sub": ""}),
		"no signature":                  none,
		"the public key as a secret":    sign(t, jose.HS256, publicPEM, key.id, with(nil)),
		"the signature of another text": good[:strings.LastIndex(good, ".")] + rs256(key, key.id, map[string]any{"sub": "bob"})[strings.LastIndex(rs256(key, key.id, map[string]any{"sub": "bob"}), "."):],
		"half a token":                  good[:len(good)/2],
	} {
		if got := p.status("Bearer " + token); got != http.StatusUnauthorized && got != http.StatusTooManyRequests {
			t.Errorf("%s gets %d", what, got)
		}
	}
}

func TestKeysThatTheProviderChangesAreFollowedAndStrangersCannotDriveThat(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	old, next := p.issuer.current(), newSigner(t, "second")
	token := func(s *signer) string { return "Bearer " + sign(t, jose.RS256, s.key, s.id, p.issuer.claims()) }
	if got := p.status(token(old)); got != http.StatusOK {
		t.Fatalf("a good token gets %d", got)
	}
	asked := p.issuer.keySet.Load()
	for i := range 10 {
		p.status("Bearer " + sign(t, jose.RS256, next.key, fmt.Sprintf("made up %d", i), p.issuer.claims()))
	}
	if n := p.issuer.keySet.Load() - asked; n > 2 {
		t.Errorf("ten made-up keys made the server ask for the keys %d times", n)
	}
	p.issuer.rotate(next)
	for deadline := time.Now().Add(patience); ; {
		got := p.status(token(next))
		if got == http.StatusOK {
			break
		}
		if got != http.StatusUnauthorized && got != http.StatusTooManyRequests || time.Now().After(deadline) {
			t.Fatalf("a token by the new key gets %d", got)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}
