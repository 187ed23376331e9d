package policy_test

import (
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

func TestParseDocumentRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	const roles = "admin, developer, readonly, ci"
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":              {"enforceTrusts: true\n", `1:1: unknown key "enforceTrusts"; known here: agentPolicies, allowedRoles, allowedUsers, approvals, customRules, deniedRoles, deniedUsers, deviceTrust, enforceTrust, identity, minimumTrustLevel, organizationPolicy, roles, skillPolicies`},
		"a key in another case":       {"deviceTrust:\n  minimumlevel: verified\n", `2:3: unknown key "minimumlevel"; known here: autoTrustLocal, minimumLevel`},
		"a second document":           {"enforceTrust: true\n---\nenforceTrust: false\n", "2:1: a second document begins here; only one is accepted"},
		"an unknown level":            {"minimumTrustLevel: high\n", `1:20: minimumTrustLevel: "high" is not one of untrusted, verified, trusted`},
		"an unknown provider":         {"identity: {providers: [github, gitlab]}\n", `1:32: providers: "gitlab" is not one of oidc, github, google, local`},
		"an unknown role":             {"allowedRoles: [admin, lead]\n", `1:23: allowedRoles: "lead" is not one of the roles ` + roles},
		"an unknown role of an agent": {"agentPolicies:\n- agentId: a\n  deniedRoles: [lead]\n", `3:17: agentPolicies[a].deniedRoles: "lead" is not one of the roles ` + roles},
		"an unknown role of a skill":  {"skillPolicies:\n- skillId: a\n  allowedRoles: [lead]\n", `3:18: skillPolicies[a].allowedRoles: "lead" is not one of the roles ` + roles},
		"an unknown inherited role":   {"roles:\n  a:\n    inherits: b\n", `3:15: roles[a].inherits: "b" is not one of the roles ` + roles + ", a"},
		"an unknown permission":       {"roles:\n  a:\n    additionalPermissions:\n    - task:fly\n", `4:7: additionalPermissions: "task:fly" is not one of task:submit, task:read, task:cancel, agent:invoke, skill:execute, config:read, config:write, admin:all`},
		"a permission that no role grants": {"skillPolicies:\n- skillId: a\n  requiredPermissions: [public]\n",
			`3:25: requiredPermissions: "public" is not one of task:submit, task:read, task:cancel, agent:invoke, skill:execute, config:read, config:write, admin:all`},
		"a role that inherits itself":           {"roles:\n  a: {inherits: a}\n", "2:17: inherits in a circle: a -> a"},
		"roles in a circle":                     {"roles:\n  c: {inherits: [a]}\n  a: {inherits: [developer, b]}\n  b: {inherits: a}\n", "4:17: inherits in a circle: a -> b -> a"},
		"a long circle beside a path":           {"roles:\n  a: {inherits: b}\n  b: {inherits: c}\n  c: {inherits: d}\n  d: {inherits: b}\n", "5:17: inherits in a circle: b -> c -> d -> b"},
		"a built-in role":                       {"roles:\n  ci: {additionalPermissions: ['admin:all']}\n", "2:3: role ci is built in and cannot be defined anew"},
		"a role with spaces":                    {"roles:\n  'my role': {}\n", `2:3: "my role" cannot name a role: letters, digits, '.', '_' and '-' can, up to 64`},
		"an agent twice":                        {"agentPolicies:\n- agentId: a\n- agentId: a\n", `3:12: agentPolicies: "a" has an entry already`},
		"a skill twice":                         {"skillPolicies:\n- skillId: a\n- skillId: a\n", `3:12: skillPolicies: "a" has an entry already`},
		"an agent without id":                   {"agentPolicies:\n- allowedRoles: [admin]\n", "2:3: agentPolicies[0] has no agentId"},
		"a user with spaces":                    {"deniedUsers: [' ann']\n", "1:15: deniedUsers[0] is empty or has spaces around it"},
		"an expression that is broken":          {"customRules:\n- name: a\n  expression: 'user =='\n", "3:15: expression: 1:8: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"},
		"an expression of unknown names":        {"customRules:\n- name: a\n  expression: usr == 'ann'\n", "3:15: expression: 1:1: undeclared reference to 'usr' (did you mean 'user'?)"},
		"a misspelt field":                      {"customRules:\n- name: a\n  expression: device.trusted == 'ann'\n", "3:15: expression: 1:7: undeclared reference to 'device.trusted' (did you mean 'device.trust'?)"},
		"an expression of wrong types":          {"customRules:\n- name: a\n  expression: device.local == 'yes'\n", "3:15: expression: 1:14: found no matching overload for '_==_' applied to '(bool, string)'"},
		"an expression that is text":            {"customRules:\n- name: a\n  expression: user\n", "3:15: expression: it yields string, and must yield bool"},
		"an expression of any type":             {"customRules:\n- name: a\n  expression: 'dyn(true)'\n", "3:15: expression: it yields dyn, and must yield bool"},
		"an expression that is nested too deep": {"customRules:\n- name: a\n  expression: " + strings.Repeat("(", 50) + "true" + strings.Repeat(")", 50) + "\n", "3:15: expression: expression recursion limit exceeded: 40"},
		"a rule without expression":             {"customRules:\n- name: a\n", "2:3: customRules[0] has no expression"},
		"a rule without name":                   {"customRules:\n- expression: 'true'\n", "2:3: customRules[0] has no name"},
		"a rule twice":                          {"customRules:\n- {name: a, expression: 'true'}\n- {name: a, expression: 'true'}\n", `3:10: customRules: "a" has an entry already`},
		"too many rules":                        {"customRules:\n" + strings.Repeat("- {name: a, expression: 'true'}\n", 33), "34:3: there are more than 32 customRules"},
		"an issuer of jobs in the clear":        {"identity:\n  githubActionsIssuer: http://hub.example.com\n", "2:24: githubActionsIssuer must be an https URL, without user, query and fragment"},
		"an issuer in the clear":                {"identity:\n  oidc:\n  - {name: a, clientId: b, issuer: 'http://id.example.com'}\n", "3:36: oidc[0].issuer must be an https URL, without user, query and fragment"},
		"an issuer that is incomplete":          {"identity:\n  oidc:\n  - name: a\n", "3:5: oidc[0] has no issuer\nsecurity.yaml:3:5: oidc[0] has no clientId or audience"},
		"two issuers of one name":               {"identity:\n  oidc:\n  - {name: a, clientId: b, issuer: 'https://a'}\n  - {name: a, clientId: b, issuer: 'https://b'}\n", `4:12: oidc: "a" has an entry already`},
		"groups of an unknown role":             {"identity:\n  oidc:\n  - {name: a, clientId: b, issuer: 'https://a', groupRoles: {devs: [lead]}}\n", `3:69: identity.oidc[a].groupRoles[devs]: "lead" is not one of the roles ` + roles},
		"teams of an unknown role":              {"identity:\n  github: {clientId: a, teamRoles: {o/t: [lead]}}\n", `2:43: identity.github.teamRoles[o/t]: "lead" is not one of the roles ` + roles},
		"domains of an unknown role":            {"identity:\n  google: {clientId: a, domainRoles: {x.com: [lead]}}\n", `2:47: identity.google.domainRoles[x.com]: "lead" is not one of the roles ` + roles},
		"workflows that are anybody's": {"identity:\n  githubActions:\n  - project: web\n    role: boss\n",
			"3:5: githubActions[0] has no repositoryId\nsecurity.yaml:3:5: githubActions[0] has no repositoryOwnerId\n" +
				"security.yaml:3:5: githubActions[0] has no events\nsecurity.yaml:3:5: githubActions[0] has no refs or environment\n" +
				"security.yaml:4:11: identity.githubActions[web].role: \"boss\" is not one of the roles " + roles},
		"sessions of two days": {"identity: {sessions: {maxHours: 48}}\n", "1:33: sessions.maxHours is 48 and must be 1 to 24"},
		"all faults at once":   {"enforceTrust: maybe\nallowedRoles: [lead]\nx: 1\n", `1:15: enforceTrust must be true or false, not "maybe"` + "\nsecurity.yaml:2:16: allowedRoles: \"lead\" is not one of the roles " + roles + "\nsecurity.yaml:3:1: unknown key \"x\"; known here: agentPolicies, allowedRoles, allowedUsers, approvals, customRules, deniedRoles, deniedUsers, deviceTrust, enforceTrust, identity, minimumTrustLevel, organizationPolicy, roles, skillPolicies"},
		"too large a document": {strings.Repeat("#", policy.MaxDocumentBytes+1), "1:1: the file is larger than 65536 bytes"},
	} {
		_, err := policy.ParseDocument([]byte(c.text), "security.yaml", policy.Organization)
		if want := "security.yaml:" + c.want; err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, want)
		}
	}
}

