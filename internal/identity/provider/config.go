package provider

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Config says whose word is taken, and for what.
type Config struct {
	OIDC   []OIDC
	GitHub *GitHub // nil: no login by GitHub
	Google *Google // nil: no login by Google
	// GitHubActions are asked in their order; the first one that a token
	// matches decides.
	GitHubActions []Rule
	// ActionsIssuer is the issuer of GitHub Actions tokens. Empty is that of
	// github.com; a GitHub Enterprise Server has its own.
	ActionsIssuer string
	// PublicURL is our own address: the audience that GitHub Actions tokens must
	// be made for, exactly, where a rule names no other.
	PublicURL string
}

// OIDC is an OpenID Connect provider.
type OIDC struct {
	Name string // lower-case letters, digits and dashes; part of the users' names
	// Issuer is its URL, exactly as in its tokens: https, or http on loopback.
	Issuer string
	// ClientID and ClientSecret are for logins. Without an id the provider's
	// bearer tokens are accepted and nobody can log in; without a secret we are
	// a public client.
	ClientID     string
	ClientSecret string
	// Audiences are those that bearer tokens may be made for; none means
	// ClientID.
	Audiences []string
	// UsernameClaim is what people are shown as; "" is preferred_username, or
	// else name.
	UsernameClaim string
	// GroupsClaim holds the names of groups; "" is none.
	GroupsClaim string
	GroupRoles  map[string][]string // role names by group, in all projects
	// ProjectRoles are role names by project and group, in that project alone.
	ProjectRoles map[string]map[string][]string
	// RequiredClaims must all be in a token, with these values or, for a claim
	// that is a list, with these among others.
	RequiredClaims map[string]string
}

// GitHub is a login by an OAuth app at github.com or a GitHub Enterprise.
// Somebody who is in none of the organisations and teams and not one of the
// users is not let in.
type GitHub struct {
	ClientID     string
	ClientSecret string
	BaseURL      string // "" is https://github.com
	// Organizations and TeamRoles go by names, as all of GitHub does: take an
	// organisation out before giving up its name.
	Organizations []string
	TeamRoles     map[string][]string // role names by organisation/team-slug
	AllowedUsers  []int64             // numeric ids
}

// Google is a login by Google accounts of organisations.
type Google struct {
	ClientID      string
	ClientSecret  string
	HostedDomains []string            // the Workspace domains that are let in
	DomainRoles   map[string][]string // role names by hosted domain
}

// Rule lets the workflows of one repository in, as a role in one project.
// Names are compared exactly and there are no wildcards. Repository and owner
// go by their numeric ids, which are never given to another.
type Rule struct {
	Project           string
	RepositoryID      int64
	RepositoryOwnerID int64
	// Events are those that may have started the workflow. pull_request and
	// pull_request_target, which strangers can cause, are let in only if they
	// stand here like any other.
	Events []string
	// Refs and Environment: at least one is needed, and what is given must
	// match. A ref is a full one, e.g. refs/heads/main.
	Refs        []string
	Environment string
	// JobWorkflowRef, if given, is the reusable workflow that must be running,
	// e.g. octo/ci/.github/workflows/agents.yml@refs/heads/main.
	JobWorkflowRef string
	Role           string // "" is ci
	// Audience is what the tokens must be made for; "" is the PublicURL.
	Audience string
}

const (
	githubName  = "github"
	googleName  = "google"
	actionsName = "github-actions"

	googleIssuer  = "https://accounts.google.com"
	actionsIssuer = "https://token.actions.githubusercontent.com"
)

