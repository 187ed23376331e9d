package access

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
)

func TestPeopleOfGitHubHaveTheRolesOfTheirTeams(t *testing.T) {
	t.Parallel()
	octocat := providertest.User{
		ID: 583231, Login: "octocat", Email: "octocat@example.com",
		Organizations: map[string]string{"octo-org": "active"}, Teams: []string{"octo-org/platform"},
	}
	mallory := providertest.User{ID: 666, Login: "octo-cat", Email: "octocat@example.com"}
	hub := providertest.NewGitHub(t, octocat, mallory)
	p := startPlace(t, "dev", fmt.Sprintf(`identity:
  providers: [github]
  github:
    clientId: %s
    baseUrl: %s
    organizations: [octo-org]
    teamRoles:
      octo-org/platform: [developer]
`, providertest.ClientID, hub.URL), "CODERCLAW_GITHUB_CLIENT_SECRET="+providertest.ClientSecret)

	ann := &person{place: p, name: "octocat", id: "github:583231", home: t.TempDir()}
	found, end := ann.watch(`Open (\S+) on any machine and type in this code: (\S+)`, "login", "--device-flow")
	if want := hub.URL + "/login/device"; found[1] != want {
		t.Errorf("the person is sent to %s, not to %s", found[1], want)
	}
	hub.Decide(found[2], true)
	end(0)
	if roles := ann.roles(); !slices.Equal(roles, []string{"developer"}) {
		t.Errorf("a member of the team has the roles %v", roles)
	}

	octocat.Teams = nil
	hub.Put(octocat)
	ann.loginAtGitHub(http.StatusOK, 0)
	if roles := ann.roles(); !slices.Equal(roles, []string{"readonly"}) {
		t.Errorf("a former member of the team has the roles %v", roles)
	}

	hub.SignIn(mallory.ID)
	stranger := &person{place: p, name: "octo-cat", id: "github:666", home: t.TempDir()}
	if why := stranger.loginAtGitHub(http.StatusBadRequest, 1); !strings.Contains(why, "not allowed in") {
		t.Errorf("who is not of the organisation is told %s", why)
	}
	stranger.clawctl(1, "whoami")
}

func TestAJobOfAGitHubEnterpriseIsTheProjectsCI(t *testing.T) {
	t.Parallel()
	hub := providertest.NewActions(t)
	p := startPlace(t, "dev", fmt.Sprintf(`identity:
  providers: []
  githubActionsIssuer: %s
  githubActions:
    - {project: web, repositoryId: 74, repositoryOwnerId: 65, events: [push], refs: [refs/heads/main], audience: claw}
`, hub.URL))
	// What a runner gives its jobs.
	claims, token := providertest.Claims{}, ""
	runner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-job" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		token = hub.ActionsToken(r.URL.Query().Get("audience"), claims)
		fmt.Fprintf(w, `{"value":%q}`, token)
	}))
	defer runner.Close()
	job := func() *person {
		return &person{place: p, name: "the job", id: "ci:74", home: t.TempDir(), env: []string{
			"ACTIONS_ID_TOKEN_REQUEST_URL=" + runner.URL + "/?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=of-the-job",
		}}
	}
	push := job()
	push.clawctl(0, "login", "--github-actions", "--audience", "claw")
	if roles := push.roles(); !slices.Equal(roles, []string{"ci"}) {
		t.Errorf("a job has the roles %v", roles)
	}
	if out, _ := push.clawctl(0, "submit", "Check the push.", "--manual", "-o", "json"); !strings.Contains(out, `"projectId": "web"`) {
		t.Errorf("the job submits %s", out)
	}
	if _, why := job().clawctl(1, "login", "--token", token); !strings.Contains(why, "401") {
		t.Errorf("the second login by one token: %s", why)
	}
	if _, why := job().clawctl(1, "login", "--github-actions"); !strings.Contains(why, "401") {
		t.Errorf("a token for another audience: %s", why)
	}
	claims = providertest.Claims{"event_name": "pull_request"}
	if _, why := job().clawctl(1, "login", "--github-actions", "--audience", "claw"); !strings.Contains(why, "401") {
		t.Errorf("a pull request: %s", why)
	}
}

// loginAtGitHub logs in with a browser on this machine, whose person agrees.
func (p *person) loginAtGitHub(wantStatus, wantCode int) (said string) {
	p.t.Helper()
	found, end := p.watch(`Log in in the browser: (\S+)`, "login", "--provider", "github")
	resp, err := browser(p.t).Get(found[1])
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != wantStatus {
		p.t.Errorf("the browser of %s gets %s", p.name, resp.Status)
	}
	return end(wantCode)
}
