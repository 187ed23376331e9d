package policy_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

const orgText = `
roles:
  lead: {inherits: [developer, ci], additionalPermissions: ["config:write"]}
  boss: {inherits: lead, additionalPermissions: ["admin:all"]}
enforceTrust: true
minimumTrustLevel: verified
deviceTrust: {minimumLevel: trusted}
deniedUsers: [eve]
deniedRoles: [ci]
allowedUsers: [ann, bob, eve, key:1]
agentPolicies:
  - {agentId: deployer, allowedRoles: [lead, admin], deniedRoles: [readonly], requireDeviceTrust: trusted}
skillPolicies:
  - {skillId: shell, dangerous: true}
  - {skillId: publish, requiredPermissions: ["config:write"], allowedRoles: [lead, developer], trustLevel: trusted}
  - {skillId: mail, requireDeviceTrust: trusted}
organizationPolicy:
  deniedSkills: [crypto]
  requiredSkills: [scan]
customRules:
  - name: no-night-shift
    expression: '!("shift" in labels) || labels.shift != "night"'
    message: nobody works at night
  - name: needs-team
    expression: 'action != "task.submit" || labels.team == "red"'
  - name: bob-stays-home
    expression: 'user != "bob" || device.local && device.trust != "untrusted"'
`

const projectText = `
minimumTrustLevel: trusted
allowedRoles: [developer, lead, admin, readonly]
agentPolicies:
  - {agentId: writer, deniedRoles: [readonly]}
customRules:
  - {name: own-agents, expression: 'agent == "" || agent in ["writer", "deployer"]'}
`