var (
	providerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	githubLogin  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)
	githubTeam   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,255}$`)
	githubEvent  = regexp.MustCompile(`^[a-z_]{1,100}$`)
)

func (c Config) actionsIssuer() string {
	if c.ActionsIssuer == "" {
		return actionsIssuer
	}
	return c.ActionsIssuer
}

func (g GitHub) baseURL() string {
	if g.BaseURL == "" {
		return "https://github.com"
	}
	return strings.TrimSuffix(g.BaseURL, "/")
}

// apiURL returns where the API of GitHub, a GitHub Enterprise Cloud with its
// own domain or a GitHub Enterprise Server is.
func (g GitHub) apiURL() string {
	base, err := url.Parse(g.baseURL())
	if err == nil && (base.Host == "github.com" || strings.HasSuffix(base.Host, ".ghe.com")) {
		return "https://api." + base.Host
	}
	return g.baseURL() + "/api/v3"
}

// checker collects what is wrong.
type checker []error

func (c *checker) fault(path, format string, args ...any) {
	*c = append(*c, fmt.Errorf(path+": "+format, args...))
}

func (c Config) check() error {
	var faults checker
	issuers := map[string]bool{googleIssuer: c.Google != nil, c.actionsIssuer(): len(c.GitHubActions) > 0}
	names := []string{githubName, googleName, actionsName, "local", "key"}
	for i, p := range c.OIDC {
		path := fmt.Sprintf("oidc[%d]", i)
		if !providerName.MatchString(p.Name) {
			faults.fault(path+".name", "%.60q is not made of lower-case letters, digits and dashes", p.Name)
		}
		if slices.Contains(names, p.Name) {
			faults.fault(path+".name", "%q is taken", p.Name)
		}
		names = append(names, p.Name)
		faults.url(path+".issuer", p.Issuer)
		switch _, known := issuers[p.Issuer]; {
		case p.Issuer == googleIssuer:
			faults.fault(path+".issuer", "is set up as google, which checks the domain of an account")
		case p.Issuer == c.actionsIssuer() || p.Issuer == actionsIssuer:
			faults.fault(path+".issuer", "is set up as githubActions; anybody can have its tokens")
		case known:
			faults.fault(path+".issuer", "is in the list twice")
		}
		issuers[p.Issuer] = true
		if p.ClientID == "" && len(p.Audiences) == 0 {
			faults.fault(path, "needs a clientId, or audiences for bearer tokens")
		}
		if slices.Contains(p.Audiences, "") {
			faults.fault(path+".audiences", "must not be empty texts")
		}
		if len(p.GroupRoles)+len(p.ProjectRoles) > 0 && p.GroupsClaim == "" {
			faults.fault(path, "gives roles to groups and needs a groupsClaim")
		}
		if _, ok := p.ProjectRoles[""]; ok {
			faults.fault(path+".projectRoles", "has a project without a name")
		}
	}
	if c.GitHub != nil {
		faults.github(*c.GitHub)
	}
	if c.Google != nil {
		faults.google(*c.Google)
	}
	if len(c.GitHubActions) > 0 {
		faults.url("actionsIssuer", c.actionsIssuer())
	}
	for i, r := range c.GitHubActions {
		path := fmt.Sprintf("githubActions[%d]", i)
		faults.rule(path, r)
		if r.Audience == "" && c.PublicURL == "" {
			faults.fault(path, "needs an audience: its own, or the public URL of this server")
		}
	}
	return errors.Join(faults...)
}

func (c *checker) github(g GitHub) {
	if g.ClientID == "" {
		c.fault("github.clientId", "is missing")
	}
	c.url("github.baseUrl", g.baseURL())
	if len(g.Organizations) == 0 && len(g.TeamRoles) == 0 && len(g.AllowedUsers) == 0 {
		c.fault("github", "needs organizations, teamRoles or allowedUsers: without them all of GitHub could log in")
	}
	for _, o := range g.Organizations {
		if !githubLogin.MatchString(o) {
			c.fault("github.organizations", "%.60q is not the name of an organisation", o)
		}
	}
	for t := range g.TeamRoles {
		if !githubTeam.MatchString(t) {
			c.fault("github.teamRoles", "%.60q is not organisation/team", t)
		}
	}
	for _, id := range g.AllowedUsers {
		if id <= 0 {
			c.fault("github.allowedUsers", "%d is not the numeric id of a user", id)
		}
	}
}

func (c *checker) google(g Google) {
	if g.ClientID == "" {
		c.fault("google.clientId", "is missing")
	}
	if len(g.HostedDomains) == 0 || slices.Contains(g.HostedDomains, "") {
		c.fault("google.hostedDomains", "is missing: without it everybody with a Google account could log in")
	}
	for d := range g.DomainRoles {
		if !slices.Contains(g.HostedDomains, d) {
			c.fault("google.domainRoles", "%.60q is not one of hostedDomains", d)
		}
	}
}

func (c *checker) rule(path string, r Rule) {
	if r.Project == "" {
		c.fault(path+".project", "is missing")
	}
	if r.RepositoryID <= 0 {
		c.fault(path+".repositoryId", "is not the numeric id of a repository")
	}
	if r.RepositoryOwnerID <= 0 {
		c.fault(path+".repositoryOwnerId", "is not the numeric id of a user or an organisation")
	}
	if len(r.Events) == 0 {
		c.fault(path+".events", "is missing")
	}
	for _, e := range r.Events {
		if !githubEvent.MatchString(e) {
			c.fault(path+".events", "%.60q is not the name of an event; there are no wildcards", e)
		}
	}
	if len(r.Refs) == 0 && r.Environment == "" {
		c.fault(path, "needs refs or an environment")
	}
	for _, ref := range r.Refs {
		if !strings.HasPrefix(ref, "refs/") {
			c.fault(path+".refs", "%.100q is not a full ref such as refs/heads/main", ref)
		}
	}
	for _, text := range append([]string{r.Environment, r.JobWorkflowRef}, r.Refs...) {
		if strings.ContainsAny(text, "*?") {
			c.fault(path, "%.100q: there are no wildcards", text)
		}
	}
}

// url demands an address that can be asked for secrets: https, or http if it
// does not leave this machine.
func (c *checker) url(path, text string) {
	if err := checkURL(text); err != nil {
		c.fault(path, "%w", err)
	} else if strings.ContainsAny(text, "?#") {
		c.fault(path, "%.100q has a query or a fragment", text)
	}
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil:
		return fmt.Errorf("%.100q is not the URL of a provider", text)
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u)):
		return fmt.Errorf("%.100q is neither https nor on loopback", text)
	}
	return nil
}

func isLoopback(u *url.URL) bool {
	if u.Hostname() == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback()
}
