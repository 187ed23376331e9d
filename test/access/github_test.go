package access

import (
	"fmt"
	"net/http"
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

	ann := &person{p, "octocat", "github:583231", t.TempDir()}
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
	stranger := &person{p, "octo-cat", "github:666", t.TempDir()}
	if why := stranger.loginAtGitHub(http.StatusBadRequest, 1); !strings.Contains(why, "not allowed in") {
		t.Errorf("who is not of the organisation is told %s", why)
	}
	stranger.clawctl(1, "whoami")
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