func TestProjectDocumentsDefineNothing(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"roles:\n  a: {}\n":                            "2:3: roles is",
		"identity:\n  providers: [local]\n":            "2:3: identity is",
		"deviceTrust:\n  autoTrustLocal: true\n":       "2:3: deviceTrust is",
		"organizationPolicy:\n  deniedSkills: [a]\n":   "2:3: organizationPolicy is",
		"enforceTrust: true\ndeviceTrust: {}\n":        "2:14: deviceTrust is",
		"enforceTrust: true\nidentity: {github: {}}\n": "2:11: identity is",
	} {
		_, err := policy.ParseDocument([]byte(text), "web", policy.Project)
		if err == nil || !strings.Contains(err.Error(), "web:"+want+" for the organisation's document: a project's can only narrow it") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestIdentityIsRead(t *testing.T) {
	t.Parallel()
	id := org(t, `
roles: {lead: {inherits: developer}}
identity:
  providers: [oidc, github, google, local]
  oidc:
    - name: corp
      issuer: https://id.example.com/realm
      clientId: coderclaw
      clientSecretFile: /run/secrets/corp
      audience: [coderclaw]
      usernameClaim: preferred_username
      groupsClaim: groups
      groupRoles: {platform: [lead, ci], all: [readonly]}
      projects: {web: {web-team: [developer]}}
      requiredClaims: {tenant: acme}
  github:
    clientId: abc
    baseUrl: https://github.example.com
    organizations: [acme]
    teamRoles: {acme/core: [admin]}
    allowedUsers: [583231]
  google: {clientId: abc, hostedDomains: [acme.com], domainRoles: {acme.com: [developer]}}
  githubActions:
    - project: web
      repositoryId: 1296269
      repositoryOwnerId: 583231
      events: [push]
      refs: [refs/heads/main]
  githubActionsIssuer: https://github.example.com/_services/token
  sessions: {maxHours: 8}
`).Identity
	o, g, a := id.OIDC[0], id.GitHub, id.GitHubActions[0]
	switch {
	case len(id.Providers) != 4, o.Issuer != "https://id.example.com/realm", o.ClientID != "coderclaw", o.ClientSecretFile != "/run/secrets/corp",
		o.Audience[0] != "coderclaw", o.UsernameClaim != "preferred_username", o.GroupsClaim != "groups", o.GroupRoles["platform"][1] != policy.CI,
		o.Projects["web"]["web-team"][0] != policy.Developer, o.RequiredClaims["tenant"] != "acme",
		g.BaseURL != "https://github.example.com", g.Organizations[0] != "acme", g.TeamRoles["acme/core"][0] != policy.Admin, g.AllowedUsers[0] != 583231,
		id.Google.HostedDomains[0] != "acme.com", id.Google.DomainRoles["acme.com"][0] != policy.Developer,
		a.Project != "web", a.RepositoryID != 1296269, a.RepositoryOwnerID != 583231, a.Events[0] != "push", a.Refs[0] != "refs/heads/main", a.Role != policy.CI,
		id.GitHubActionsIssuer != "https://github.example.com/_services/token", id.Sessions.MaxHours != 8:
		t.Errorf("%+v", id)
	}
}

// What is accepted can be used, and can be read again from what was kept.
func FuzzParseDocument(f *testing.F) {
	for _, name := range []string{"team.yaml", "project.yaml", "reference.yaml", "reference-project.yaml"} {
		f.Add([]byte(seed(f, name)), name == "team.yaml" || name == "reference.yaml")
	}
	f.Add([]byte(orgText), true)
	f.Add([]byte(projectText), false)
	f.Add([]byte("roles:\n  a: {inherits: b}\n  b: {inherits: [a, ci]}\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, organization bool) {
		kind := policy.Project
		if organization {
			kind = policy.Organization
		}
		d, err := policy.ParseDocument(text, "f", kind)
		if err != nil {
			return
		}
		again := parse(t, "f", d.Source, kind)
		if w := policy.Weakens(d, again); w != nil {
			t.Errorf("the same document is weaker: %v", w)
		}
		documents := [2]*policy.Document{d, nil}
		if kind == policy.Project {
			documents = [2]*policy.Document{nil, d}
		}
		p, err := policy.Compile(documents[0], documents[1], policy.Options{})
		if err != nil {
			if kind == policy.Organization {
				t.Errorf("parsed, and not compiled: %v", err)
			}
			return
		}
		for _, r := range []policy.Request{submit, open, uses("deployer"), executes("shell")} {
			if d := p.Decide(caller("ann admin @verified"), r); d.Reason == "" {
				t.Errorf("no reason: %+v", d)
			}
		}
	})
}
