package policy

import (
	"maps"
	"slices"
	"time"
)

// Provider is a kind of identity provider.
type Provider string

// The kinds of identity providers.
const (
	OIDC   Provider = "oidc"
	GitHub Provider = "github"
	Google Provider = "google"
	Local  Provider = "local"
)

// Identity says whose credentials are accepted and which roles they bring.
type Identity struct {
	Providers     []Provider          `yaml:"providers"`
	OIDC          []OIDCIssuer        `yaml:"oidc"`
	GitHub        *GitHubLogin        `yaml:"github"`
	GitHubActions []GitHubActionsRule `yaml:"githubActions"`
	// GitHubActionsIssuer is "" for that of github.com.
	GitHubActionsIssuer string       `yaml:"githubActionsIssuer"`
	Google              *GoogleLogin `yaml:"google"`
	Sessions            Sessions     `yaml:"sessions"`
}

// OIDCIssuer is an issuer of OpenID Connect tokens.
type OIDCIssuer struct {
	Name             string            `yaml:"name"` // part of its users' ids: oidc:<name>:<sub>
	Issuer           string            `yaml:"issuer"`
	ClientID         string            `yaml:"clientId"`
	ClientSecretFile string            `yaml:"clientSecretFile"`
	Audience         []string          `yaml:"audience"`
	UsernameClaim    string            `yaml:"usernameClaim"`
	GroupsClaim      string            `yaml:"groupsClaim"`
	GroupRoles       map[string][]Role `yaml:"groupRoles"`
	// Projects holds, by project, the roles of groups in that project alone.
	Projects       map[string]map[string][]Role `yaml:"projects"`
	RequiredClaims map[string]string            `yaml:"requiredClaims"`
}

// GitHubLogin is login by GitHub, or by a GitHub Enterprise server.
type GitHubLogin struct {
	ClientID         string            `yaml:"clientId"`
	ClientSecretFile string            `yaml:"clientSecretFile"`
	BaseURL          string            `yaml:"baseUrl"`
	Organizations    []string          `yaml:"organizations"`
	TeamRoles        map[string][]Role `yaml:"teamRoles"` // by org/team
	AllowedUsers     []int64           `yaml:"allowedUsers"`
}

// GoogleLogin is login by Google.
type GoogleLogin struct {
	ClientID         string            `yaml:"clientId"`
	ClientSecretFile string            `yaml:"clientSecretFile"`
	HostedDomains    []string          `yaml:"hostedDomains"`
	DomainRoles      map[string][]Role `yaml:"domainRoles"`
}

// GitHubActionsRule lets the workflows of one repository act in one project.
type GitHubActionsRule struct {
	Project           string   `yaml:"project"`
	RepositoryID      int64    `yaml:"repositoryId"`
	RepositoryOwnerID int64    `yaml:"repositoryOwnerId"`
	Events            []string `yaml:"events"`
	Refs              []string `yaml:"refs"`
	Environment       string   `yaml:"environment"`
	JobWorkflowRef    string   `yaml:"jobWorkflowRef"`
	Role              Role     `yaml:"role"` // ci, if the document names none
	Audience          string   `yaml:"audience"`
}

// Sessions bounds sessions.
type Sessions struct {
	MaxHours int `yaml:"maxHours"` // 0: the server's default
}

const maxSessionHours = 24

// source is one entry of the identity section: whose credentials are accepted,
// and which roles they bring.
type source struct {
	path  string
	entry any
	lists []roleList
}

func (id *Identity) sources() (all []source) {
	for i := range id.OIDC {
		o := &id.OIDC[i]
		path := "identity.oidc[" + o.Name + "]"
		lists := mapped(path+".groupRoles", o.GroupRoles)
		for _, project := range slices.Sorted(maps.Keys(o.Projects)) {
			lists = append(lists, mapped(path+".projects["+project+"]", o.Projects[project])...)
		}
		all = append(all, source{path, o, lists})
	}
	if g := id.GitHub; g != nil {
		all = append(all, source{"identity.github", g, mapped("identity.github.teamRoles", g.TeamRoles)})
	}
	if g := id.Google; g != nil {
		all = append(all, source{"identity.google", g, mapped("identity.google.domainRoles", g.DomainRoles)})
	}
	for i := range id.GitHubActions {
		a := &id.GitHubActions[i]
		path := "identity.githubActions[" + a.Project + "]"
		all = append(all, source{path, a, []roleList{{path + ".role", []Role{a.Role}, &a.Role}}})
	}
	return all
}

func mapped(path string, by map[string][]Role) (lists []roleList) {
	for _, name := range slices.Sorted(maps.Keys(by)) {
		lists = append(lists, roleList{path + "[" + name + "]", by[name], nil})
	}
	return lists
}

// Accepts reports whether credentials of a kind of provider are accepted. All
// are, unless the organisation's document lists some.
func (p *Policy) Accepts(kind Provider) bool {
	if p.closed != nil {
		return false
	}
	for i := range p.documents {
		if listed := p.documents[i].Identity.Providers; listed != nil && !slices.Contains(listed, kind) {
			return false
		}
	}
	return true
}

// MaxSession returns the longest that a session may live, or 0 if the documents
// do not say.
func (p *Policy) MaxSession() time.Duration {
	for i := range p.documents {
		if h := p.documents[i].Identity.Sessions.MaxHours; h > 0 {
			return time.Duration(h) * time.Hour
		}
	}
	return 0
}
