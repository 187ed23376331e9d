package policy

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
	Google        *GoogleLogin        `yaml:"google"`
	Sessions      Sessions            `yaml:"sessions"`
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

// roleLists returns every list of roles that providers bring.
func (id *Identity) roleLists() (lists []roleList) {
	add := func(path string, by map[string][]Role) {
		for name, roles := range by {
			lists = append(lists, roleList{path + "[" + name + "]", roles, nil})
		}
	}
	for i := range id.OIDC {
		issuer := &id.OIDC[i]
		path := "identity.oidc[" + issuer.Name + "]."
		add(path+"groupRoles", issuer.GroupRoles)
		for project, groups := range issuer.Projects {
			add(path+"projects["+project+"]", groups)
		}
	}
	if id.GitHub != nil {
		add("identity.github.teamRoles", id.GitHub.TeamRoles)
	}
	if id.Google != nil {
		add("identity.google.domainRoles", id.Google.DomainRoles)
	}
	for i := range id.GitHubActions {
		rule := &id.GitHubActions[i]
		lists = append(lists, roleList{"identity.githubActions[" + rule.Project + "].role", []Role{rule.Role}, &rule.Role})
	}
	return lists
}
