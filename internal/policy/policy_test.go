package policy_test

import (
	"slices"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

func TestBuiltInRolesGrantWhatTheDocumentationSays(t *testing.T) {
	t.Parallel()
	for role, want := range map[policy.Role][]policy.Permission{
		policy.Admin:     policy.Permissions,
		policy.Developer: {policy.TaskSubmit, policy.TaskRead, policy.TaskCancel, policy.AgentInvoke, policy.SkillExecute},
		policy.ReadOnly:  {policy.TaskRead, policy.ConfigRead},
		policy.CI:        {policy.TaskSubmit, policy.TaskRead, policy.AgentInvoke},
		"stranger":       nil,
	} {
		got := policy.Caller{UserID: "u", Roles: []policy.Role{role}}.Permissions()
		if !slices.Equal(got, want) {
			t.Errorf("%s grants %v, want %v", role, got, want)
		}
	}
}

func TestDenialsSayWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		caller policy.Caller
		asks   policy.Permission
		reason string
	}{
		{policy.Caller{}, policy.TaskRead, "there is no valid session: nobody is known to ask"},
		{policy.Caller{}, policy.Authenticated, "there is no valid session: nobody is known to ask"},
		{policy.Caller{UserID: "ann"}, policy.TaskRead, "task:read is needed and ann has no role"},
		{policy.Caller{UserID: "ann", Roles: []policy.Role{policy.ReadOnly, policy.CI}}, policy.TaskCancel,
			"task:cancel is needed and no role of ann grants it (readonly, ci)"},
	} {
		d := policy.Authorize(c.caller, c.asks)
		if d.Allowed || d.Reason != c.reason {
			t.Errorf("%v asks %s: %+v, want denied because %q", c.caller, c.asks, d, c.reason)
		}
		if fault.CodeOf(d.Err()) != fault.Forbidden {
			t.Errorf("error of a denial is %v", d.Err())
		}
	}
	if d := policy.Authorize(policy.Caller{}, policy.Public); !d.Allowed || d.Err() != nil {
		t.Errorf("a public operation was denied: %+v", d)
	}
}
