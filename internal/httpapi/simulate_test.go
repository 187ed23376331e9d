package httpapi_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

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

func TestASimulationCountsAllButTellsOfFiveHundred(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", "enforceTrust: false\n")
	if code, why := r.submitAs(admin, submission{}); code != 201 {
		t.Fatal(code, why)
	}
	_, err := r.pool.Exec(t.Context(), `
		INSERT INTO audit_entries (id, created_at, user_id, action, result, details)
		SELECT gen_random_uuid(), created_at, user_id, action, result, details
		FROM audit_entries, generate_series(1, 600) WHERE action = 'task.submit'`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.client(admin).SimulatePolicy(t.Context(), api.PolicySimulation{Document: "deniedRoles: [admin]\n", Since: time.Unix(1, 0)})
	if err != nil || got.Decisions != 601 || got.ChangedCount != 601 || len(got.Changed) != 500 || !got.Complete {
		t.Errorf("%d of %d changed, %d told, %v", got.ChangedCount, got.Decisions, len(got.Changed), err)
	}
}
