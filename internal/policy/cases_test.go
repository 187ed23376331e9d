package policy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

func TestCasesOfTheExamplesAreDecidedAsExpected(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := policy.ParseCases(text, "cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := compile(t, org(t, seed(t, "team.yaml")), project(t, seed(t, "project.yaml")), policy.Options{})
	for _, f := range policy.RunCases(p, cases) {
		t.Errorf("%s: %s: %s", f.Case.Place, f.Case.Name, f.Message)
	}
	if len(cases) == 0 {
		t.Error("there are no cases")
	}
}

func TestCasesThatAreDecidedInAnotherWayFail(t *testing.T) {
	t.Parallel()
	cases, err := policy.ParseCases([]byte(`cases:
- {name: other outcome, user: ann, roles: [ci], permission: config:write, expect: allowed}
- {name: other layer, user: ann, roles: [ci], permission: config:write, expect: denied, layer: agent}
- {name: other reason, user: ann, roles: [ci], permission: config:write, expect: denied, reason: no time}
- {name: unknown role, user: ann, roles: [boss], permission: config:write, expect: denied}
- {name: right, user: ann, roles: [ci], permission: config:write, expect: denied, layer: permission, reason: no role of ann}
- {name: right too, user: ann, roles: [lead], permission: task:read, expect: allowed, layer: permission}
- {name: other allowed, user: eve, roles: [lead], permission: task:read, expect: allowed}
`), "cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	p := compile(t, org(t, "roles: {lead: {inherits: ci}}\ndeniedUsers: [eve]\n"), nil, policy.Options{})
	for _, f := range policy.RunCases(p, cases) {
		got = append(got, f.Case.Place+": "+f.Message)
	}
	const reason = "config:write is needed and no role of ann grants it (ci)"
	want := `cases.yaml:2:3: expected allowed, and it is denied by the permission layer: ` + reason + `
cases.yaml:3:3: denied as expected, but by the permission layer and not by agent: ` + reason + `
cases.yaml:4:3: denied as expected, but the reason does not say "no time": ` + reason + `
cases.yaml:5:3: there is no role boss
cases.yaml:8:3: expected allowed, and it is denied by the project layer: eve is denied (security.yaml: deniedUsers[eve])`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestParseCasesRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"cases:\n- {name: a, permission: task:read, expect: maybe}\n":               `2:44: expect: "maybe" is not one of allowed, denied`,
		"cases:\n- {name: a, expect: denied}\n":                                     "2:3: permission is missing: one of task:submit, task:read, task:cancel, agent:invoke, skill:execute, config:read, config:write, admin:all",
		"cases:\n- {name: a, permission: task:fly, expect: denied}\n":               `2:25: permission: "task:fly" is not one of task:submit, task:read, task:cancel, agent:invoke, skill:execute, config:read, config:write, admin:all`,
		"cases:\n- {name: a, permission: task:read}\n":                              "2:3: expect is missing: one of allowed, denied",
		"cases:\n- {name: a, permission: task:read, expect: denied, layer: top}\n":  `2:59: layer: "top" is not one of session, device, project, permission, agent, skill, organization, custom`,
		"cases:\n- {permission: task:read, expect: denied}\n":                       "2:3: cases[0] has no name",
		"cases:\n- {name: a, permission: task:read, expect: denied, device: new}\n": `2:60: device: "new" is not one of untrusted, verified, trusted`,
		"cases:\n- {name: a, permission: task:read, expect: denied, agnet: x}\n":    `2:52: unknown key "agnet"; known here: action, agent, agentSkills, approving, device, expect, labels, layer, local, name, permission, project, reason, roles, skill, user`,
	} {
		if _, err := policy.ParseCases([]byte(text), "c"); err == nil || err.Error() != "c:"+want {
			t.Errorf("%q:\n got %v\nwant c:%s", text, err, want)
		}
	}
}