func TestEveryDenialNamesLayerRuleAndReason(t *testing.T) {
	t.Parallel()
	alone := compile(t, org(t, orgText), nil, policy.Options{Version: 7})
	both := compile(t, org(t, orgText), project(t, projectText), policy.Options{Version: 7})
	scan := []string{"scan"}
	request := func(change func(*policy.Request)) policy.Request {
		r := policy.Request{Permission: policy.TaskRead, AgentSkills: scan}
		change(&r)
		return r
	}
	agent := func(id string, skills ...string) policy.Request {
		return request(func(r *policy.Request) { r.AgentID, r.AgentSkills = id, append(skills, scan...) })
	}
	skill := func(id string) policy.Request { return request(func(r *policy.Request) { r.SkillID = id }) }
	labels := func(name, value string) policy.Request {
		return request(func(r *policy.Request) { r.Labels = map[string]string{name: value} })
	}
	read := policy.Request{Permission: policy.TaskRead}
	in := func(project string) policy.Request {
		return policy.Request{Permission: policy.TaskRead, ProjectID: project}
	}

	for _, c := range []struct {
		policy *policy.Policy
		caller string
		asks   policy.Request
		layer  policy.Layer
		rule   string
		reason string
	}{
		{alone, "", read, policy.LayerSession, "", "there is no valid session: nobody is known to ask"},
		{alone, "", policy.Request{Permission: policy.Authenticated}, policy.LayerSession, "", "there is no valid session: nobody is known to ask"},

		{alone, "ann developer", read, policy.LayerDevice, "security.yaml: minimumTrustLevel", "every action needs a verified device, and the caller has shown none"},
		{alone, "ann developer @local", read, policy.LayerDevice, "security.yaml: minimumTrustLevel", "every action needs a verified device, and the caller has shown none"},
		{alone, "ann developer @untrusted", read, policy.LayerDevice, "security.yaml: minimumTrustLevel", "every action needs a verified device, and the caller's is untrusted"},
		{both, "ann developer @verified", read, policy.LayerDevice, "project web: minimumTrustLevel", "every action needs a trusted device, and the caller's is verified"},
		{alone, "ann developer @verified", open, policy.LayerDevice, "security.yaml: deviceTrust.minimumLevel", "opening a session needs a trusted device, and the caller's is verified"},

		{alone, "ann developer @verified", in("web"), policy.LayerProject, "", "the session belongs to no project, and this is in project web"},
		{alone, "eve admin @trusted", read, policy.LayerProject, "security.yaml: deniedUsers[eve]", "eve is denied"},
		{alone, "eve admin @trusted", open, policy.LayerProject, "security.yaml: deniedUsers[eve]", "eve is denied"},
		{alone, "dan admin @trusted", read, policy.LayerProject, "security.yaml: allowedUsers", "only listed users are allowed, and dan is not one of them"},
		{alone, "ann admin,ci @trusted", read, policy.LayerProject, "security.yaml: deniedRoles[ci]", "role ci is denied"},
		{both, "ann boss @trusted", read, policy.LayerProject, "project web: allowedRoles", "one of the roles developer, lead, admin, readonly is needed, and ann has boss"},
		{both, "ann @trusted", read, policy.LayerProject, "project web: allowedRoles", "one of the roles developer, lead, admin, readonly is needed, and ann has none"},

		{alone, "ann readonly,developer @trusted", writeConf, policy.LayerPermission, "", "config:write is needed and no role of ann grants it (readonly, developer)"},
		{alone, "ann @trusted", read, policy.LayerPermission, "", "task:read is needed and ann has no role"},
		{alone, "ann stranger @trusted", read, policy.LayerPermission, "", "task:read is needed and no role of ann grants it (stranger)"},
		{alone, "ann admin @trusted +task:read", submit, policy.LayerPermission, "", "task:submit is needed, and the credential of ann is limited to task:read"},
		{alone, "ann boss @trusted", policy.Request{Permission: "task:fly"}, policy.LayerPermission, "", "task:fly is needed and no role of ann grants it (boss)"},

		{alone, "ann developer @trusted", agent("deployer"), policy.LayerAgent, "security.yaml: agentPolicies[deployer].allowedRoles", "one of the roles lead, admin is needed, and ann has developer"},
		{alone, "ann boss @trusted", agent("deployer"), policy.LayerAgent, "security.yaml: agentPolicies[deployer].allowedRoles", "one of the roles lead, admin is needed, and ann has boss"},
		{alone, "ann admin,readonly @trusted", agent("deployer"), policy.LayerAgent, "security.yaml: agentPolicies[deployer].deniedRoles[readonly]", "role readonly is denied"},
		{alone, "ann lead @verified", agent("deployer"), policy.LayerAgent, "security.yaml: agentPolicies[deployer].requireDeviceTrust", "agent deployer needs a trusted device, and the caller's is verified"},
		{both, "ann readonly @trusted", agent("writer"), policy.LayerAgent, "project web: agentPolicies[writer].deniedRoles[readonly]", "role readonly is denied"},

		{alone, "ann readonly @trusted", skill("shell"), policy.LayerSkill, "security.yaml: skillPolicies[shell].dangerous", "skill:execute is needed and no role of ann grants it (readonly)"},
		{alone, "ann developer @trusted", skill("publish"), policy.LayerSkill, "security.yaml: skillPolicies[publish].requiredPermissions", "config:write is needed and no role of ann grants it (developer)"},
		{alone, "ann boss @trusted", skill("publish"), policy.LayerSkill, "security.yaml: skillPolicies[publish].allowedRoles", "one of the roles lead, developer is needed, and ann has boss"},
		{alone, "ann lead @verified", skill("publish"), policy.LayerSkill, "security.yaml: skillPolicies[publish].trustLevel", "skill publish needs a trusted device, and the caller's is verified"},
		{alone, "ann lead @verified", skill("mail"), policy.LayerSkill, "security.yaml: skillPolicies[mail].requireDeviceTrust", "skill mail needs a trusted device, and the caller's is verified"},
		{alone, "ann developer @verified", request(func(r *policy.Request) { r.SkillID, r.SkillPermissions = "x", []policy.Permission{policy.ConfigRead} }),
			policy.LayerSkill, "", "config:read is needed and no role of ann grants it (developer)"},

		{alone, "ann admin @trusted", skill("crypto"), policy.LayerOrganization, "security.yaml: organizationPolicy.deniedSkills[crypto]", "skill crypto is denied"},
		{alone, "ann admin @trusted", agent("miner", "crypto"), policy.LayerOrganization, "security.yaml: organizationPolicy.deniedSkills[crypto]", "skill crypto is denied, and agent miner has it"},
		{alone, "ann admin @trusted", request(func(r *policy.Request) { r.AgentID, r.AgentSkills = "miner", nil }),
			policy.LayerOrganization, "security.yaml: organizationPolicy.requiredSkills[scan]", "every agent needs skill scan, and miner does not have it"},

		{alone, "ann admin @trusted", labels("shift", "night"), policy.LayerCustom, "security.yaml: customRules[no-night-shift]", "nobody works at night"},
		{alone, "bob admin @trusted", read, policy.LayerCustom, "security.yaml: customRules[bob-stays-home]", "rule bob-stays-home does not hold"},
		{alone, "ann admin @trusted", request(func(r *policy.Request) { r.Action = "task.submit" }),
			policy.LayerCustom, "security.yaml: customRules[needs-team]", "rule needs-team could not be evaluated: no such key: team"},
		{both, "ann admin @trusted", agent("miner"), policy.LayerCustom, "project web: customRules[own-agents]", "rule own-agents does not hold"},
	} {
		d := c.policy.Decide(caller(c.caller), c.asks)
		if want := (policy.Decision{Layer: c.layer, Rule: c.rule, Reason: c.reason, PolicyVersion: 7}); d != want {
			t.Errorf("%s asks %+v:\n got %+v\nwant %+v", c.caller, c.asks, d, want)
		}
	}

	confined := caller("ann developer @trusted")
	confined.ProjectID = "api"
	if d := alone.Decide(confined, in("web")); d.Layer != policy.LayerProject || d.Reason != "the session is confined to project api, and this is in project web" {
		t.Errorf("a foreign project: %+v", d)
	}
	for _, c := range []struct {
		caller string
		asks   policy.Request
	}{
		{"ann developer @verified", read}, {"ann admin @trusted", open}, {"ann admin @trusted", agent("deployer")}, {"ann lead @trusted", skill("publish")},
		{"ann developer @verified", skill("shell")}, {"bob developer @verified @local", read}, {"ann lead @verified", labels("shift", "day")},
	} {
		if d := alone.Decide(caller(c.caller), c.asks); !d.Allowed {
			t.Errorf("%s asks %+v: %+v", c.caller, c.asks, d)
		}
	}
}

