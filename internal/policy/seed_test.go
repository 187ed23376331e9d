package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

// flip changes or removes a line of an example, and names someone to whom that
// makes a difference.
type flip struct {
	line, instead string // whole lines; what both begin with only says where
	caller        string
	asks          policy.Request
	allowed       bool   // before; afterwards it is the contrary
	hidden        string // lines that say the same, and are left out before and afterwards
}

var (
	submit    = policy.Request{Permission: policy.TaskSubmit}
	readConf  = policy.Request{Permission: policy.ConfigRead}
	writeConf = policy.Request{Permission: policy.ConfigWrite}
	open      = policy.Request{Permission: policy.Authenticated, Opening: true}
)

func uses(agent string) policy.Request {
	return policy.Request{Permission: policy.TaskRead, AgentID: agent}
}

func executes(skill string) policy.Request {
	return policy.Request{Permission: policy.TaskRead, SkillID: skill}
}

const teamRoles = "allowedRoles:\n  - developer\n  - team-developer\n  - admin\n"

func TestEachLineOfTheTeamExampleDecidesSomething(t *testing.T) {
	t.Parallel()
	flipEach(t, "team.yaml", policy.Organization, []flip{
		{"  minimumLevel: verified\n", "  minimumLevel: trusted\n", "ann developer @verified", open, true, ""},
		{"  minimumLevel: verified\n", "", "ann developer", open, false, ""},
		{"  autoTrustLocal: true\n", "", "ann developer @local", submit, true, ""},
		{"  team-developer:\n    inherits", "  team-developer: {}\n  other:\n    inherits", "ann team-developer @verified", submit, true, ""},
		{"    inherits: developer\n", "", "ann team-developer @verified", submit, true, ""},
		{"    additionalPermissions:\n      - config:read\n", "", "ann team-developer @verified", readConf, true, ""},
		{"      - config:read\n", "      - config:write\n", "ann team-developer @verified", writeConf, false, ""},
		{"enforceTrust: true\n", "", "ann developer", submit, false, ""},
		{"minimumTrustLevel: verified\n", "minimumTrustLevel: trusted\n", "ann developer @verified", submit, true, ""},
		{"minimumTrustLevel: verified\n", "minimumTrustLevel: untrusted\n", "ann developer", submit, false, ""},
		{teamRoles, "", "ann ci @verified", submit, false, ""},
		{"  - developer\n", "", "ann developer @verified", submit, true, ""},
		{"  - team-developer\n", "", "ann team-developer @verified", submit, true, ""},
		{"  - admin\n", "", "ann admin @trusted", submit, true, ""},
	})
	acceptOnly(t, "team.yaml", policy.GitHub, policy.Local)
}

const (
	enforced = "enforceTrust: true\n"
	roles    = "allowedRoles:\n  - developer\n  - admin\n"
	both     = "    allowedRoles: [developer, admin]\n"
	verified = "    requireDeviceTrust: verified\n"
	danger   = "    dangerous: true\n"
	execute  = "    requiredPermissions: [skill:execute]\n"
)

func projectFlips() []flip {
	return []flip{
		{enforced, "", "ann developer", submit, false, ""},
		{"minimumTrustLevel: verified\n", "minimumTrustLevel: trusted\n", "ann developer @verified", submit, true, ""},
		{roles, "", "ann ci @verified", submit, false, ""},
		{roles, "allowedRoles:\n  - admin\n", "ann developer @verified", submit, true, ""},
		{roles, "allowedRoles:\n  - developer\n", "ann admin @verified", submit, true, ""},
	}
}

func TestEachLineOfTheProjectExampleDecidesSomething(t *testing.T) {
	t.Parallel()
	const modifier, reviewer = "  - agentId: code-modifier\n", "  - agentId: code-reviewer\n"
	const shell, file = "  - skillId: shell-exec\n", "  - skillId: file-write\n"
	const three = "    allowedRoles: [developer, admin, readonly]\n"
	flipEach(t, "project.yaml", policy.Project, append(projectFlips(),
		flip{modifier, "  - agentId: other\n", "ann ci @verified", uses("code-modifier"), false, roles},
		flip{modifier + both, modifier + "    allowedRoles: [admin]\n", "ann developer @verified", uses("code-modifier"), true, ""},
		flip{modifier + both + verified, modifier + both, "ann developer", uses("code-modifier"), false, enforced},
		flip{reviewer, "  - agentId: other\n", "ann ci @verified", uses("code-reviewer"), false, roles},
		flip{reviewer + three, reviewer + both, "ann readonly @verified", uses("code-reviewer"), true, roles},
		flip{reviewer + three + verified, reviewer + three, "ann developer", uses("code-reviewer"), false, enforced},
		flip{shell, "  - skillId: other\n", "ann ci @verified", executes("shell-exec"), false, roles},
		flip{shell + danger, shell, "ann developer", executes("shell-exec"), false, enforced},
		flip{shell + execute, shell, "ann developer @verified +task:read", executes("shell-exec"), false, danger},
		flip{shell + danger + execute + both, shell + danger + execute + "    allowedRoles: [admin]\n", "ann developer @verified", executes("shell-exec"), true, ""},
		flip{file, "  - skillId: other\n", "ann ci @verified", executes("file-write"), false, roles},
		flip{file + execute, file, "ann developer @verified +task:read", executes("file-write"), false, ""},
		flip{file + execute + both, file + execute + "    allowedRoles: [admin]\n", "ann developer @verified", executes("file-write"), true, ""},
	))
}

