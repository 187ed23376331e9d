package identity_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
)

func TestAKnownSessionAsksTheDatabaseOnceASecond(t *testing.T) {
	t.Parallel()
	var q pgtest.RoundTrips
	r := rigOn(t, pgtest.DB(t, q.Count), newClock())
	r.user(t, "ann", policy.Developer)
	token := r.login(t, "ann").AccessToken
	c := r.caller(t, bearer(token))
	before := q.Load()
	for range 10 {
		r.clock.advance(99 * time.Millisecond)
		r.caller(t, bearer(token))
		if _, err := r.Valid(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if n := q.Load() - before; n != 0 {
		t.Errorf("%d queries within a second", n)
	}
	r.clock.advance(10 * time.Millisecond)
	for range 10 {
		r.caller(t, bearer(token))
	}
	if n := q.Load() - before; n != 1 {
		t.Errorf("%d queries after a second in which nothing changed, want one", n)
	}
}

func TestWhatWasRefusedDisplacesNothing(t *testing.T) {
	t.Parallel()
	var q pgtest.RoundTrips
	r := rigOn(t, pgtest.DB(t, q.Count), newClock())
	r.user(t, "ann", policy.Developer)
	token := r.login(t, "ann").AccessToken
	r.caller(t, bearer(token))
	for i := range 100 {
		r.refuses(t, bearer(fmt.Sprintf("ccl_%d_%s", i, strings.Repeat("A", 52))), "there is no such key")
	}
	before := q.Load()
	r.caller(t, bearer(token))
	if n := q.Load() - before; n != 0 {
		t.Errorf("%d queries for a known session", n)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	var q pgtest.RoundTrips
	r := rigOn(b, pgtest.DB(b, q.Count), newClock())
	r.user(b, "ann", policy.Developer)
	request := bearer(r.login(b, "ann").AccessToken)
	r.caller(b, request)
	q.Store(0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authenticate(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
	if n := q.Load(); n != 0 {
		b.Errorf("%d queries", n)
	}
}

func TestEveryEndCountsAtOnceHereAndWithinASecondElsewhere(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		how    func(t *testing.T, r *rig, admin, ann policy.Caller) error
		reason string
	}{
		"a revoked session": {func(t *testing.T, r *rig, admin, ann policy.Caller) error {
			return r.Revoke(t.Context(), ann, uuid.MustParse(ann.SessionID))
		}, "the session was revoked"},
		"a disabled user": {func(t *testing.T, r *rig, admin, ann policy.Caller) error {
			off := true
			_, err := r.UpdateUser(t.Context(), admin, ann.UserID, identity.UserPatch{Disabled: &off})
			return err
		}, "the session was revoked"},
		"a deleted user": {func(t *testing.T, r *rig, admin, ann policy.Caller) error {
			return r.DeleteUser(t.Context(), admin, ann.UserID)
		}, "no such session"},
		"a row that somebody changed in SQL": {func(t *testing.T, r *rig, admin, ann policy.Caller) error {
			r.exec(t, `UPDATE users SET disabled_at = now() WHERE id = $1`, ann.UserID)
			r.bus.Publish(stream.Signal{Topic: stream.Resync})
			return nil
		}, "its user is disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			elsewhere := r.sibling(t)
			admin := r.admin(t)
			r.user(t, "ann", policy.Developer)
			token := r.login(t, "ann").AccessToken
			ann := r.caller(t, bearer(token))
			elsewhere.caller(t, bearer(token))
			if err := end.how(t, r, admin, ann); err != nil {
				t.Fatal(err)
			}
			r.refuses(t, bearer(token), end.reason)
			_, err := r.Valid(t.Context(), ann)
			wantRefusal(t, err, end.reason)

			elsewhere.caller(t, bearer(token)) // nothing told it, and no second has passed
			r.clock.advance(time.Second)
			elsewhere.refuses(t, bearer(token), end.reason)
			_, err = elsewhere.Valid(t.Context(), ann)
			wantRefusal(t, err, end.reason)
		})
	}
}

func TestASignalEndsTheWaitForTheNextSecond(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	token := r.login(t, "ann").AccessToken
	ann := r.caller(t, bearer(token))
	elsewhere := r.sibling(t)
	elsewhere.caller(t, bearer(token))
	defer r.bus.Subscribe(func(s stream.Signal) { elsewhere.bus.Publish(s) })()
	if err := r.Revoke(t.Context(), ann, uuid.MustParse(ann.SessionID)); err != nil {
		t.Fatal(err)
	}
	elsewhere.refuses(t, bearer(token), "the session was revoked")
}

func TestRolesFollowTheirBindings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	r.user(t, "ann")
	token := r.login(t, "ann").AccessToken
	roles := func() []policy.Role { t.Helper(); return r.caller(t, bearer(token)).Roles }
	if got := roles(); !slices.Equal(got, []policy.Role{policy.ReadOnly}) {
		t.Errorf("without any binding: %v, want the default", got)
	}
	bound, err := r.Bind(t.Context(), admin, identity.Binding{Kind: identity.UserSubject, Subject: "local:ann", Role: policy.Developer})
	if err != nil {
		t.Fatal(err)
	}
	if got := roles(); !slices.Equal(got, []policy.Role{policy.Developer}) {
		t.Errorf("bound: %v", got)
	}
	web, err := r.Bind(t.Context(), admin, identity.Binding{Kind: identity.UserSubject, Subject: "local:ann", Role: policy.Admin, ProjectID: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if c := r.caller(t, bearer(token)); slices.Contains(c.Roles, policy.Admin) || c.AllProjects {
		t.Errorf("a role of a project counts outside of it: %+v", c)
	}
	if err := r.Unbind(t.Context(), admin, bound.ID); err != nil {
		t.Fatal(err)
	}
	if got := roles(); len(got) != 0 {
		t.Errorf("bound in a project alone: %v; the default roles are for who is bound nowhere", got)
	}
	if err := r.Unbind(t.Context(), admin, web.ID); err != nil {
		t.Fatal(err)
	}
	if got := roles(); !slices.Equal(got, []policy.Role{policy.ReadOnly}) {
		t.Errorf("unbound: %v", got)
	}
}

func TestAProjectsSessionIsConfinedToIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.user(t, "ann", policy.Developer)
	r.bind(t, id, policy.Admin, "web")
	o := byPassword("ann")
	o.ProjectID = "web"
	c := r.caller(t, bearer(r.open(t, o).AccessToken))
	if c.ProjectID != "web" || c.AllProjects || !slices.Equal(c.Roles, []policy.Role{policy.Admin, policy.Developer}) {
		t.Errorf("the caller is %+v", c)
	}
	r.user(t, "root", policy.Admin)
	if c := r.as(t, "root"); !c.AllProjects {
		t.Errorf("an administrator does not see all projects: %+v", c)
	}
	r.bind(t, r.user(t, "eve"), policy.Developer, "web")
	o = byPassword("eve")
	o.ProjectID = "shop"
	_, err := r.OpenSession(t.Context(), o)
	wantFault(t, err, fault.Forbidden, "local:eve has no role in project shop")
}

func TestASessionGetsNoRoleThatItsUserLacks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.user(t, "ann", policy.Developer, policy.ReadOnly)
	o := byPassword("ann")
	o.Roles = []policy.Role{policy.Admin}
	_, err := r.OpenSession(t.Context(), o)
	wantFault(t, err, fault.Forbidden, `local:ann does not have the role "admin" here`)
	if e := r.recorder.last(t); e.Action != "session.create" || e.UserID != "local:ann" || e.Layer != string(policy.LayerPermission) {
		t.Errorf("recorded %+v", e)
	}
	if n := r.count(t, `SELECT count(*) FROM sessions`); n != 0 {
		t.Errorf("%d sessions are left of what was denied", n)
	}
	o.Roles = []policy.Role{policy.ReadOnly}
	token := r.open(t, o).AccessToken
	r.bind(t, id, policy.Admin, "")
	if c := r.caller(t, bearer(token)); !slices.Equal(c.Roles, o.Roles) || c.AllProjects {
		t.Errorf("a narrowed session widens: %+v", c)
	}
	r.exec(t, `DELETE FROM role_bindings WHERE role = 'readonly'`)
	r.bus.Publish(stream.Signal{Topic: stream.AccessChanged})
	if c := r.caller(t, bearer(token)); len(c.Roles) != 0 {
		t.Errorf("a narrowed session keeps what its user lost: %+v", c)
	}
}

func TestThePolicyIsAskedBeforeASessionOpens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	r.policies.set(t, "identity:\n  providers: [github]\n")
	_, err := r.OpenSession(t.Context(), byPassword("ann"))
	wantFault(t, err, fault.Forbidden, "identity provider local is off")
	r.policies.set(t, "deniedUsers: [\"local:ann\"]\n")
	_, err = r.OpenSession(t.Context(), byPassword("ann"))
	wantFault(t, err, fault.Forbidden, "local:ann is denied")
	if e := r.recorder.last(t); e.Rule == "" || e.PolicyVersion != 7 {
		t.Errorf("recorded %+v", e)
	}
	r.policies.set(t, "enforceTrust: true\ndeviceTrust:\n  minimumLevel: verified\n")
	_, err = r.OpenSession(t.Context(), byPassword("ann"))
	wantFault(t, err, fault.Forbidden, "verified device")
}

func TestSessionsFromOtherMachinesCanBeOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *identity.Options) { o.AllowRemoteSessions = false })
	r.user(t, "ann", policy.Developer)
	_, err := r.OpenSession(t.Context(), byPassword("ann"))
	wantFault(t, err, fault.Forbidden, "deployment.allowRemoteSessions")
	o := byPassword("ann")
	o.Origin.Local = true
	r.open(t, o)
}

func TestABrowserGetsACookieAndNothingElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	o := byPassword("ann")
	o.Browser = true
	opened := r.open(t, o)
	if opened.AccessToken != "" || opened.RefreshToken != "" || opened.Cookie == "" {
		t.Fatalf("opened %+v", opened)
	}
	c := r.caller(t, identity.Request{Cookie: opened.Cookie})
	r.refuses(t, bearer(opened.Cookie), "") // it is no bearer token
	if err := r.Revoke(t.Context(), c, opened.Session.ID); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, identity.Request{Cookie: opened.Cookie}, "the session was revoked")
}

func TestWithoutTheDatabaseNobodyIsTakenForAStranger(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := rigOn(t, pool, newClock())
	r.user(t, "ann", policy.Developer)
	token := r.login(t, "ann").AccessToken
	c := r.caller(t, bearer(token))
	r.clock.advance(time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Authenticate(ctx, bearer(token)); !errors.Is(err, context.Canceled) {
		t.Errorf("authenticate: %v, want what stopped it", err)
	}
	pool.Close()
	r.clock.advance(time.Second) // what the request that was cancelled had read is good for that long
	for _, err := range []error{second(r.Authenticate(t.Context(), bearer(token))), second(r.Valid(t.Context(), c)), second(r.OpenSession(t.Context(), byPassword("ann")))} {
		if fault.CodeOf(err) == fault.Unauthenticated || err == nil {
			t.Errorf("got %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAProviderThatIsSwitchedOffEndsItsSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	token := r.login(t, "ann").AccessToken
	c := r.caller(t, bearer(token))
	r.policies.set(t, "identity:\n  providers: [github]\n")
	r.refuses(t, bearer(token), "identity provider local is off")
	_, err := r.Valid(t.Context(), c)
	wantRefusal(t, err, "identity provider local is off")
	r.policies.set(t, "identity:\n  providers: [local]\n")
	r.caller(t, bearer(token))
}

func TestNothingIsNotTheSameAsEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	ann := r.as(t, "ann")
	_, secret := r.newKey(t, ann, identity.NewKey{Scopes: []policy.Permission{}})
	if c := r.caller(t, bearer(secret)); c.Scopes == nil || policy.Authorize(c, policy.TaskRead).Allowed {
		t.Errorf("a key without any scope may read tasks: %+v", c)
	}
	o := byPassword("ann")
	o.Roles = []policy.Role{}
	if c := r.caller(t, bearer(r.open(t, o).AccessToken)); len(c.Roles) != 0 {
		t.Errorf("a session that was asked for without any role has %v", c.Roles)
	}
}
