package policy_test

import (
	"slices"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

func TestWeakensNamesEachLineThatAllowsMore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{"enforceTrust: true", "enforceTrust: false", []string{"enforceTrust is no longer on"}},
		{"enforceTrust: false", "enforceTrust: true", nil},
		{"minimumTrustLevel: trusted", "minimumTrustLevel: verified", []string{"minimumTrustLevel falls from trusted to verified"}},
		{"minimumTrustLevel: trusted", "", []string{"minimumTrustLevel falls from trusted to verified"}},
		{"", "minimumTrustLevel: untrusted", []string{"minimumTrustLevel falls from verified to untrusted"}},
		{"", "minimumTrustLevel: trusted", nil},
		{"deviceTrust: {minimumLevel: verified}", "", []string{"deviceTrust.minimumLevel falls from verified to untrusted"}},
		{"", "deviceTrust: {autoTrustLocal: true}", []string{"deviceTrust.autoTrustLocal is now on"}},
		{"allowedRoles: [admin]", "allowedRoles: [admin, ci]", []string{"allowedRoles has ci too"}},
		{"allowedRoles: [admin]", "", []string{"allowedRoles is gone"}},
		{"allowedRoles: []", "allowedRoles: [ci]", []string{"allowedRoles has ci too"}},
		{"allowedRoles: [admin, ci]", "allowedRoles: [ci]", nil},
		{"", "allowedRoles: [ci]", nil},
		{"allowedUsers: [ann]", "allowedUsers: [bob]", []string{"allowedUsers has bob too"}},
		{"deniedUsers: [eve, dan]", "deniedUsers: [dan]", []string{"deniedUsers no longer has eve"}},
		{"deniedRoles: [ci]", "", []string{"deniedRoles no longer has ci"}},
		{"agentPolicies: [{agentId: a, allowedRoles: [ci], deniedRoles: [readonly], requireDeviceTrust: trusted}]",
			"agentPolicies: [{agentId: a, allowedRoles: [ci, admin], requireDeviceTrust: verified}]",
			[]string{"agentPolicies[a].allowedRoles has admin too", "agentPolicies[a].deniedRoles no longer has readonly", "agentPolicies[a].requireDeviceTrust falls from trusted to verified"}},
		{"agentPolicies: [{agentId: a}]", "agentPolicies: [{agentId: b}]", []string{"agentPolicies[a] is gone"}},
		{"skillPolicies: [{skillId: a, dangerous: true, requiredPermissions: ['config:read'], allowedRoles: [ci], trustLevel: trusted}]",
			"skillPolicies: [{skillId: a, requireDeviceTrust: verified}]",
			[]string{"skillPolicies[a] is no longer dangerous", "skillPolicies[a].requiredPermissions no longer has config:read", "skillPolicies[a].allowedRoles is gone", "skillPolicies[a].trustLevel falls from trusted to verified"}},
		{"skillPolicies: [{skillId: a, trustLevel: trusted}]", "skillPolicies: [{skillId: a, requireDeviceTrust: trusted}]", nil},
		{"skillPolicies: [{skillId: a}]", "", []string{"skillPolicies[a] is gone"}},
		{"organizationPolicy: {deniedSkills: [x], requiredSkills: [y]}", "", []string{"organizationPolicy.requiredSkills no longer has y", "organizationPolicy.deniedSkills no longer has x"}},
		{"customRules: [{name: a, expression: 'false'}, {name: b, expression: 'false', message: m}]", "customRules: [{name: b, expression: 'true'}]",
			[]string{"customRules[a] is gone", "customRules[b] has another expression"}},
		{"customRules: [{name: a, expression: 'false', message: m}]", "customRules: [{name: b, expression: 'true'}, {name: a, expression: 'false', message: n}]", nil},
		{"roles: {a: {inherits: ci}, b: {inherits: a}}", "roles: {a: {inherits: [ci, readonly]}, b: {inherits: a}}", []string{"roles[a] grants config:read too", "roles[b] grants config:read too"}},
		{"roles: {a: {inherits: developer}}", "roles: {a: {inherits: ci}}", nil},
		{"", "roles: {a: {inherits: ci}}", []string{"roles[a] grants task:submit, task:read, agent:invoke too"}},
		{"identity: {providers: [local]}", "identity: {providers: [github, local]}", []string{"identity.providers has github too"}},
		{"identity: {providers: [local]}", "", []string{"identity.providers is gone"}},
		{"", "identity: {providers: [local]}", nil},
		{"identity: {github: {clientId: a}}", "identity: {github: {clientId: b}}", []string{"identity.github is new or not the same"}},
		{"identity: {google: {clientId: a, hostedDomains: [x.com]}}", "identity: {google: {clientId: a}}", []string{"identity.google is new or not the same"}},
		{"identity: {oidc: [{name: a, issuer: 'https://a', clientId: c, requiredClaims: {t: x}}]}", "identity: {oidc: [{name: a, issuer: 'https://a', clientId: c}]}", []string{"identity.oidc[a] is new or not the same"}},
		{"identity: {oidc: [{name: a, issuer: 'https://a', clientId: c}]}", "", nil},
		{"identity: {sessions: {maxHours: 8}}", "identity: {sessions: {maxHours: 12}}", []string{"identity.sessions.maxHours is another: 12 after 8"}},
		{"identity: {sessions: {maxHours: 8}}", "identity: {sessions: {maxHours: 4}}", nil},
	} {
		if got := policy.Weakens(org(t, c.from), org(t, c.to)); !slices.Equal(got, c.want) {
			t.Errorf("from %q to %q:\n got %q\nwant %q", c.from, c.to, got, c.want)
		}
	}
}