func TestAllowedDecisionsNameWhatGranted(t *testing.T) {
	t.Parallel()
	p := compile(t, org(t, "roles: {lead: {inherits: developer}}"), nil, policy.Options{Version: 3})
	for _, c := range []struct {
		caller string
		asks   policy.Permission
		want   policy.Decision
	}{
		{"ann lead", policy.TaskRead, policy.Decision{Layer: policy.LayerPermission, Rule: "security.yaml: roles[lead]", Reason: "role lead grants task:read"}},
		{"ann ci,admin", policy.ConfigWrite, policy.Decision{Layer: policy.LayerPermission, Reason: "role admin grants config:write"}},
		{"ann", policy.Authenticated, policy.Decision{Layer: policy.LayerSession, Reason: "open to every principal"}},
		{"", policy.Public, policy.Decision{Reason: "open to anyone"}},
	} {
		c.want.Allowed, c.want.PolicyVersion = true, 3
		if d := p.Decide(caller(c.caller), policy.Request{Permission: c.asks}); d != c.want {
			t.Errorf("%s asks %s: %+v, want %+v", c.caller, c.asks, d, c.want)
		}
	}
}

func TestDangerousSkillsNeedADeviceEvenWhereTrustIsNotEnforced(t *testing.T) {
	t.Parallel()
	undocumented := compile(t, nil, nil, policy.Options{})
	documented := compile(t, org(t, "skillPolicies: [{skillId: shell, dangerous: true}]"), nil, policy.Options{})
	byDefinition := policy.Request{Permission: policy.SkillExecute, SkillID: "shell", SkillDangerous: true}
	byDocument := policy.Request{Permission: policy.SkillExecute, SkillID: "shell"}
	for name, allowed := range map[string]bool{
		"ann admin": false, "ann admin @untrusted": false, "ann admin @local": false, "ann admin @verified": true, "ann developer @trusted": true,
	} {
		if d := undocumented.Decide(caller(name), byDefinition); d.Allowed != allowed || !allowed && d.Layer != policy.LayerSkill {
			t.Errorf("%s, dangerous by definition: %+v", name, d)
		}
		if d := documented.Decide(caller(name), byDocument); d.Allowed != allowed || !allowed && d.Layer != policy.LayerSkill {
			t.Errorf("%s, dangerous by the document: %+v", name, d)
		}
	}
}

