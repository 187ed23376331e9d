package identity_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

func (r *rig) newKey(t testing.TB, c policy.Caller, n identity.NewKey) (identity.Key, string) {
	t.Helper()
	if n.Name == "" {
		n.Name = "a key"
	}
	if n.ExpiresAt.IsZero() {
		n.ExpiresAt = r.clock.Now().Add(30 * 24 * time.Hour)
	}
	k, secret, err := r.CreateKey(t.Context(), c, n)
	if err != nil {
		t.Fatal(err)
	}
	return k, secret
}

func TestAKeyActsForItsUserOrAsAService(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	id := r.user(t, "ann", policy.Developer)
	_, own := r.newKey(t, r.as(t, "ann"), identity.NewKey{Scopes: []policy.Permission{policy.TaskRead}})
	c := r.caller(t, bearer(own))
	if c.UserID != id || c.SessionID == "" || !slices.Equal(c.Roles, []policy.Role{policy.Developer}) || !slices.Equal(c.Scopes, []policy.Permission{policy.TaskRead}) {
		t.Errorf("the caller is %+v", c)
	}
	if again := r.caller(t, bearer(own)); again.SessionID != c.SessionID {
		t.Error("each request opens a session")
	}
	if err := r.UnbindAll(t, admin, id); err != nil {
		t.Fatal(err)
	}
	if c := r.caller(t, bearer(own)); len(c.Roles) != 0 {
		t.Errorf("the key has roles that its user lost: %v", c.Roles)
	}

	k, service := r.newKey(t, admin, identity.NewKey{Service: true, ProjectID: "web", Roles: []policy.Role{policy.CI}})
	if c := r.caller(t, bearer(service)); c.UserID != "key:"+k.ID || c.ProjectID != "web" || !slices.Equal(c.Roles, []policy.Role{policy.CI}) {
		t.Errorf("the caller is %+v", c)
	}
	opened := r.open(t, identity.Opening{Credential: identity.Credential{APIKey: service}, Origin: here})
	if c := r.caller(t, bearer(opened.AccessToken)); c.UserID != "key:"+k.ID || c.ProjectID != "web" {
		t.Errorf("the caller is %+v", c)
	}
	_, err := r.OpenSession(t.Context(), identity.Opening{Credential: identity.Credential{APIKey: service}, Origin: here, ProjectID: "shop"})
	wantFault(t, err, fault.Forbidden, "for project web only")
}

// UnbindAll takes all roles from a user.
func (r *rig) UnbindAll(t testing.TB, admin policy.Caller, subject string) error {
	t.Helper()
	bindings, _, err := r.Bindings(t.Context(), admin, identity.BindingFilter{Subject: subject}, last, 100)
	for _, b := range bindings {
		if err == nil {
			err = r.Unbind(t.Context(), admin, b.ID)
		}
	}
	return err
}

func TestAKeyEndsInTimeAndWhenItIsRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	r.user(t, "bob", policy.Developer)
	ann := r.as(t, "ann")
	k, secret := r.newKey(t, ann, identity.NewKey{})
	opened := r.open(t, identity.Opening{Credential: identity.Credential{APIKey: secret}, Origin: here})
	r.caller(t, bearer(secret))
	wantFault(t, r.RevokeKey(t.Context(), r.as(t, "bob"), k.ID), fault.NotFound, "no key")
	wantFault(t, r.RevokeKey(t.Context(), ann, "\x00"), fault.NotFound, "no key")
	if err := r.RevokeKey(t.Context(), ann, k.ID); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, bearer(secret), "the session was revoked")
	r.refuses(t, bearer(secret), "the key was revoked")
	r.refuses(t, bearer(opened.AccessToken), "the session was revoked")
	_, err := r.OpenSession(t.Context(), identity.Opening{Credential: identity.Credential{APIKey: secret}, Origin: here})
	wantRefusal(t, err, "the key was revoked")

	_, secret = r.newKey(t, ann, identity.NewKey{ExpiresAt: r.clock.Now().Add(time.Hour)})
	opened = r.open(t, identity.Opening{Credential: identity.Credential{APIKey: secret}, Origin: here})
	if !opened.Session.ExpiresAt.Equal(r.clock.Now().Add(time.Hour)) {
		t.Errorf("a session outlives its key: %s", opened.Session.ExpiresAt)
	}
	r.caller(t, bearer(secret))
	r.clock.advance(time.Hour)
	r.refuses(t, bearer(secret), "has expired")
	r.refuses(t, bearer(secret), "has expired")
}