func TestAMissingDocumentDemandsNothing(t *testing.T) {
	t.Parallel()
	d := project(t, "{enforceTrust: true, minimumTrustLevel: verified, deniedUsers: [eve]}")
	if got := policy.Weakens(nil, d); got != nil {
		t.Errorf("a first document weakens: %q", got)
	}
	want := []string{"enforceTrust is no longer on", "minimumTrustLevel falls from verified to untrusted", "deniedUsers no longer has eve"}
	if got := policy.Weakens(d, nil); !slices.Equal(got, want) {
		t.Errorf("taking the document away: %q, want %q", got, want)
	}
	if got := policy.Weakens(nil, nil); got != nil {
		t.Errorf("nothing after nothing: %q", got)
	}
}

func TestNobodyCanGrantWhatTheyDoNotHold(t *testing.T) {
	t.Parallel()
	const oidc = "identity: {oidc: [{name: a, issuer: 'https://a', clientId: c, groupRoles: {all: [admin, lead]}}]}\n"
	const lead = "roles: {lead: {inherits: readonly}}\n"
	held := []policy.Permission{policy.TaskRead, policy.ConfigRead, policy.ConfigWrite}
	for _, c := range []struct {
		held     []policy.Permission
		from, to string
		want     []string
	}{
		{held, "", lead, nil},
		{held, "", "roles: {lead: {inherits: ci}}", []string{"roles[lead] grants task:submit, agent:invoke"}},
		{held, lead, "roles: {lead: {additionalPermissions: ['admin:all']}}", []string{"roles[lead] grants task:submit, task:cancel, agent:invoke, skill:execute, admin:all"}},
		{held, "roles: {lead: {inherits: ci}}", "roles: {lead: {inherits: ci, additionalPermissions: ['config:write']}}", nil},
		{[]policy.Permission{policy.AdminAll}, "", "roles: {lead: {inherits: admin}}\n" + oidc, nil},
		{held, lead, lead + oidc, []string{"identity.oidc[a].groupRoles[all] gives role admin, which grants task:submit, task:cancel, agent:invoke, skill:execute, admin:all"}},
		{held, lead + oidc, lead + oidc + "enforceTrust: true\n", nil},
	} {
		if got := policy.Exceeds(c.held, org(t, c.from), org(t, c.to)); !slices.Equal(got, c.want) {
			t.Errorf("from %q to %q:\n got %q\nwant %q", c.from, c.to, got, c.want)
		}
	}
	if got := policy.Exceeds(held, nil, org(t, "roles: {lead: {inherits: ci}}")); len(got) != 1 {
		t.Errorf("a first document: %q", got)
	}
}
