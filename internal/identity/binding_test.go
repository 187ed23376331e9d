package identity_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

func TestNobodyGivesMoreThanItHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	id := r.user(t, "ann", policy.Developer)
	r.bind(t, id, policy.Admin, "web")
	o := byPassword("ann")
	inside := r.as(t, "ann")
	o.ProjectID = "web"
	inWeb := r.caller(t, bearer(r.open(t, o).AccessToken))
	user := func(role policy.Role, project string) identity.Binding {
		return identity.Binding{Kind: identity.UserSubject, Subject: "local:bob", Role: role, ProjectID: project}
	}
	narrow := admin
	narrow.Scopes = []policy.Permission{policy.TaskRead}
	for _, c := range []struct {
		who    policy.Caller
		gives  identity.Binding
		code   fault.Code
		reason string
	}{
		{inside, user(policy.ReadOnly, ""), fault.Forbidden, "admin:all is needed"},
		{inWeb, user(policy.Developer, ""), fault.Forbidden, "administers project web only"},
		{inWeb, user(policy.Developer, "shop"), fault.Forbidden, "administers project web only"},
		{narrow, user(policy.ReadOnly, ""), fault.Forbidden, "limited to task:read"},
		{admin, user("wizard", ""), fault.Invalid, `"wizard" is not a role`},
		{admin, identity.Binding{Kind: "robot", Subject: "x", Role: policy.CI}, fault.Invalid, "kind must be user or group"},
		{admin, identity.Binding{Kind: identity.GroupSubject, Subject: "a\nb", Role: policy.CI}, fault.Invalid, "subject"},
	} {
		_, err := r.Bind(t.Context(), c.who, c.gives)
		wantFault(t, err, c.code, c.reason)
	}
	b, err := r.Bind(t.Context(), inWeb, user(policy.Developer, "web"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Bind(t.Context(), inWeb, user(policy.Developer, "web"))
	wantFault(t, err, fault.Conflict, "has the role developer there")
	wantFault(t, r.Unbind(t.Context(), inside, b.ID), fault.NotFound, "no role binding")
	wantFault(t, r.Unbind(t.Context(), admin, uuid.New()), fault.NotFound, "no role binding")
	if got, _, err := r.Bindings(t.Context(), inWeb, identity.BindingFilter{}, last, 10); err != nil || len(got) != 2 {
		t.Errorf("the administrator of web sees %v, %v", got, err)
	}
	if got, _, err := r.Bindings(t.Context(), inside, identity.BindingFilter{}, last, 10); err != nil || len(got) != 2 {
		t.Errorf("ann sees %v, %v; want those of her own", got, err)
	}
	if err := r.Unbind(t.Context(), inWeb, b.ID); err != nil {
		t.Error(err)
	}
	if n := len(r.audited(t, "binding.create")) + len(r.audited(t, "binding.delete")); n != 2 {
		t.Errorf("%d entries for two changes", n)
	}
}
