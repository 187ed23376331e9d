package identity_test

import (
	"slices"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

func TestASessionSpeaksForItsUser(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	opened := r.login(t, "ann")
	if opened.ExpiresIn != identity.AccessTokenTTL || opened.Session.ExpiresAt != r.clock.Now().Add(identity.DefaultSessionTTL) {
		t.Errorf("opened %+v", opened)
	}
	c := r.caller(t, bearer(opened.AccessToken))
	if c.UserID != "local:ann" || c.SessionID != opened.Session.ID.String() || !slices.Equal(c.Roles, []policy.Role{policy.Developer}) ||
		c.AllProjects || c.Local || c.Address != here.Address || c.RequestID != here.RequestID {
		t.Errorf("the caller is %+v", c)
	}
	entries := r.audited(t, "session.create")
	if len(entries) != 1 || entries[0].SessionID != c.SessionID || entries[0].ResourceID != c.SessionID || entries[0].Result != "allowed" {
		t.Errorf("audited: %+v", entries)
	}
}

func TestNobodyGetsInWithoutAGoodCredential(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	opened := r.login(t, "ann")
	for reason, q := range map[string]identity.Request{
		"there is no credential":               bearer(""),
		"no provider of tokens is configured":  bearer("anything"),
		"it is not an API key":                 bearer("ccl_guess"),
		"the signature is wrong":               bearer(opened.AccessToken[:len(opened.AccessToken)-5] + "AAAAA"),
		"the cookie is not one of a session":   {Cookie: "guess"},
		"the ticket is not known, was used or": {Ticket: "guess"},
	} {
		r.refuses(t, q, reason)
	}
	for _, cr := range []identity.Credential{
		{Login: "ann", Password: "guess"}, {Login: "nobody", Password: password}, {Login: "Ann\x00", Password: password},
		{APIKey: "guess"}, {Token: "guess"}, {Login: "eve", Password: "a password to be hashed", Code: "guess"},
	} {
		_, err := r.OpenSession(t.Context(), identity.Opening{Credential: cr, Origin: here})
		wantRefusal(t, err, "")
		if e := r.recorder.last(t); e.Action != "request.authenticate" || e.Result != "denied" || e.Address != here.Address {
			t.Errorf("recorded %+v", e)
		}
	}
	for _, cr := range []identity.Credential{{}, {Login: "ann", APIKey: "both"}} {
		_, err := r.OpenSession(t.Context(), identity.Opening{Credential: cr, Origin: here})
		wantFault(t, err, fault.Invalid, "credential")
	}
}

func TestASessionEndsInTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	o := byPassword("ann")
	o.TTL = 15 * time.Minute
	opened := r.open(t, o)
	r.clock.advance(identity.AccessTokenTTL)
	r.refuses(t, bearer(opened.AccessToken), "has expired")
	next, err := r.Refresh(t.Context(), opened.RefreshToken, here)
	if err != nil {
		t.Fatal(err)
	}
	if next.ExpiresIn != 5*time.Minute {
		t.Errorf("a token outlives its session: %s", next.ExpiresIn)
	}
	c := r.caller(t, bearer(next.AccessToken))
	r.clock.advance(5 * time.Minute)
	_, err = r.Valid(t.Context(), c)
	wantRefusal(t, err, "the session has expired")
	_, err = r.Refresh(t.Context(), next.RefreshToken, here)
	wantRefusal(t, err, "the session has expired")
	o.TTL = identity.MaxSessionTTL + time.Second
	_, err = r.OpenSession(t.Context(), o)
	wantFault(t, err, fault.Invalid, "expiresSeconds must be at most 86400")
}

func TestARevokedSessionEndsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	r.user(t, "bob", policy.Developer)
	opened := r.login(t, "ann")
	ann, bob := r.caller(t, bearer(opened.AccessToken)), r.as(t, "bob")
	other := r.login(t, "ann")

	wantFault(t, r.Revoke(t.Context(), bob, opened.Session.ID), fault.NotFound, "no session")
	if e := r.recorder.last(t); e.Action != "session.revoke" || e.UserID != "local:bob" || e.Result != "denied" {
		t.Errorf("recorded %+v", e)
	}
	if _, err := r.Valid(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	if err := r.Revoke(t.Context(), ann, opened.Session.ID); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, bearer(opened.AccessToken), "the session was revoked")
	_, err := r.Valid(t.Context(), ann)
	wantRefusal(t, err, "the session was revoked")
	_, err = r.Refresh(t.Context(), opened.RefreshToken, here)
	wantRefusal(t, err, "the session was revoked")
	r.caller(t, bearer(other.AccessToken))

	admin := r.admin(t)
	if err := r.Revoke(t.Context(), admin, other.Session.ID); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, bearer(other.AccessToken), "the session was revoked")
	got, err := r.Session(t.Context(), admin, other.Session.ID)
	if err != nil || got.RevokedBy != "local:root" || got.RevokedAt == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheDocumentBoundsHowLongASessionLives(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	lives := func(ttl time.Duration) time.Duration {
		o := byPassword("ann")
		o.TTL = ttl
		s := r.open(t, o).Session
		return s.ExpiresAt.Sub(s.CreatedAt)
	}
	if got := lives(20 * time.Hour); got != 20*time.Hour {
		t.Errorf("without a document it lives for %v", got)
	}
	r.policies.set(t, "identity:\n  sessions:\n    maxHours: 2\n")
	for _, asked := range []time.Duration{0, time.Hour, 20 * time.Hour} {
		want := 2 * time.Hour
		if asked == time.Hour {
			want = time.Hour
		}
		if got := lives(asked); got != want {
			t.Errorf("asked for %v it lives for %v, want %v", asked, got, want)
		}
	}
}
