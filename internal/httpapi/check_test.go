package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
)

// manyRules has something to say in every layer.
const manyRules = `roles:
  writer: {inherits: readonly, additionalPermissions: ["task:submit"]}
deniedUsers: [local:eve]
agentPolicies:
  - agentId: code-modifier
    requireDeviceTrust: verified
  - agentId: code-reviewer
    allowedRoles: [ci, admin]
  - agentId: general-purpose
    deniedRoles: [ci]
skillPolicies:
  - skillId: file-write
    allowedRoles: [admin]
organizationPolicy:
  deniedSkills: [static-analysis]
customRules:
  - name: documentation-has-a-team
    expression: action != "task.submit" || agent != "documentation-agent" || labels.team != ""
    message: who is it for?
`

// submission is a task about whose submission it is decided.
type submission struct{ Agent, Skill, Team, Project string }

func (s submission) labels() map[string]string {
	if s.Team == "" {
		return nil
	}
	return map[string]string{"team": s.Team}
}

func (r *rig) check(who api.OpenedSession, q api.PermissionQuery) api.Decision {
	r.t.Helper()
	return want[api.Decision](r, 200, "POST", "/v1/permissions/check", encode(r.t, q), bearer(who)...)
}

// submitAs submits a task and returns the status and, if it was refused, why.
func (r *rig) submitAs(who api.OpenedSession, s submission) (int, string) {
	r.t.Helper()
	resp, text := r.do("POST", "/v1/tasks", encode(r.t, api.NewTask{
		Description: "d", Dispatch: api.DispatchManual, AgentID: s.Agent, SkillID: s.Skill, ProjectID: s.Project, Labels: s.labels(),
	}), bearer(who)...)
	var refusal struct{ Detail string }
	if err := json.Unmarshal([]byte(text), &refusal); err != nil {
		r.t.Fatal(err, text)
	}
	return resp.StatusCode, refusal.Detail
}

func TestACheckSaysWhatSubmissionDoes(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", manyRules)
	callers := map[string]api.OpenedSession{
		"an administrator": admin, "someone without a project": r.login(admin, "outside", "developer", ""),
		"a denied user": r.login(admin, "evelyn", "developer", "shop"), "a developer": r.login(admin, "developer", "developer", "shop"),
		"a build": r.login(admin, "build", "ci", "shop"), "a reader": r.login(admin, "reader", "readonly", "shop"),
		"a role of its own": r.login(admin, "writer", "writer", "shop"),
	}
	r.push(admin, "shop", "deniedUsers: [local:evelyn]\n")
	var submissions []submission
	for _, agent := range []string{"", "code-creator", "code-modifier", "code-reviewer", "documentation-agent", "general-purpose"} {
		submissions = append(submissions, submission{Agent: agent}, submission{Agent: agent, Team: "a"})
	}
	for _, skill := range []string{"file-read", "file-write", "shell-exec", "static-analysis", "no-such"} {
		submissions = append(submissions, submission{Skill: skill}, submission{Agent: "code-creator", Skill: skill})
	}
	for _, project := range []string{"shop", "bank"} {
		submissions = append(submissions, submission{Agent: "code-creator", Project: project}, submission{Project: project})
	}
	layers := map[string]int{}
	compare := func() {
		t.Helper()
		for who, session := range callers {
			for _, s := range submissions {
				d := r.check(session, api.PermissionQuery{AgentID: s.Agent, SkillID: s.Skill, ProjectID: s.Project, Labels: s.labels()})
				got, detail := r.submitAs(session, s)
				foreign := s.Project != "" && who != "an administrator" && s.Project != session.Session.ProjectID
				agree := got == 201 && d.Allowed
				switch {
				case foreign:
					agree = got >= 400 && !d.Allowed && d.Layer == "project" && d.Rule == "" && d.PolicyVersion == 0
				case !d.Allowed:
					agree = got == 403 && detail == strings.TrimSuffix(d.Reason+" ("+d.Rule+")", " ()")
				}
				if !agree {
					t.Errorf("%s, %+v: the check says %+v, and submission %d %s", who, s, d, got, detail)
				}
				if d.Allowed {
					layers["allowed"]++
				} else {
					layers[d.Layer]++
				}
			}
		}
	}
	compare()
	device := r.verified(admin) // without one, trust cannot be enforced
	if _, err := device.PutPolicy(t.Context(), "shop", api.NewPolicyDocument{Document: "enforceTrust: true\nminimumTrustLevel: verified\n"}); err != nil {
		t.Fatal(err)
	}
	compare()
	for _, layer := range []string{"allowed", "device", "project", "permission", "agent", "skill", "organization", "custom"} {
		if layers[layer] == 0 {
			t.Errorf("nothing was decided in the layer %s: %v", layer, layers)
		}
	}

	build, reader := callers["a build"], callers["a reader"]
	if _, err := device.PutPolicy(t.Context(), "shop", api.NewPolicyDocument{Document: "enforceTrust: false\n"}); err != nil {
		t.Fatal(err)
	}
	for _, agent := range []string{"code-creator", "code-modifier", "code-reviewer", "general-purpose"} {
		for who, session := range map[string]api.OpenedSession{"a build": build, "a reader": reader, "an administrator": admin} {
			d := r.check(session, api.PermissionQuery{Permission: "agent:invoke", AgentID: agent})
			resp, text := r.do("POST", "/v1/agents/"+agent+"/invoke", `{"description":"d","input":"","dispatch":"manual"}`, bearer(session)...)
			if (resp.StatusCode == 201) != d.Allowed || (resp.StatusCode == 403) == d.Allowed {
				t.Errorf("%s invokes %s: the check says %+v, and invocation %d %s", who, agent, d, resp.StatusCode, text)
			}
		}
	}
	// A permission alone is about no agent.
	if d := r.check(build, api.PermissionQuery{Permission: "task:submit"}); !d.Allowed {
		t.Errorf("may a build submit at all? %+v", d)
	}
	if d := r.check(reader, api.PermissionQuery{Permission: "config:write"}); d.Allowed || d.Layer != "permission" {
		t.Errorf("may a reader write? %+v", d)
	}
	r.problem(422, "invalid", "POST", "/v1/permissions/check", `{"permission":"everything"}`, bearer(reader)...)
}