func TestDeviceTrustIsRequiredOfAgentsWhereTrustIsNotEnforced(t *testing.T) {
	t.Parallel()
	p := compile(t, org(t, "agentPolicies: [{agentId: a, requireDeviceTrust: verified}]"), nil, policy.Options{})
	for name, allowed := range map[string]bool{
		"ann admin": false, "ann admin @untrusted": false, "ann admin @verified": true, "ann admin @trusted": true,
	} {
		if d := p.Decide(caller(name), uses("a")); d.Allowed != allowed {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// A level that is claimed without a device is worth nothing.
func TestTrustWithoutADeviceIsNone(t *testing.T) {
	t.Parallel()
	c := caller("ann admin")
	c.Trust = policy.Trusted
	if d := compile(t, nil, nil, policy.Options{EnforceTrust: true}).Decide(c, submit); d.Allowed || d.Layer != policy.LayerDevice ||
		d.Rule != "runtime.yaml: security.enforceTrust" {
		t.Errorf("%+v", d)
	}
}

func TestEnforcedTrustDemandsVerifiedDevicesWhereNoLevelIsGiven(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*policy.Policy{
		"by runtime.yaml":     compile(t, nil, nil, policy.Options{EnforceTrust: true}),
		"by the organisation": compile(t, org(t, "enforceTrust: true"), nil, policy.Options{}),
		"by the project":      compile(t, org(t, ""), project(t, "enforceTrust: true"), policy.Options{}),
		"by a lower project":  compile(t, nil, project(t, "{enforceTrust: true, minimumTrustLevel: untrusted}"), policy.Options{}),
	} {
		if d := p.Decide(caller("ann admin @untrusted"), submit); d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
		if d := p.Decide(caller("ann admin @verified"), submit); !d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
	}
	p := compile(t, org(t, "{enforceTrust: true, minimumTrustLevel: untrusted}"), project(t, "enforceTrust: true"), policy.Options{})
	if d := p.Decide(caller("ann admin"), submit); !d.Allowed {
		t.Errorf("an organisation that demands nothing, and a project that names no level: %+v", d)
	}
}

func TestAnEmptyListOfTheAllowedAllowsNobody(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"allowedRoles: []", "allowedUsers: []"} {
		if d := compile(t, org(t, text), nil, policy.Options{}).Decide(caller("ann admin @trusted"), submit); d.Allowed {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

func TestPermissionsAreThoseOfRolesWithinScopes(t *testing.T) {
	t.Parallel()
	p := compile(t, org(t, "roles: {lead: {inherits: [readonly, ci]}}"), nil, policy.Options{})
	for name, want := range map[string]string{
		"ann lead":                             "task:submit task:read agent:invoke config:read",
		"ann lead +task:read +config:write":    "task:read",
		"ann admin +admin:all":                 "task:submit task:read task:cancel agent:invoke skill:execute config:read config:write admin:all",
		"ann admin +task:read":                 "task:read",
		"ann developer +admin:all":             "task:submit task:read task:cancel agent:invoke skill:execute",
		"ann ci,readonly":                      "task:submit task:read agent:invoke config:read",
		"ann stranger":                         "",
		"ann":                                  "",
		"ann lead,stranger +config:read +none": "config:read",
	} {
		c := caller(name)
		var got []string
		for _, held := range p.Permissions(c) {
			got = append(got, string(held))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s has %v, want %s", name, got, want)
		}
		for _, asked := range policy.Permissions {
			if d := p.Decide(c, policy.Request{Permission: asked}); d.Allowed != strings.Contains(" "+want+" ", " "+string(asked)+" ") {
				t.Errorf("%s asks %s: %+v", name, asked, d)
			}
		}
	}
	c := caller("ann admin")
	c.Scopes = []policy.Permission{}
	if got := p.Permissions(c); got != nil {
		t.Errorf("a credential without scopes carries %v", got)
	}
}

func TestRolesAreTheBuiltInOnesAndThoseOfTheOrganisation(t *testing.T) {
	t.Parallel()
	p := compile(t, org(t, orgText), nil, policy.Options{})
	var names []string
	for _, r := range p.Roles() {
		names = append(names, string(r))
		if !p.KnownRole(r) {
			t.Errorf("%s is not known", r)
		}
	}
	if got := strings.Join(names, " "); got != "admin developer readonly ci boss lead" {
		t.Errorf("roles: %s", got)
	}
	if p.KnownRole("stranger") {
		t.Error("a stranger is known")
	}
	if got := p.Grants("lead"); len(got) != 6 {
		t.Errorf("lead grants %v", got)
	}
}

func TestAnExpressionThatCostsTooMuchDenies(t *testing.T) {
	t.Parallel()
	const bomb = `customRules:
  - name: bomb
    expression: >-
      [1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c,
      [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a + b + c + d + e + f > 0))))))
`
	d := compile(t, org(t, bomb), nil, policy.Options{}).Decide(caller("ann admin"), submit)
	if d.Allowed || d.Layer != policy.LayerCustom || !strings.Contains(d.Reason, "cost limit") {
		t.Errorf("%+v", d)
	}
}

func TestCompileRefusesRolesThatTheOrganisationDoesNotDefine(t *testing.T) {
	t.Parallel()
	p := project(t, "allowedRoles: [lead]\ndeniedRoles:\n  - ghost\nagentPolicies:\n- {agentId: a, allowedRoles: [phantom]}\n")
	_, err := policy.Compile(org(t, "roles: {lead: {}}"), p, policy.Options{DefaultRoles: []policy.Role{policy.CI, "lead", "spectre"}})
	const want = `defaultRoles: "spectre" is not one of the roles admin, developer, readonly, ci, lead
project web:3:5: deniedRoles: "ghost" is not one of the roles admin, developer, readonly, ci, lead
project web:5:31: agentPolicies[a].allowedRoles: "phantom" is not one of the roles admin, developer, readonly, ci, lead`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestCompileRefusesDocumentsOfAnotherKindOrUnparsed(t *testing.T) {
	t.Parallel()
	for name, docs := range map[string][2]*policy.Document{
		"a project's as the organisation's": {project(t, ""), nil},
		"the organisation's as a project's": {nil, org(t, "")},
		"one that nobody parsed":            {{}, nil},
	} {
		if _, err := policy.Compile(docs[0], docs[1], policy.Options{}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestAClosedPolicyDeniesAllThatDocumentsCanDeny(t *testing.T) {
	t.Parallel()
	p := policy.Closed(policy.LayerOrganization, "security.yaml", "version 3 cannot be used", 3)
	want := policy.Decision{Layer: policy.LayerOrganization, Rule: "security.yaml", Reason: "version 3 cannot be used", PolicyVersion: 3}
	for _, asks := range []policy.Request{submit, open, uses("a"), {Permission: policy.AdminAll}} {
		if d := p.Decide(caller("ann admin @trusted"), asks); d != want {
			t.Errorf("%+v: %+v", asks, d)
		}
	}
	if d := p.Decide(caller("ann admin"), policy.Request{Permission: policy.Authenticated}); !d.Allowed {
		t.Errorf("who am I: %+v", d)
	}
	if !p.IsClosed() || p.Accepts(policy.Local) || p.Permissions(caller("ann admin")) != nil {
		t.Error("a closed policy is open somewhere")
	}
	if p := compile(t, nil, nil, policy.Options{}); p.IsClosed() || !p.Accepts(policy.Google) {
		t.Error("the policy without documents is closed somewhere")
	}
}

func TestTheAgentOfATaskMayReportAndNothingElse(t *testing.T) {
	t.Parallel()
	p := compile(t, nil, nil, policy.Options{})
	agent := policy.Caller{UserID: "task:1", Lease: &policy.LeaseScope{TaskID: "1"}}
	// Whatever else it might be said to be.
	armed := agent
	armed.Roles, armed.AllProjects, armed.Worker, armed.Trust, armed.DeviceID = []policy.Role{policy.Admin}, true, &policy.WorkerScope{}, policy.Trusted, "d"
	for _, permission := range append(slices.Clone(policy.Permissions), policy.Authenticated, policy.Admitted, policy.Work) {
		for _, c := range []policy.Caller{agent, armed} {
			for _, opening := range []bool{false, true} {
				if d := p.Decide(c, policy.Request{Permission: permission, Opening: opening}); d.Allowed {
					t.Errorf("it may %s: %+v", permission, d)
				}
			}
		}
	}
	if d := p.Decide(agent, policy.Request{Permission: policy.Report}); !d.Allowed {
		t.Errorf("it may not report: %+v", d)
	}
	armed.Lease = nil
	if d := p.Decide(armed, policy.Request{Permission: policy.Report}); d.Allowed {
		t.Errorf("who is no agent reports as one: %+v", d)
	}
}

func TestManyMayAskAtOnce(t *testing.T) {
	t.Parallel()
	p := compile(t, org(t, orgText), project(t, projectText), policy.Options{})
	ask := policy.Request{Permission: policy.TaskRead, AgentID: "deployer", AgentSkills: []string{"scan"}}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if d := p.Decide(caller("ann admin @trusted"), ask); !d.Allowed {
					t.Errorf("%+v", d)
				}
				if d := p.Decide(caller("bob admin @trusted"), ask); d.Allowed || d.Layer != policy.LayerCustom {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	all.Wait()
}

func TestDecidingAllocatesNothingWithoutCustomRules(t *testing.T) {
	p := compile(t, org(t, seed(t, "team.yaml")), project(t, seed(t, "project.yaml")), policy.Options{})
	c, r := caller("ann developer @verified"), policy.Request{
		Permission: policy.TaskSubmit, Action: "task.submit", AgentID: "code-modifier", AgentSkills: []string{"file-write"}, SkillID: "shell-exec",
	}
	if n := testing.AllocsPerRun(100, func() {
		if d := p.Decide(c, r); !d.Allowed {
			t.Fatal(d)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	for name, text := range map[string]string{
		"documents":    seed(b, "project.yaml"),
		"custom rules": seed(b, "project.yaml") + "customRules: [{name: a, expression: '!(\"env\" in labels) || user in [\"ann\", \"bob\"] && roles.exists(r, r == \"developer\")'}]\n",
	} {
		b.Run(name, func(b *testing.B) {
			p := compile(b, org(b, seed(b, "team.yaml")), project(b, text), policy.Options{})
			c, r := caller("ann developer @verified"), policy.Request{Permission: policy.TaskSubmit, AgentID: "code-modifier", Labels: map[string]string{"env": "dev"}}
			b.ReportAllocs()
			for b.Loop() {
				if d := p.Decide(c, r); !d.Allowed {
					b.Fatal(d)
				}
			}
		})
	}
}
