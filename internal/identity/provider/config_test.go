package provider_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/identity/provider"
)

func writeJSON(w http.ResponseWriter, value any) { json.NewEncoder(w).Encode(value) }

func TestAConfigurationThatLetsAnybodyInIsRefused(t *testing.T) {
	t.Parallel()
	corp := provider.OIDC{Name: "corp", Issuer: "https://idp.corp.example", ClientID: "c"}
	oidc := func(change func(*provider.OIDC)) provider.Config {
		c := corp
		change(&c)
		return provider.Config{OIDC: []provider.OIDC{c}}
	}
	rule := func(change func(*provider.Rule)) provider.Config {
		r := mainBranch
		change(&r)
		return provider.Config{GitHubActions: []provider.Rule{r}, PublicURL: publicURL}
	}
	for _, c := range []struct {
		config provider.Config
		fault  string
	}{
		{oidc(func(c *provider.OIDC) { c.Name = "Corp:x" }), "oidc[0].name"},
		{oidc(func(c *provider.OIDC) { c.Name = "github" }), "is taken"},
		{oidc(func(c *provider.OIDC) { c.Issuer = "http://idp.corp.example" }), "neither https nor on loopback"},
		{oidc(func(c *provider.OIDC) { c.Issuer = "https://user@idp.corp.example" }), "not the URL"},
		{oidc(func(c *provider.OIDC) { c.Issuer = "https://idp.corp.example?x=y" }), "query"},
		{oidc(func(c *provider.OIDC) { c.Issuer = "" }), "not the URL"},
		{oidc(func(c *provider.OIDC) { c.Issuer = "https://accounts.google.com" }), "set up as google"},
		{oidc(func(c *provider.OIDC) { c.Issuer = "https://token.actions.githubusercontent.com" }), "set up as githubActions"},
		{oidc(func(c *provider.OIDC) { c.ClientID = "" }), "needs a clientId"},
		{oidc(func(c *provider.OIDC) { c.Audiences = []string{""} }), "audiences"},
		{oidc(func(c *provider.OIDC) { c.GroupRoles = map[string][]string{"a": {"admin"}} }), "needs a groupsClaim"},
		{oidc(func(c *provider.OIDC) { c.GroupsClaim, c.ProjectRoles = "g", map[string]map[string][]string{"": nil} }), "project without a name"},
		{provider.Config{OIDC: []provider.OIDC{corp, {Name: "again", Issuer: corp.Issuer, ClientID: "d"}}}, "oidc[1].issuer: is in the list twice"},
		{provider.Config{OIDC: []provider.OIDC{corp, {Name: "corp", Issuer: "https://other.example", ClientID: "d"}}}, "is taken"},
		{provider.Config{GitHub: &provider.GitHub{ClientID: "c"}}, "all of GitHub could log in"},
		{provider.Config{GitHub: &provider.GitHub{Organizations: []string{"acme"}}}, "github.clientId"},
		{provider.Config{GitHub: &provider.GitHub{ClientID: "c", Organizations: []string{"acme/../x"}}}, "github.organizations"},
		{provider.Config{GitHub: &provider.GitHub{ClientID: "c", TeamRoles: map[string][]string{"acme": nil}}}, "organisation/team"},
		{provider.Config{GitHub: &provider.GitHub{ClientID: "c", AllowedUsers: []int64{0}}}, "github.allowedUsers"},
		{provider.Config{GitHub: &provider.GitHub{ClientID: "c", Organizations: []string{"a"}, BaseURL: "http://git.corp.example"}}, "github.baseUrl"},
		{provider.Config{Google: &provider.Google{ClientID: "c"}}, "everybody with a Google account"},
		{provider.Config{Google: &provider.Google{ClientID: "c", HostedDomains: []string{"a.example"}, DomainRoles: map[string][]string{"b.example": nil}}}, "google.domainRoles"},
		{rule(func(r *provider.Rule) { r.Project = "" }), "githubActions[0].project"},
		{rule(func(r *provider.Rule) { r.RepositoryID = 0 }), "repositoryId"},
		{rule(func(r *provider.Rule) { r.RepositoryOwnerID = 0 }), "repositoryOwnerId"},
		{rule(func(r *provider.Rule) { r.Events = nil }), "events: is missing"},
		{rule(func(r *provider.Rule) { r.Events = []string{"*"} }), "no wildcards"},
		{rule(func(r *provider.Rule) { r.Refs = nil }), "needs refs or an environment"},
		{rule(func(r *provider.Rule) { r.Refs = []string{"main"} }), "not a full ref"},
		{rule(func(r *provider.Rule) { r.Refs = []string{"refs/heads/*"} }), "no wildcards"},
		{provider.Config{GitHubActions: []provider.Rule{mainBranch}}, "needs an audience"},
	} {
		_, err := provider.New(c.config, provider.Options{})
		if err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("got %v, want %q", err, c.fault)
		}
	}
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := provider.New(provider.Config{
		OIDC:   []provider.OIDC{{Name: "A", Issuer: "ftp://x"}},
		GitHub: &provider.GitHub{},
		Google: &provider.Google{},
	}, provider.Options{})
	for _, want := range []string{"oidc[0].name", "oidc[0].issuer", "github.clientId", "google.hostedDomains"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestANewSetAsksNobody(t *testing.T) {
	t.Parallel()
	set := newSet(t, provider.Config{
		OIDC:   []provider.OIDC{{Name: "corp", Issuer: "https://idp.corp.example", ClientID: "c"}},
		GitHub: &provider.GitHub{ClientID: "c", AllowedUsers: []int64{1}},
		Google: &provider.Google{ClientID: "c", HostedDomains: []string{"corp.example"}},
	}, newClock(), nobody{t})
	if got := strings.Join(set.Logins(), " "); got != "corp github google" {
		t.Errorf("people can log in at %s", got)
	}
}

// nobody is a network that must not be used.
type nobody struct{ t *testing.T }

func (n nobody) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("%s was asked", r.URL)
	return nil, http.ErrHandlerTimeout
}