func TestEachLineOfTheReferenceDecidesSomething(t *testing.T) {
	t.Parallel()
	const level = "  minimumLevel: verified # trusted | verified | untrusted\n"
	flipEach(t, "reference.yaml", policy.Organization, []flip{
		{level, "", "ann developer", open, false, ""},
		{"  autoTrustLocal: true\n", "", "ann developer @local", submit, true, ""},
		{"  custom-role:\n", "  other:\n", "ann custom-role @verified", submit, true, ""},
		{"    inherits: developer\n", "", "ann custom-role @verified", submit, true, ""},
		{"    additionalPermissions:\n      - config:write\n", "", "ann custom-role @verified", writeConf, true, ""},
	})
	acceptOnly(t, "reference.yaml", policy.OIDC, policy.GitHub, policy.Google, policy.Local)

	const creator, skill = "  - agentId: code-creator\n", "  - skillId: dangerous-skill\n"
	flipEach(t, "reference-project.yaml", policy.Project, append(projectFlips(),
		flip{creator, "  - agentId: other\n", "ann ci @verified", uses("code-creator"), false, roles},
		flip{creator + both, creator + "    allowedRoles: [admin]\n", "ann developer @verified", uses("code-creator"), true, ""},
		flip{creator + both + verified, creator + both, "ann developer", uses("code-creator"), false, enforced},
		flip{skill, "  - skillId: other\n", "ann developer @verified", executes("dangerous-skill"), false, ""},
		flip{skill + danger, skill, "ann admin", executes("dangerous-skill"), false, enforced},
		flip{skill + execute, skill, "ann admin @verified +task:read", executes("dangerous-skill"), false, danger},
		flip{skill + danger + execute + "    allowedRoles: [admin]\n", skill + danger + execute, "ann developer @verified", executes("dangerous-skill"), false, ""},
	))
}

// acceptOnly looks that the document accepts credentials of the kinds that it
// lists, each because of its line.
func acceptOnly(t *testing.T, name string, listed ...policy.Provider) {
	t.Helper()
	text := seed(t, name)
	p := compile(t, org(t, text), nil, policy.Options{})
	for _, kind := range []policy.Provider{policy.OIDC, policy.GitHub, policy.Google, policy.Local} {
		if got := p.Accepts(kind); got != slices.Contains(listed, kind) {
			t.Errorf("%s accepts %s: %v", name, kind, got)
		}
	}
	for _, kind := range listed {
		without := strings.Replace(text, "    - "+string(kind)+"\n", "", 1)
		if compile(t, org(t, without), nil, policy.Options{}).Accepts(kind) {
			t.Errorf("%s without its line accepts %s", name, kind)
		}
	}
}

// flipEach makes every flip alone, and looks that no line is left out.
func flipEach(t *testing.T, name string, kind policy.Kind, flips []flip) {
	t.Helper()
	text := seed(t, name)
	decide := func(text string, f flip) policy.Decision {
		d := parse(t, name, text, kind)
		if kind == policy.Project {
			return compile(t, nil, d, policy.Options{}).Decide(caller(f.caller), f.asks)
		}
		// In the reference, runtime.yaml is what enforces trust.
		return compile(t, d, nil, policy.Options{EnforceTrust: name == "reference.yaml"}).Decide(caller(f.caller), f.asks)
	}
	flipped := map[string]bool{}
	for _, f := range flips {
		before := strings.Replace(text, f.hidden, "", 1)
		if n := strings.Count("\n"+before, "\n"+f.line); n != 1 {
			t.Fatalf("%s has %q %d times", name, f.line, n)
		}
		after := strings.TrimPrefix(strings.Replace("\n"+before, "\n"+f.line, "\n"+f.instead, 1), "\n")
		if d := decide(before, f); d.Allowed != f.allowed {
			t.Errorf("%s, %s asks %+v: %+v", name, f.caller, f.asks, d)
		}
		if d := decide(after, f); d.Allowed == f.allowed {
			t.Errorf("%s with %q instead of %q, %s asks %+v: still %+v", name, f.instead, f.line, f.caller, f.asks, d)
		}
		for line := range strings.Lines(f.line) {
			if !strings.HasSuffix(f.line, line) && strings.Contains(f.instead, line) {
				continue
			}
			flipped[strings.TrimSpace(line)] = true
		}
	}
	_, rest, found := strings.Cut(text, "deviceTrust:") // what stands above is not for decisions
	if !found {
		rest = text
	}
	for line := range strings.Lines(rest) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, ":") && !flipped[line] {
			t.Errorf("%s: no decision depends on %q", name, line)
		}
	}
}
