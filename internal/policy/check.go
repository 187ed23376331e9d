package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

// Every rule is evaluated for every request, so their number is bounded.
const maxCustomRules = 32

var roleForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// checker refuses what is of the right type and still makes no sense.
type checker struct{ *strictyaml.Document }

func (c checker) document(d *Document) {
	if d.Kind == Project {
		for section, value := range map[string]any{
			"identity": &d.Identity, "deviceTrust": &d.DeviceTrust, "roles": &d.Roles, "organizationPolicy": &d.OrganizationPolicy,
		} {
			if c.Has(value) {
				c.Refuse(value, "%s is for the organisation's document: a project's can only narrow it", section)
			}
		}
	}
	c.roles(d.Roles)
	c.identity(&d.Identity)
	if d.Kind == Organization {
		for _, l := range d.roleLists() {
			for i, role := range l.roles {
				if at, message := l.place(c.Document, i), unknownRole(role, d); message != "" && c.Has(at) {
					c.Refuse(at, "%s: %s", l.path, message)
				}
			}
		}
	}
	c.texts("allowedUsers", d.AllowedUsers)
	c.texts("deniedUsers", d.DeniedUsers)
	c.texts("requiredSkills", d.OrganizationPolicy.RequiredSkills)
	c.texts("deniedSkills", d.OrganizationPolicy.DeniedSkills)
	ids := map[string]bool{}
	for i := range d.AgentPolicies {
		a := &d.AgentPolicies[i]
		c.once(ids, "agentPolicies", "agentId", i, a, &a.AgentID)
	}
	ids = map[string]bool{}
	for i := range d.SkillPolicies {
		s := &d.SkillPolicies[i]
		c.once(ids, "skillPolicies", "skillId", i, s, &s.SkillID)
		c.permissions("requiredPermissions", s.RequiredPermissions)
		if d.Kind == Project && c.Has(&s.WithoutApproval) {
			c.Refuse(&s.WithoutApproval, "withoutApproval is for the organisation's document: a project's can only narrow it")
		}
	}
	c.customRules(d.CustomRules)
}

// once refuses an entry of a list whose name is missing or was given before.
func (c checker) once(seen map[string]bool, list, key string, i int, entry any, name *string) {
	switch {
	case *name == "":
		c.Refuse(entry, "%s[%d] has no %s", list, i, key)
	case seen[*name]:
		c.Refuse(name, "%s: %.80q has an entry already", list, *name)
	}
	seen[*name] = true
}

func (c checker) texts(path string, items []string) {
	for i := range items {
		if c.Has(&items[i]) && (items[i] == "" || strings.TrimSpace(items[i]) != items[i]) {
			c.Refuse(&items[i], "%s[%d] is empty or has spaces around it", path, i)
		}
	}
}

func (c checker) permissions(path string, items []Permission) {
	for i := range items {
		if c.Has(&items[i]) && !slices.Contains(Permissions, items[i]) {
			c.Refuse(&items[i], "%s: %.40q is not one of %s", path, items[i], join(Permissions))
		}
	}
}

// unknownRole says that neither the organisation's document, which may be nil,
// nor this package knows the role; empty: one does.
func unknownRole(r Role, org *Document) string {
	known := org.roles()
	if slices.Contains(known, r) {
		return ""
	}
	return fmt.Sprintf("%.64q is not one of the roles %s", r, join(known))
}

func (c checker) roles(custom map[Role]*Custom) {
	for name, role := range custom {
		if _, ok := builtIn[name]; ok {
			c.Refuse(role, "role %s is built in and cannot be defined anew", name)
		}
		if !roleForm.MatchString(string(name)) {
			c.Refuse(role, "%.80q cannot name a role: letters, digits, '.', '_' and '-' can, up to 64", name)
		}
		c.permissions("additionalPermissions", role.AdditionalPermissions)
	}
	done := map[Role]bool{}
	for _, name := range slices.Sorted(maps.Keys(custom)) {
		c.inheritance(custom, []Role{name}, done)
	}
}