func TestAKeyIsUsedDirectlyForAsLongAsItLives(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	_, secret := r.newKey(t, r.as(t, "ann"), identity.NewKey{})
	r.caller(t, bearer(secret))
	r.clock.advance(29 * 24 * time.Hour)
	r.caller(t, bearer(secret))
}

func TestNoKeyHoldsMoreThanItsMaker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.user(t, "ann", policy.Developer)
	r.bind(t, id, policy.Admin, "web")
	ann := r.as(t, "ann")
	soon := r.clock.Now().Add(time.Hour)
	for _, c := range []struct {
		asks   identity.NewKey
		code   fault.Code
		reason string
	}{
		{identity.NewKey{Roles: []policy.Role{policy.Admin}}, fault.Forbidden, "local:ann does not have the role admin"},
		{identity.NewKey{Roles: []policy.Role{policy.Admin}, ProjectID: "web"}, fault.Forbidden, "local:ann does not have the role admin"},
		{identity.NewKey{Scopes: []policy.Permission{policy.AdminAll}}, fault.Forbidden, "admin:all is not held by local:ann"},
		{identity.NewKey{Service: true, Roles: []policy.Role{policy.Developer}}, fault.Forbidden, "admin:all is needed"},
		{identity.NewKey{Roles: []policy.Role{"wizard"}}, fault.Invalid, `"wizard" is not a role`},
		{identity.NewKey{Scopes: []policy.Permission{"fly"}}, fault.Invalid, `"fly" is not a permission`},
		{identity.NewKey{ExpiresAt: r.clock.Now().Add(identity.MaxKeyLife + time.Second)}, fault.Invalid, "expiresAt must be at most"},
		{identity.NewKey{ExpiresAt: r.clock.Now()}, fault.Invalid, "expiresAt is past"},
	} {
		c.asks.Name = "a key"
		if c.asks.ExpiresAt.IsZero() {
			c.asks.ExpiresAt = soon
		}
		_, _, err := r.CreateKey(t.Context(), ann, c.asks)
		wantFault(t, err, c.code, c.reason)
	}
	_, _, err := r.CreateKey(t.Context(), ann, identity.NewKey{Name: "for ever"})
	wantFault(t, err, fault.Invalid, "expiresAt is required")

	_, secret := r.newKey(t, ann, identity.NewKey{})
	_, _, err = r.CreateKey(t.Context(), r.caller(t, bearer(secret)), identity.NewKey{Name: "child", ExpiresAt: soon})
	wantFault(t, err, fault.Forbidden, "a key is made by people")

	o := byPassword("ann")
	o.ProjectID = "web"
	inWeb := r.caller(t, bearer(r.open(t, o).AccessToken))
	_, _, err = r.CreateKey(t.Context(), inWeb, identity.NewKey{Name: "shop", ProjectID: "shop", Service: true, Roles: []policy.Role{policy.CI}, ExpiresAt: soon})
	wantFault(t, err, fault.Forbidden, "project web only")
	k, _ := r.newKey(t, inWeb, identity.NewKey{Service: true, Roles: []policy.Role{policy.CI}, ProjectID: "web"})
	keys, _, err := r.Keys(t.Context(), inWeb, identity.KeyFilter{}, "", 10)
	if err != nil || len(keys) != 1 || keys[0].ID != k.ID {
		t.Errorf("an administrator of web sees %v, %v", keys, err)
	}
	if n := r.count(t, `SELECT count(*) FROM api_keys`); n != 2 {
		t.Errorf("%d keys, some of them refused", n)
	}
}

func TestTheSecretOfAKeyIsNowhereInTheDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	_, secret := r.newKey(t, r.as(t, "ann"), identity.NewKey{})
	r.caller(t, bearer(secret))
	plain := secret[strings.LastIndexByte(secret, '_')+1:]
	for _, table := range []string{"api_keys", "sessions", "audit_entries"} {
		if n := r.count(t, `SELECT count(*) FROM `+table+` t WHERE t::text LIKE '%' || $1 || '%'`, plain); n != 0 {
			t.Errorf("%s holds it", table)
		}
	}
}
