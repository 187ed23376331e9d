package identity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

const goodPassword = "correct horse battery"

func TestTheFirstAdministratorComesByAOneTimeCode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	code, needed, err := r.EnsureBootstrap(t.Context())
	if err != nil || !needed {
		t.Fatal(needed, err)
	}
	if n := r.count(t, `SELECT count(*) FROM enrolment_codes t WHERE t::text LIKE '%' || $1 || '%'`, code); n != 0 {
		t.Error("the database holds the code")
	}
	_, err = r.Bootstrap(t.Context(), code, "root", "short", here)
	wantFault(t, err, fault.Invalid, "fewer than 15 characters")
	_, err = r.Bootstrap(t.Context(), code[:len(code)-2]+"AA", "root", goodPassword, here)
	wantRefusal(t, err, "the code is not known")

	other, _, err := r.EnsureBootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := r.sibling(t)
	errs := together(4, func(i int) error {
		login := "root" + string(rune('a'+i))
		_, err := []*rig{r, elsewhere}[i%2].Bootstrap(t.Context(), []string{code, other}[i/2], login, goodPassword, here)
		return err
	})
	if n := succeeded(errs); n != 1 {
		t.Fatalf("%d of 4 became the first administrator: %v", n, errs)
	}
	if n := r.count(t, `SELECT count(*) FROM users`); n != 1 {
		t.Errorf("%d users", n)
	}
	if entries := r.audited(t, "user.create"); len(entries) != 1 || !strings.Contains(entries[0].Details, "admin") {
		t.Errorf("audited: %+v", entries)
	}
	if _, needed, err := r.EnsureBootstrap(t.Context()); err != nil || needed {
		t.Errorf("another one is needed: %t, %v", needed, err)
	}
}

func TestTheCodeForTheFirstAdministratorExpires(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	code, _, err := r.EnsureBootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.clock.advance(24 * time.Hour)
	o := identity.Opening{Credential: identity.Credential{Login: "root", Password: goodPassword, Code: code}, Origin: here}
	_, err = r.OpenSession(t.Context(), o)
	wantRefusal(t, err, "the code is not known, was used or has expired")
	if o.Credential.Code, _, err = r.EnsureBootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := r.caller(t, bearer(r.open(t, o).AccessToken)); c.UserID != "local:root" || !c.AllProjects {
		t.Errorf("the caller is %+v", c)
	}
}

func TestAdministratorsKeepAccounts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	ann, err := r.CreateUser(t.Context(), admin, identity.NewUser{Login: "ann", Password: goodPassword, Name: "Ann", Email: "ann@example.com"})
	if err != nil || ann.ID != "local:ann" {
		t.Fatal(ann, err)
	}
	_, err = r.CreateUser(t.Context(), admin, identity.NewUser{Login: "ann", Password: goodPassword})
	wantFault(t, err, fault.Conflict, "there is a user local:ann")
	_, err = r.CreateUser(t.Context(), admin, identity.NewUser{Login: "Ann:", Name: "\x1b[31m", Password: goodPassword})
	wantFault(t, err, fault.Invalid, "and 1 more")

	opened := r.open(t, identity.Opening{Credential: identity.Credential{Login: "ann", Password: goodPassword}, Origin: here})
	c := r.caller(t, bearer(opened.AccessToken))
	_, err = r.CreateUser(t.Context(), c, identity.NewUser{Login: "bob", Password: goodPassword})
	wantFault(t, err, fault.Forbidden, "admin:all")
	_, _, err = r.Users(t.Context(), c, "", 10)
	wantFault(t, err, fault.Forbidden, "admin:all")
	_, err = r.User(t.Context(), c, "local:root")
	wantFault(t, err, fault.NotFound, "no user local:root")
	if got, err := r.User(t.Context(), c, "local:ann"); err != nil || got.Name != "Ann" || got.LastLoginAt == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if users, more, err := r.Users(t.Context(), admin, "", 1); err != nil || !more || len(users) != 1 || users[0].ID != "local:ann" {
		t.Errorf("%v, %t, %v", users, more, err)
	}

	reset := "another fine password"
	if _, err := r.UpdateUser(t.Context(), admin, "local:ann", identity.UserPatch{Password: &reset}); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, bearer(opened.AccessToken), "the session was revoked")
	_, err = r.OpenSession(t.Context(), identity.Opening{Credential: identity.Credential{Login: "ann", Password: goodPassword}, Origin: here})
	wantRefusal(t, err, "the password is wrong")

	off, on := true, false
	if u, err := r.UpdateUser(t.Context(), admin, "local:ann", identity.UserPatch{Disabled: &off}); err != nil || u.DisabledBy != "local:root" {
		t.Fatal(u, err)
	}
	o := identity.Opening{Credential: identity.Credential{Login: "ann", Password: reset}, Origin: here}
	_, err = r.OpenSession(t.Context(), o)
	wantRefusal(t, err, "its user is disabled")
	if _, err := r.UpdateUser(t.Context(), admin, "local:ann", identity.UserPatch{Disabled: &on}); err != nil {
		t.Fatal(err)
	}
	r.open(t, o)
	for _, err := range []error{
		second(r.UpdateUser(t.Context(), admin, "local:nobody", identity.UserPatch{Disabled: &off})),
		second(r.UpdateUser(t.Context(), admin, "a\x00", identity.UserPatch{})), r.DeleteUser(t.Context(), admin, "local:nobody"),
	} {
		wantFault(t, err, fault.NotFound, "no user")
	}
}

