package httpapi_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
)

// client calls the rig's server as clawctl does, in a session.
func (r *rig) client(who api.OpenedSession) *api.Client {
	r.t.Helper()
	c, err := api.NewClient(r.url, api.WithSession(who))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// verified calls the server in a new session of root's, from a verified device.
func (r *rig) verified(admin api.OpenedSession) *api.Client {
	r.t.Helper()
	signer, err := dpop.GenerateEd25519()
	if err != nil {
		r.t.Fatal(err)
	}
	prove := api.WithProof(func(method, url, accessToken string) (string, error) {
		return signer.Proof(method, url, accessToken, "", time.Now())
	})
	code, err := r.client(admin).CreateEnrolmentCode(r.t.Context(), api.NewEnrolmentCode{})
	if err != nil {
		r.t.Fatal(err)
	}
	stranger, err := api.NewClient(r.url, prove)
	if err != nil {
		r.t.Fatal(err)
	}
	opened, err := stranger.OpenSession(r.t.Context(), api.NewSession{Login: "root", Password: password, DeviceName: "d", EnrolmentCode: code.Code})
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := api.NewClient(r.url, prove, api.WithSession(opened))
	if err != nil {
		r.t.Fatal(err)
	}
	return client
}

// push puts a policy into force, the organisation's or that of a project.
func (r *rig) push(who api.OpenedSession, projectID, document string, opts ...api.ChangeOption) api.PolicyDocument {
	r.t.Helper()
	doc, err := r.client(who).PutPolicy(r.t.Context(), projectID, api.NewPolicyDocument{Document: document}, opts...)
	if err != nil {
		r.t.Fatalf("put a policy of %q: %v", projectID, err)
	}
	return doc
}

// status is that of a refusal; 0: it was none.
func status(err error) int {
	if refusal, ok := errors.AsType[*api.Error](err); ok {
		return refusal.Status
	}
	return 0
}

func encode(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAPolicyIsPutReadComparedAndRolledBack(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	client, ctx := r.client(admin), t.Context()
	const first, second = "deniedUsers: [local:eve]\n", "deniedUsers: [local:mallory]\n"
	for _, project := range []string{"", "shop", "acme/shop"} {
		if _, err := client.Policy(ctx, project); status(err) != 404 {
			t.Errorf("%q: before there is one: %v", project, err)
		}
		put := r.push(admin, project, first, api.IfVersion(0))
		if put.Version != 1 || put.Document != first || put.Author != "local:root" || put.Origin != "api" || put.ProjectID != project || len(put.Weakens) != 0 {
			t.Errorf("%q: the first is %+v", project, put)
		}
		put, err := client.PutPolicy(ctx, project, api.NewPolicyDocument{Document: second, Comment: "it was not Eve"}, api.IfVersion(1))
		if err != nil || put.Version != 2 || put.Comment != "it was not Eve" || len(put.Weakens) != 1 || !strings.Contains(put.Weakens[0], "local:eve") {
			t.Errorf("%q: the second is %+v, %v", project, put, err)
		}
		if again := r.push(admin, project, second); again.Version != 2 {
			t.Errorf("%q: what is in force already became version %d", project, again.Version)
		}
		diff, err := client.DiffPolicy(ctx, project, 1, 2)
		if err != nil || diff.From != 1 || diff.To != 2 || !strings.Contains(diff.Diff, "-"+first+"+"+second) || !slices.Equal(diff.Weakens, put.Weakens) {
			t.Errorf("%q: they differ by %+v, %v", project, diff, err)
		}
		back, err := client.RollbackPolicy(ctx, project, api.PolicyRollback{Version: 1})
		if err != nil || back.Version != 3 || back.Document != first || back.Origin != "rollback" || len(back.Weakens) != 1 {
			t.Errorf("%q: rolled back to %+v, %v", project, back, err)
		}
		if now, err := client.Policy(ctx, project); err != nil || now.Version != 3 || now.Document != first {
			t.Errorf("%q: in force is %+v, %v", project, now, err)
		}
		if old, err := client.PolicyVersion(ctx, project, 2); err != nil || old.Document != second {
			t.Errorf("%q: version 2 is %+v, %v", project, old, err)
		}
		if _, err := client.PolicyVersion(ctx, project, 4); status(err) != 404 {
			t.Errorf("%q: version 4: %v", project, err)
		}
		var versions []int64
		for v, err := range client.PolicyVersions(ctx, project) {
			if err != nil || v.Document != "" {
				t.Fatalf("%q: listed %+v, %v", project, v, err)
			}
			versions = append(versions, v.Version)
		}
		if !slices.Equal(versions, []int64{3, 2, 1}) {
			t.Errorf("%q: listed %v", project, versions)
		}
	}
	page := want[api.PolicyVersionList](r, 200, "GET", "/v1/config/security/versions?limit=2", "", bearer(admin)...)
	rest := want[api.PolicyVersionList](r, 200, "GET", "/v1/config/security/versions?limit=2&cursor="+page.NextCursor, "", bearer(admin)...)
	if len(page.Items) != 2 || len(rest.Items) != 1 || rest.Items[0].Version != 1 || rest.NextCursor != "" {
		t.Errorf("pages %+v and %+v", page, rest)
	}
	r.problem(422, "invalid", "GET", "/v1/config/security/versions?cursor=x", "", bearer(admin)...)
	resp, _ := r.do("GET", "/v1/projects/acme%2Fshop/policy", "", bearer(admin)...)
	if resp.Header.Get("ETag") != `"3"` {
		t.Errorf("the tag of version 3 is %s", resp.Header.Get("ETag"))
	}
}

func TestOfWritersOfAPolicyAtOnceOneWins(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	client := r.client(admin)
	for _, project := range []string{"", "shop"} {
		for version := range int64(3) {
			var won, lost atomic.Int64
			var writers sync.WaitGroup
			for i := range 6 {
				writers.Go(func() {
					doc := api.NewPolicyDocument{Document: fmt.Sprintf("deniedUsers: [local:u%d-%d]\n", version, i)}
					_, err := client.PutPolicy(t.Context(), project, doc, api.IfVersion(version))
					switch {
					case err == nil:
						won.Add(1)
					case status(err) == 409:
						lost.Add(1)
					default:
						t.Errorf("writer %d: %v", i, err)
					}
				})
			}
			writers.Wait()
			if now, err := client.Policy(t.Context(), project); won.Load() != 1 || lost.Load() != 5 || err != nil || now.Version != version+1 {
				t.Errorf("%q after version %d: %d won, %d lost, now version %d, %v", project, version, won.Load(), lost.Load(), now.Version, err)
			}
		}
	}
	for _, header := range [][]string{{"If-Match", "3"}, {"If-Match", `"x"`}, {"If-None-Match", `"3"`}, {"If-Match", `"3"`, "If-None-Match", "*"}} {
		r.problem(422, "invalid", "PUT", "/v1/config/security", `{"document":"enforceTrust: false\n"}`, append(header, bearer(admin)...)...)
	}
}

func TestABadDocumentIsRefusedNamingTheLineAndColumnOfEachFault(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	const org, shop = "/v1/config/security", "/v1/projects/shop/policy"
	for name, c := range map[string]struct {
		path, document string
		faults         []string // place and part of the message
	}{
		"no YAML":              {org, "allowedRoles: [admin\n", []string{"body.document:1:"}},
		"unknown keys":         {org, "enforceTrust: false\nenforcedTrust: true\n", []string{"body.document:2:1: enforcedTrust"}},
		"several faults":       {org, "minimumTrustLevel: total\nallowedRoles: [boss]\n", []string{"body.document:1:20: total", "body.document:2:16: boss"}},
		"a bad expression":     {org, "customRules:\n  - name: r\n    expression: usr == \"x\"\n", []string{"body.document:3:17: usr"}},
		"roles in a project":   {shop, "roles:\n  boss: {inherits: admin}\n", []string{"body.document:2:3: roles"}},
		"logins in a project":  {shop, "identity:\n  providers: [local]\n", []string{"body.document:2:3: identity"}},
		"devices in a project": {shop, "deviceTrust:\n  autoTrustLocal: true\n", []string{"body.document:2:3: deviceTrust"}},
	} {
		body := encode(t, api.NewPolicyDocument{Document: c.document})
		p := r.problem(422, "invalid", "PUT", c.path, body, bearer(admin)...)
		if len(p.Errors) != len(c.faults) {
			t.Errorf("%s: %d faults: %+v", name, len(p.Errors), p.Errors)
			continue
		}
		for i, f := range c.faults {
			place, message, _ := strings.Cut(f, ": ")
			if e := p.Errors[i]; !strings.HasPrefix(e.Location, place) || !strings.Contains(e.Message, message) {
				t.Errorf("%s: fault %d is %+v, want %s", name, i, e, f)
			}
		}
		r.problem(404, "not-found", "GET", c.path, "", bearer(admin)...)
	}
}

// clerks lets clerks change policies.
const clerks = "roles:\n  clerk: {inherits: readonly, additionalPermissions: [\"config:write\"]}\n"

func TestWhoMayChangeAPolicyMayNotWeakenIt(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", clerks)
	r.push(admin, "shop", "minimumTrustLevel: untrusted\ndeniedUsers: [local:eve]\n")
	clerk := r.login(admin, "clerk", "clerk", "shop")
	client, ctx := r.client(clerk), t.Context()
	r.push(clerk, "shop", "minimumTrustLevel: untrusted\ndeniedUsers: [local:eve, local:mallory]\n")

	for what, change := range map[string]func() error{
		"put a weaker one": func() error {
			_, err := client.PutPolicy(ctx, "shop", api.NewPolicyDocument{Document: "deniedUsers: [local:mallory]\n"})
			return err
		},
		"go back to a weaker one": func() error {
			_, err := client.RollbackPolicy(ctx, "shop", api.PolicyRollback{Version: 1})
			return err
		},
	} {
		if err := change(); status(err) != 403 || !strings.Contains(err.Error(), "admin:all") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for project, want := range map[string]int{"": 403, "bank": 404} {
		_, err := client.PutPolicy(ctx, project, api.NewPolicyDocument{Document: "deniedUsers: [local:root]\n"})
		_, rollback := client.RollbackPolicy(ctx, project, api.PolicyRollback{Version: 1})
		_, read := client.Policy(ctx, project)
		_, diff := client.DiffPolicy(ctx, project, 0, 0)
		_, simulate := client.SimulatePolicy(ctx, api.PolicySimulation{ProjectID: project, Document: "enforceTrust: false\n", Since: time.Now()})
		for what, err := range map[string]error{"put": err, "roll back": rollback, "read": read, "compare": diff, "simulate": simulate} {
			if status(err) != want {
				t.Errorf("%s the policy of %q: %v, want %d", what, project, err, want)
			}
		}
	}
	if now, err := client.Policy(ctx, "shop"); err != nil || now.Version != 2 {
		t.Errorf("in force is %+v, %v", now, err)
	}
}

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

func TestASimulationSaysExactlyWhichDecisionsADocumentChanges(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", "agentPolicies:\n  - agentId: code-reviewer\n    allowedRoles: [ci]\n")
	ann, build, reader := r.login(admin, "ann", "developer", ""), r.login(admin, "build", "ci", "shop"), r.login(admin, "reader", "readonly", "shop")
	for _, s := range []struct {
		who  api.OpenedSession
		what submission
		want int
	}{
		{ann, submission{Agent: "code-creator"}, 201},
		{ann, submission{Agent: "code-modifier"}, 201},
		{ann, submission{Agent: "code-modifier", Team: "a"}, 201},
		{ann, submission{Agent: "code-reviewer"}, 403},
		{build, submission{Agent: "code-reviewer"}, 201},
		{build, submission{Agent: "code-modifier"}, 201},
		{admin, submission{Agent: "code-modifier", Project: "shop"}, 201},
		{admin, submission{Agent: "code-reviewer", Project: "shop"}, 403},
		{reader, submission{Agent: "code-modifier"}, 403}, // before it is known about which agent
	} {
		if code, why := r.submitAs(s.who, s.what); code != s.want {
			t.Fatalf("%+v: %d %s", s.what, code, why)
		}
	}
	since := time.Now().Add(-time.Hour)
	changed := func(project, document string, decisions, skipped int, want ...string) {
		t.Helper()
		got, err := r.client(admin).SimulatePolicy(t.Context(), api.PolicySimulation{ProjectID: project, Document: document, Since: since})
		if err != nil || got.Decisions != decisions || got.Skipped != skipped || got.ChangedCount != len(want) || !got.Complete {
			t.Errorf("%s: %+v, %v", document, got, err)
		}
		var lines []string
		for _, ch := range got.Changed {
			now := "allowed"
			if !ch.Now.Allowed {
				now = cmp.Or(ch.Now.Rule, "denied")
			}
			lines = append(lines, ch.UserID+" "+ch.Was+" -> "+now)
			if ch.EntryID == "" || ch.Action != "task.submit" {
				t.Errorf("changed %+v", ch)
			}
		}
		if !slices.Equal(lines, want) { // newest first
			t.Errorf("%s: changed %q, want %q", document, lines, want)
		}
	}
	const byTeam = "customRules:\n  - {name: team, expression: '\"team\" in labels || roles != [\"developer\"]'}\n"
	changed("", "agentPolicies:\n  - agentId: code-reviewer\n    allowedRoles: [ci]\n", 8, 1)
	changed("", "agentPolicies:\n  - agentId: code-modifier\n    allowedRoles: [ci]\n", 8, 1,
		"local:root denied -> allowed",
		"local:root allowed -> security.yaml: agentPolicies[code-modifier].allowedRoles",
		"local:ann denied -> allowed",
		"local:ann allowed -> security.yaml: agentPolicies[code-modifier].allowedRoles",
		"local:ann allowed -> security.yaml: agentPolicies[code-modifier].allowedRoles")
	changed("", byTeam, 8, 1,
		"local:root denied -> allowed", // code-reviewer is for all again
		"local:ann allowed -> security.yaml: customRules[team]",
		"local:ann allowed -> security.yaml: customRules[team]")
	changed("shop", "deniedUsers: [local:build]\n", 4, 1,
		"local:build allowed -> .coderClaw/security.yaml: deniedUsers[local:build]",
		"local:build allowed -> .coderClaw/security.yaml: deniedUsers[local:build]")
	changed("bank", "deniedUsers: [local:build]\n", 0, 0)
	since = time.Now().Add(time.Hour)
	changed("", "allowedRoles: [admin]\n", 0, 0)

	if now, err := r.client(admin).Policy(t.Context(), ""); err != nil || now.Version != 1 {
		t.Errorf("after all that version %d is in force, %v", now.Version, err)
	}
	p := r.problem(422, "invalid", "POST", "/v1/policy/simulate", `{"document":"allowedRoles: [boss]\n","since":"2026-01-01T00:00:00Z"}`, bearer(admin)...)
	if len(p.Errors) != 1 || !strings.HasPrefix(p.Errors[0].Location, "body.document:1:") {
		t.Errorf("a bad document is refused with %+v", p.Errors)
	}
	r.problem(403, "forbidden", "POST", "/v1/policy/simulate", `{"document":"enforceTrust: false\n","since":"2026-01-01T00:00:00Z"}`, bearer(ann)...)
}

func TestAPolicyHoldsAtOnceForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", "enforceTrust: false\n")
	ann := r.login(admin, "ann", "developer", "shop")
	bob := r.login(admin, "bob", "developer", "shop")
	queue := func(who api.OpenedSession) api.Task {
		t.Helper()
		return want[api.Task](r, 201, "POST", "/v1/tasks", `{"description":"d","input":""}`, bearer(who)...)
	}
	hers, his := queue(ann), queue(bob)
	watching, other := r.stream("/v1/tasks/"+hers.ID+"/stream", bearer(ann)...), r.stream("/v1/tasks/"+hers.ID+"/stream", bearer(bob)...)
	watching.event()
	other.event()

	r.push(admin, "shop", "deniedUsers: [local:ann]\n")
	if p := r.problem(403, "forbidden", "GET", "/v1/tasks", "", bearer(ann)...); p.Detail != "local:ann is denied (.coderClaw/security.yaml: deniedUsers[local:ann])" {
		t.Errorf("refused with %q", p.Detail)
	}
	for {
		if _, ok := watching.next(); !ok {
			break
		}
	}
	if err := watching.lines.Err(); err != nil { // it ends, and not by the time-out
		t.Errorf("her stream: %v", err)
	}
	leases, err := r.tasks.Claim(t.Context(), "w", nil, 10, 0)
	if err != nil || len(leases) != 1 || leases[0].ID.String() != his.ID {
		t.Fatalf("claimed %+v, %v", leases, err)
	}
	// He goes on watching, and sees how hers ends.
	for m := other.event(); m.data.Status != api.TaskFailed && m.data.Status != api.TaskCancelled; m = other.event() {
	}
	if got := want[api.Task](r, 200, "GET", "/v1/tasks/"+hers.ID, "", bearer(bob)...); !strings.Contains(got.Error, "local:ann is denied") {
		t.Errorf("her task is %s, for %q", got.Status, got.Error)
	}
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

func TestTheRuntimeConfigurationIsShownAndNotChanged(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	got, err := r.client(admin).RuntimeConfig(t.Context())
	if err != nil || got.Mode != "local-only" || got.PublicURL != r.url || !slices.Equal(got.DefaultRoles, []string{"developer"}) {
		t.Errorf("%+v, %v", got, err)
	}
	r.problem(405, "method-not-allowed", "PUT", "/v1/config/runtime", encode(t, got), bearer(admin)...)
}
