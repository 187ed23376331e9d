package identity_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
)

func TestWhatCannotBeAuditedDoesNotHappen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	id := r.user(t, "ann", policy.Developer)
	own := key(t)
	opened := r.login(t, "ann")
	ann := r.caller(t, bearer(opened.AccessToken))
	d := r.register(t, ann, own)
	k, secret := r.newKey(t, ann, identity.NewKey{})
	code := r.code(t, admin, identity.Enrolment{})
	proof, other := r.possession(t, ann, own), key(t)
	otherProof := r.possession(t, ann, other)
	session := uuid.MustParse(ann.SessionID)
	bound, _, err := r.Bindings(t.Context(), admin, identity.BindingFilter{Subject: id}, last, 1)
	if err != nil {
		t.Fatal(err)
	}
	state := func() (text string) {
		t.Helper()
		if err := r.pool.QueryRow(t.Context(), `SELECT md5(string_agg(t, E'\n' ORDER BY t)) FROM (
			SELECT users::text FROM users UNION ALL SELECT role_bindings::text FROM role_bindings UNION ALL
			SELECT api_keys::text FROM api_keys UNION ALL SELECT devices::text FROM devices UNION ALL
			SELECT sessions::text FROM sessions UNION ALL SELECT refresh_tokens::text FROM refresh_tokens UNION ALL
			SELECT enrolment_codes::text FROM enrolment_codes UNION ALL SELECT device_challenges::text FROM device_challenges UNION ALL
			SELECT used_tokens::text FROM used_tokens UNION ALL SELECT session_memory::text FROM session_memory UNION ALL
			SELECT n::text FROM access_generation) AS all_rows (t)`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	r.noAudit(t)
	before := state()
	off, ctx := true, t.Context()
	for name, err := range map[string]error{
		"open":          second(r.OpenSession(ctx, byPassword("ann"))),
		"use a key":     second(r.OpenSession(ctx, identity.Opening{Credential: identity.Credential{APIKey: secret}, Origin: here})),
		"use directly":  second(r.Authenticate(ctx, bearer(secret))),
		"refresh":       second(r.Refresh(ctx, opened.RefreshToken, here)),
		"revoke":        r.Revoke(ctx, ann, session),
		"create user":   second(r.CreateUser(ctx, admin, identity.NewUser{Login: "bob", Password: goodPassword})),
		"update user":   second(r.UpdateUser(ctx, admin, id, identity.UserPatch{Disabled: &off})),
		"password":      r.ChangePassword(ctx, ann, password, goodPassword),
		"delete user":   r.DeleteUser(ctx, admin, id),
		"bind":          second(r.Bind(ctx, admin, identity.Binding{Kind: identity.UserSubject, Subject: id, Role: policy.CI})),
		"unbind":        r.Unbind(ctx, admin, bound[0].ID),
		"create key":    third(r.CreateKey(ctx, ann, identity.NewKey{Name: "k", ExpiresAt: r.clock.Now().Add(time.Hour)})),
		"revoke key":    r.RevokeKey(ctx, ann, k.ID),
		"enrol":         third(r.CreateEnrolment(ctx, admin, identity.Enrolment{})),
		"register":      second(r.Register(ctx, ann, identity.NewDevice{Name: "n", JWK: other.Key().JWK(), Possession: otherProof})),
		"verify":        second(r.Verify(ctx, ann, d.ID, code, proof)),
		"trust":         second(r.SetTrust(ctx, admin, d.ID, policy.Trusted)),
		"rename":        second(r.RenameDevice(ctx, ann, d.ID, "other")),
		"revoke device": r.RevokeDevice(ctx, ann, d.ID),
		"remember":      second(r.PutMemory(ctx, ann, session, "k", json.RawMessage(`1`), 0)),
	} {
		if fault.CodeOf(err) != fault.AuditUnavailable {
			t.Errorf("%s: %v, want that the audit log takes no entry", name, err)
		}
	}
	if state() != before {
		t.Error("something has changed")
	}
	r.caller(t, bearer(opened.AccessToken))
}

func third[A, B any](_ A, _ B, err error) error { return err }

func TestAChangeWhoseSignalIsLostReachesOpenStreamsWithinASecond(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	elsewhere := r.sibling(t)
	r.user(t, "ann", policy.Developer)
	token := r.login(t, "ann").AccessToken
	ann := r.caller(t, bearer(token))
	var told atomic.Int64
	defer elsewhere.bus.Subscribe(func(s stream.Signal) {
		if s.Topic == stream.AccessChanged {
			told.Add(1)
		}
	})()
	run(t, elsewhere)
	if _, err := elsewhere.Valid(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return told.Load() > 0 }) // the watch begins
	if _, err := elsewhere.Valid(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	heard := told.Load()
	if err := r.Revoke(t.Context(), ann, uuid.MustParse(ann.SessionID)); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(time.Second)
	waitFor(t, func() bool { return told.Load() > heard })
	_, err := elsewhere.Valid(t.Context(), ann)
	wantRefusal(t, err, "the session was revoked")
}

func TestUseIsNotedAndWhatHasExpiredIsRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	ann := r.as(t, "ann")
	own := key(t)
	d := r.register(t, ann, own)
	k, secret := r.newKey(t, ann, identity.NewKey{ExpiresAt: r.clock.Now().Add(time.Hour)})
	r.caller(t, bearer(secret))
	o := byPassword("ann")
	o.Origin = r.proves(t, own, o.Origin)
	r.caller(t, r.signs(t, own, bearer(r.open(t, o).AccessToken)))
	if err := identity.NoteUse(r.Service, t.Context()); err != nil {
		t.Fatal(err)
	}
	keys, _, err := r.Keys(t.Context(), ann, identity.KeyFilter{}, "", 10)
	if err != nil || keys[0].ID != k.ID || keys[0].LastUsedAt == nil || !keys[0].LastUsedAt.Equal(r.clock.Now()) {
		t.Errorf("%+v, %v", keys, err)
	}
	if got, err := r.Device(t.Context(), ann, d.ID); err != nil || got.LastSeenAt == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := r.Session(t.Context(), ann, uuid.MustParse(ann.SessionID)); err != nil || got.LastSeenAt == nil {
		t.Errorf("%+v, %v", got, err)
	}

	if _, _, err := r.Ticket(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.EnsureBootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.possession(t, ann, own)
	r.clock.advance(25 * time.Hour)
	if err := identity.Tidy(r.Service, t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"stream_tickets", "enrolment_codes", "device_challenges", "used_tokens", "refresh_tokens"} {
		if n := r.count(t, `SELECT count(*) FROM `+table); n != 0 {
			t.Errorf("%d %s are left", n, table)
		}
	}
	if n := r.count(t, `SELECT count(*) FROM sessions`); n != 3 {
		t.Errorf("%d sessions: what has ended is listed for a while, want 3", n)
	}
	r.clock.advance(30 * 24 * time.Hour)
	if err := identity.Tidy(r.Service, t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.count(t, `SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM api_keys)`); n != 0 {
		t.Errorf("%d sessions and keys are left", n)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestTheAuditLogIsToldOfEveryEntry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	heard := 0
	r.bus.Subscribe(func(stream.Signal) { heard++ })
	for what, change := range map[string]func() error{
		"an account": func() error {
			_, err := r.CreateUser(t.Context(), admin, identity.NewUser{Login: "ann", Password: "correct horse battery staple"})
			return err
		},
		"a code": func() error {
			_, _, err := r.CreateEnrolment(t.Context(), admin, identity.Enrolment{})
			return err
		},
		"a session": func() error {
			_, err := r.OpenSession(t.Context(), byPassword("root"))
			return err
		},
	} {
		before := heard
		if err := change(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if heard == before {
			t.Errorf("nobody hears of the entry of %s", what)
		}
	}
}