func TestANewPasswordWantsTheOldOneAndEndsOtherSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	own, other := r.login(t, "ann"), r.login(t, "ann")
	c := r.caller(t, bearer(own.AccessToken))
	wantRefusal(t, r.ChangePassword(t.Context(), c, "guess", goodPassword), "the password is wrong")
	if err := r.ChangePassword(t.Context(), c, password, goodPassword); err != nil {
		t.Fatal(err)
	}
	r.caller(t, bearer(own.AccessToken))
	r.refuses(t, bearer(other.AccessToken), "the session was revoked")
}

func TestGuessersAreSlowedDownAndLearnNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	guess := func(login, address string) error {
		o := identity.Opening{Credential: identity.Credential{Login: login, Password: "guess"}, Origin: here}
		o.Origin.Address = address
		_, err := r.OpenSession(t.Context(), o)
		return err
	}
	for _, login := range []string{"ann", "nobody"} {
		for range 5 {
			wantRefusal(t, guess(login, "198.51.100."+login), "")
		}
		wantFault(t, guess(login, "another"), fault.TooMany, "too many wrong passwords; try again in 1s")
	}
	_, err := r.OpenSession(t.Context(), byPassword("ann"))
	wantFault(t, err, fault.TooMany, "try again")
	r.clock.advance(time.Second)
	r.login(t, "ann")
	r.login(t, "ann") // what went wrong before is forgiven

	for i := range 20 {
		wantRefusal(t, guess("user"+string(rune('a'+i)), "203.0.113.1"), "")
	}
	wantFault(t, guess("fresh", "203.0.113.1"), fault.TooMany, "try again")
	wantRefusal(t, guess("fresh", "203.0.113.2"), "")
}

func TestGuessesThatComeTogetherCountOneByOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	errs := together(20, func(int) error {
		_, err := r.OpenSession(t.Context(), identity.Opening{Credential: identity.Credential{Login: "ann", Password: "guess"}, Origin: here})
		return err
	})
	tried := 0
	for _, err := range errs {
		if fault.CodeOf(err) == fault.Unauthenticated {
			tried++
		}
	}
	if tried != 5 {
		t.Errorf("%d of 20 passwords were tried, want 5", tried)
	}
}

func TestSomebodyIsLeftWhoAdministers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	root := r.admin(t)
	off := true
	_, err := r.UpdateUser(t.Context(), root, "local:root", identity.UserPatch{Disabled: &off})
	wantFault(t, err, fault.Conflict, "nobody who can administer")
	wantFault(t, r.DeleteUser(t.Context(), root, "local:root"), fault.Conflict, "nobody who can administer")
	wantFault(t, r.UnbindAll(t, root, "local:root"), fault.Conflict, "nobody who can administer")
	r.caller(t, bearer(r.login(t, "root").AccessToken))

	r.user(t, "deputy", policy.Admin)
	deputy := r.as(t, "deputy")
	elsewhere := r.sibling(t)
	errs := together(2, func(i int) error {
		if i == 0 {
			return r.DeleteUser(t.Context(), root, "local:deputy")
		}
		return elsewhere.DeleteUser(t.Context(), deputy, "local:root")
	})
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of two who delete each other succeed: %v", n, errs)
	}
}

func TestADeletedUserLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	id := r.user(t, "ann", policy.Developer)
	own := key(t)
	ann := r.as(t, "ann")
	r.register(t, ann, own)
	_, secret := r.newKey(t, ann, identity.NewKey{})
	r.caller(t, bearer(secret))
	if err := r.DeleteUser(t.Context(), admin, id); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, bearer(secret), "no such session")
	r.refuses(t, bearer(secret), "there is no such key")
	for _, table := range []string{"sessions", "devices", "api_keys"} {
		if n := r.count(t, `SELECT count(*) FROM `+table+` WHERE user_id = $1`, id); n != 0 {
			t.Errorf("%d %s", n, table)
		}
	}
	if n := r.count(t, `SELECT count(*) FROM role_bindings WHERE subject = $1`, id); n != 0 {
		t.Errorf("%d role bindings", n)
	}
}

func TestWhoHasAnAccountDoesNotClearItsAddressForGuesses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "eve", policy.Developer)
	for i := range 19 {
		_, err := r.OpenSession(t.Context(), identity.Opening{Credential: identity.Credential{Login: "user" + string(rune('a'+i)), Password: "guess"}, Origin: here})
		wantRefusal(t, err, "")
		r.login(t, "eve")
	}
	r.login(t, "eve")
	_, err := r.OpenSession(t.Context(), identity.Opening{Credential: identity.Credential{Login: "last", Password: "guess"}, Origin: here})
	wantRefusal(t, err, "")
	_, err = r.OpenSession(t.Context(), byPassword("eve"))
	wantFault(t, err, fault.TooMany, "try again")
}