// inheritance refuses roles that inherit from themselves. The last role of the
// path is the one to look at; those that are done have been looked at.
func (c checker) inheritance(custom map[Role]*Custom, path []Role, done map[Role]bool) {
	name := path[len(path)-1]
	role, ok := custom[name]
	if !ok || done[name] {
		return
	}
	for i, parent := range role.Inherits {
		if at := slices.Index(path, parent); at >= 0 {
			steps := append(slices.Clone(path[at:]), parent)
			c.Refuse(roleList{"", role.Inherits, &role.Inherits}.place(c.Document, i), "inherits in a circle: %s", strings.ReplaceAll(join(steps), ", ", " -> "))
			continue
		}
		c.inheritance(custom, append(path, parent), done)
	}
	done[name] = true
}

func (c checker) customRules(rules []CustomRule) {
	if len(rules) > maxCustomRules {
		c.Refuse(&rules[maxCustomRules], "there are more than %d customRules", maxCustomRules)
		return
	}
	names := map[string]bool{}
	for i := range rules {
		r := &rules[i]
		c.once(names, "customRules", "name", i, r, &r.Name)
		if !c.Has(&r.Expression) {
			c.Refuse(r, "customRules[%d] has no expression", i)
			continue
		}
		if err := r.compile(); err != nil {
			c.Refuse(&r.Expression, "expression: %s", err)
		}
	}
}

func (c checker) identity(id *Identity) {
	known := []Provider{OIDC, GitHub, Google, Local}
	for i := range id.Providers {
		if c.Has(&id.Providers[i]) && !slices.Contains(known, id.Providers[i]) {
			c.Refuse(&id.Providers[i], "providers: %.40q is not one of %s", id.Providers[i], join(known))
		}
	}
	names := map[string]bool{}
	for i := range id.OIDC {
		issuer, path := &id.OIDC[i], fmt.Sprintf("oidc[%d]", i)
		c.once(names, "oidc", "name", i, issuer, &issuer.Name)
		if issuer.Name != "" && !roleForm.MatchString(issuer.Name) {
			c.Refuse(&issuer.Name, "%s.name: %.80q may hold only letters, digits, '.', '_' and '-', up to 64", path, issuer.Name)
		}
		c.needs(issuer, path, "issuer", issuer.Issuer == "")
		// A token that is for nobody in particular is for us as little.
		c.needs(issuer, path, "clientId or audience", issuer.ClientID == "" && len(issuer.Audience) == 0)
		c.origin(&issuer.Issuer, path+".issuer")
		c.texts(path+".audience", issuer.Audience)
	}
	if g := id.GitHub; g != nil {
		c.needs(g, "github", "clientId", g.ClientID == "")
		c.origin(&g.BaseURL, "github.baseUrl")
		c.texts("github.organizations", g.Organizations)
	}
	if g := id.Google; g != nil {
		c.needs(g, "google", "clientId", g.ClientID == "")
		c.texts("google.hostedDomains", g.HostedDomains)
	}
	c.origin(&id.GitHubActionsIssuer, "githubActionsIssuer")
	for i := range id.GitHubActions {
		rule, path := &id.GitHubActions[i], fmt.Sprintf("githubActions[%d]", i)
		c.needs(rule, path, "project", rule.Project == "")
		c.needs(rule, path, "repositoryId", rule.RepositoryID <= 0)
		c.needs(rule, path, "repositoryOwnerId", rule.RepositoryOwnerID <= 0)
		c.needs(rule, path, "events", len(rule.Events) == 0)
		c.needs(rule, path, "refs or environment", len(rule.Refs) == 0 && rule.Environment == "")
		c.texts(path+".events", rule.Events)
		c.texts(path+".refs", rule.Refs)
		if !c.Has(&rule.Role) {
			rule.Role = CI
		}
	}
	if h := &id.Sessions.MaxHours; c.Has(h) && (*h < 1 || *h > maxSessionHours) {
		c.Refuse(h, "sessions.maxHours is %d and must be 1 to %d", *h, maxSessionHours)
	}
}

func (c checker) needs(entry any, path, key string, missing bool) {
	if missing {
		c.Refuse(entry, "%s has no %s", path, key)
	}
}

// origin refuses addresses that credentials must not be sent to or believed
// from: keys that come in the clear are anybody's.
func (c checker) origin(value *string, path string) {
	if *value == "" {
		return
	}
	u, err := url.Parse(*value)
	if err != nil || u.User != nil || u.Fragment != "" || u.RawQuery != "" || u.Hostname() == "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		c.Refuse(value, "%s must be an https URL, without user, query and fragment", path)
	}
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func join[T ~string](items []T) string {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = string(item)
	}
	return strings.Join(names, ", ")
}
