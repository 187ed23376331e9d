package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

// ruled is the policy of two documents; a text may be empty for none.
func ruled(t *testing.T, org, project string) *policy.Policy {
	t.Helper()
	var documents [2]*policy.Document
	for kind, text := range []string{org, project} {
		if text == "" {
			continue
		}
		d, err := policy.ParseDocument([]byte(text), "security.yaml", policy.Kind(kind))
		if err != nil {
			t.Fatal(err)
		}
		documents[kind] = d
	}
	p, err := policy.Compile(documents[0], documents[1], policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhoSubmittedATaskMayBeKeptFromApprovingForIt(t *testing.T) {
	t.Parallel()
	const other = "approvals: {otherThanSubmitter: true}"
	ann := policy.Caller{UserID: "ann", Roles: []policy.Role{policy.Admin}}
	for _, c := range []struct {
		org, project, approving string
		layer                   policy.Layer // that denies; empty: allowed
	}{
		{"", "", "ann", ""},
		{other, "", "ann", policy.LayerOrganization},
		{"", other, "ann", policy.LayerProject},
		{other, "approvals: {otherThanSubmitter: false}", "ann", policy.LayerOrganization},
		{other, other, "bob", ""},
		{other, "", "", ""},
	} {
		d := ruled(t, c.org, c.project).Decide(ann, policy.Request{Permission: policy.TaskSubmit, Approving: c.approving})
		if d.Allowed != (c.layer == "") || !d.Allowed && (d.Layer != c.layer || d.Rule != "security.yaml: approvals.otherThanSubmitter") {
			t.Errorf("%+v: %+v", c, d)
		}
	}
	from, _ := policy.ParseDocument([]byte(other), "a", policy.Organization)
	if got := policy.Weakens(from, nil); !slices.Equal(got, []string{"approvals.otherThanSubmitter is no longer on"}) {
		t.Errorf("without it: %v", got)
	}
}

func TestDangerousSkillsNeedAnApprovalUnlessTheOrganisationWaivesIt(t *testing.T) {
	t.Parallel()
	const (
		dangerous = "skillPolicies: [{skillId: shell, dangerous: true}]"
		waived    = "skillPolicies: [{skillId: shell, dangerous: true, withoutApproval: true}]"
	)
	ann := policy.Caller{UserID: "ann", Roles: []policy.Role{policy.Developer}, DeviceID: "d", Trust: policy.Verified}
	for _, c := range []struct {
		org, project string
		defined      bool // as dangerous, by the skill itself
		want         bool
	}{
		{"", "", false, false},
		{"", "", true, true},
		{dangerous, "", false, true},
		{"", dangerous, false, true},
		{waived, "", true, false},
		{waived, dangerous, true, true},
		{"skillPolicies: [{skillId: other, withoutApproval: true}]", "", true, true},
	} {
		d := ruled(t, c.org, c.project).Decide(ann, policy.Request{Permission: policy.TaskSubmit, SkillID: "shell", SkillDangerous: c.defined})
		if !d.Allowed || d.Approval != c.want {
			t.Errorf("%+v: %+v", c, d)
		}
	}
	if _, err := policy.ParseDocument([]byte(waived), "a", policy.Project); err == nil || !strings.Contains(err.Error(), "can only narrow") {
		t.Errorf("a project waives it: %v", err)
	}
	to, _ := policy.ParseDocument([]byte(waived), "a", policy.Organization)
	from, _ := policy.ParseDocument([]byte(dangerous), "a", policy.Organization)
	if got := policy.Weakens(from, to); !slices.Equal(got, []string{"skillPolicies[shell] no longer needs an approval"}) {
		t.Errorf("waiving it: %v", got)
	}
}
