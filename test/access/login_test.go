package access

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

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

// logIn fills in the form of a page of the issuer's, and returns what comes of it.
func (i *issuer) logIn(t *testing.T, b *http.Client, address, name string) (*http.Response, error) {
	t.Helper()
	resp, err := b.Get(address)
	form := page(t, resp, err)
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(form)
	if id == nil {
		t.Fatalf("the provider shows no login: %s", form)
	}
	return b.PostForm(i.url+"login/username", url.Values{"id": {id[1]}, "username": {name}, "password": {password}})
}

// login logs in with a browser, on this machine.
func (p *person) login() {
	p.t.Helper()
	found, end := p.watch(`Log in in the browser: (\S+)`, "login", "--provider", "corp")
	resp, err := p.issuer.logIn(p.t, browser(p.t), found[1], p.name)
	if text := page(p.t, resp, err); !strings.Contains(text, "You are logged in") {
		p.t.Fatalf("the browser shows %s", text)
	}
	end(0)
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
	end(0)
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
	token, _ := p.issuer.tokens(t, "ann")

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
	joe := &person{place: p, name: "joe", id: "local:joe", home: t.TempDir()}
	if _, err := p.client(operatorToken).CreateUser(t.Context(), api.NewUser{Login: joe.name, Password: password}); err != nil {
		t.Fatal(err)
	}
	p.issuer.http.Close()
	again.roles()
	if got := p.status(token); got != http.StatusOK {
		t.Errorf("a token by a key that is known gets %d", got)
	}
	joe.clawctl(0, "login", "--user", joe.name, "--password-stdin")
	joe.roles()
	if _, why := p.person("ann").clawctl(1, "login", "--provider", "corp", "--device-flow"); !strings.Contains(why, "503") || !strings.Contains(why, "cannot be reached") {
		t.Errorf("a login without provider: %s", why)
	}
}

func TestATokenOfTheProviderIsALoginForCI(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	token, opaque := p.issuer.tokens(t, "ann")
	job := p.person("ann")
	if out, _ := job.clawctl(0, "whoami", "--token", token); !strings.Contains(out, job.id) || !strings.Contains(out, "developer") {
		t.Errorf("who shows an ID token is %s", out)
	}
	if _, why := job.clawctl(1, "whoami", "--token", opaque); !strings.Contains(why, "401") {
		t.Errorf("who shows the provider's own access token is told %s", why)
	}
	job.clawctl(0, "login", "--token", token)
	if roles := job.roles(); !slices.Equal(roles, []string{"developer"}) {
		t.Errorf("the login has the roles %v", roles)
	}
}

func TestAnOlderTokenBringsNoRoleBack(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	ann := p.person("ann")
	shown, _ := p.issuer.tokens(t, "ann")
	unused, _ := p.issuer.tokens(t, "ann")
	made := time.Now().Truncate(time.Second) // tokens say when they were made to the second
	if out, _ := ann.clawctl(0, "whoami", "--token", shown); !strings.Contains(out, "developer") {
		t.Fatalf("an engineer is %s", out)
	}
	p.issuer.move("ann", "visitors")
	for !time.Now().Truncate(time.Second).After(made) {
		time.Sleep(10 * time.Millisecond)
	}
	ann.login()
	again := p.person("ann")
	again.clawctl(0, "login", "--token", unused)
	for _, a := range []*person{ann, again} {
		if roles := a.roles(); !slices.Equal(roles, []string{"readonly"}) {
			t.Errorf("a former engineer has the roles %v", roles)
		}
	}
	for _, token := range []string{shown, unused} {
		if out, _ := ann.clawctl(0, "whoami", "--token", token); strings.Contains(out, "developer") {
			t.Errorf("a former engineer with an older token is %s", out)
		}
	}
}

func TestAServerThatItsProviderDoesNotKnowSaysSo(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	i.secret = "what the operator should have written"
	document := i.document(t)
	i.secret = "what the provider knows"
	p := startPlace(t, "dev", document)
	p.issuer = i
	if _, why := p.person("ann").clawctl(1, "login", "--provider", "corp", "--device-flow"); !strings.Contains(why, "does not accept this server as its client") {
		t.Errorf("the person is told %s", why)
	}
}

func TestAProviderThatWantsASecretGetsIt(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	i.secret = "s3cr3t: 100% & +more" // which RFC 6749, section 2.3.1, has encoded
	ann := i.place(t).person("ann")
	ann.login()
	ann.roles()
}