func TestACheckChangesAndRecordsNothing(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	reader := r.login(admin, "reader", "readonly", "shop")
	count := func() (n int) {
		t.Helper()
		if err := r.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM audit_entries) + (SELECT count(*) FROM tasks)`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	for _, permission := range []string{"", "task:submit", "admin:all"} {
		if d := r.check(reader, api.PermissionQuery{Permission: permission, ProjectID: "shop"}); d.Allowed {
			t.Errorf("%s: %+v", permission, d)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d rows became %d", before, after)
	}
}

func TestCustomRulesGoByTheTaskThatIsSubmittedOrCancelled(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", `customRules:
  - name: teams-only
    expression: '!(action in ["task.submit", "task.cancel"]) || "team" in labels'
    message: who is it for?
  - name: reviewers-only
    expression: action != "task.submit" || agent == "code-reviewer"
`)
	dev := r.login(admin, "dev", "developer", "shop")
	created := want[api.Task](r, 201, "POST", "/v1/tasks",
		`{"description":"d","input":"","agentId":"code-reviewer","dispatch":"manual","labels":{"team":"a"}}`, bearer(dev)...)
	if code, why := r.submitAs(dev, submission{Agent: "code-reviewer"}); code != 403 || why != "who is it for? (security.yaml: customRules[teams-only])" {
		t.Errorf("without a team: %d %s", code, why)
	}
	if code, why := r.submitAs(dev, submission{Agent: "code-creator", Team: "a"}); code != 403 || !strings.Contains(why, "reviewers-only") {
		t.Errorf("with another agent: %d %s", code, why)
	}
	want[api.Task](r, 200, "POST", "/v1/tasks/"+created.ID+"/cancel", "", bearer(dev)...)
}

func TestASkillThatIsDefinedTakesPartInDecisions(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	client, ctx := r.client(admin), t.Context()
	dev := r.login(admin, "dev", "developer", "shop")
	decide := func(want string) {
		t.Helper()
		d := r.check(dev, api.PermissionQuery{SkillID: "deploy"})
		code, _ := r.submitAs(dev, submission{Skill: "deploy"})
		if got := strings.TrimPrefix(d.Layer+": "+d.Reason, "permission: "); d.Allowed != (want == "") || !d.Allowed && got != want || (code == 201) != d.Allowed {
			t.Errorf("decided %+v, submitted %d, want %q", d, code, want)
		}
	}
	decide(`skill: there is no skill "deploy"`)
	off := false
	for _, c := range []struct {
		d    api.SkillDefinition
		want string
	}{
		{api.SkillDefinition{Description: "Bring it to where it runs."}, ""},
		{api.SkillDefinition{Description: "d", Dangerous: true}, "skill: the dangerous skill deploy needs a verified device, and the caller has shown none"},
		{api.SkillDefinition{Description: "d", RequiredPermissions: []string{"config:write"}}, "skill: config:write is needed and no role of local:dev grants it (developer)"},
		{api.SkillDefinition{Description: "d", Enabled: &off}, "skill: skill deploy is disabled"},
	} {
		put, err := client.PutSkill(ctx, "deploy", c.d)
		if err != nil || put.ID != "deploy" || put.Description != c.d.Description || put.Enabled != (c.d.Enabled == nil) || put.Dangerous != c.d.Dangerous {
			t.Errorf("put %+v, %v", put, err)
		}
		decide(c.want)
	}
	if _, err := r.client(dev).PutSkill(ctx, "deploy", api.SkillDefinition{Description: "d"}); status(err) != http.StatusForbidden {
		t.Errorf("a developer defines it: %v", err)
	}
	if err := client.DeleteSkill(ctx, "deploy"); err != nil {
		t.Error(err)
	}
	decide(`skill: there is no skill "deploy"`)
	for id, want := range map[string]int{"deploy": 404, "file-read": 409} {
		if err := client.DeleteSkill(ctx, id); status(err) != want {
			t.Errorf("delete %s: %v, want %d", id, err, want)
		}
	}
	p := r.problem(422, "invalid", "PUT", "/v1/skills/deploy", `{"description":"d","requiredPermissions":["fly"]}`, bearer(admin)...)
	if len(p.Errors) != 1 || !strings.Contains(p.Errors[0].Location, "requiredPermissions") {
		t.Errorf("refused with %+v", p.Errors)
	}
	for action, want := range map[string]int{"skill.put": 5, "skill.delete": 1} {
		list, err := client.Audit(ctx, api.AuditFilter{Action: action, ResourceID: "deploy"})
		if err != nil || len(list.Items) != want {
			t.Errorf("%d entries of %s, want %d, %v", len(list.Items), action, want, err)
		}
	}
}
