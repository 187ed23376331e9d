package identity_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/policy"
)

// possession signs a challenge that the caller is given.
func (r *rig) possession(t testing.TB, c policy.Caller, s *dpop.Signer) identity.Possession {
	t.Helper()
	challenge, _, err := r.Challenge(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := s.SignChallenge(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return identity.Possession{Challenge: challenge, Signature: signature}
}

func (r *rig) register(t testing.TB, c policy.Caller, s *dpop.Signer) identity.Device {
	t.Helper()
	d, err := r.Register(t.Context(), c, identity.NewDevice{Name: "laptop", JWK: s.Key().JWK(), Possession: r.possession(t, c, s)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (r *rig) code(t testing.TB, admin policy.Caller, n identity.Enrolment) string {
	t.Helper()
	code, _, err := r.CreateEnrolment(t.Context(), admin, n)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func TestADeviceRisesByACodeAndThenByAnAdministrator(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	r.user(t, "ann", policy.Developer)
	own := key(t)
	o := byPassword("ann")
	o.Origin = r.proves(t, own, o.Origin)
	token := r.open(t, o).AccessToken
	trust := func() policy.TrustLevel {
		t.Helper()
		return r.caller(t, r.signs(t, own, bearer(token))).Trust
	}
	c := r.caller(t, r.signs(t, own, bearer(token)))
	if c.DeviceID != "" {
		t.Fatalf("a device before there is one: %+v", c)
	}
	d := r.register(t, c, own)
	if c = r.caller(t, r.signs(t, own, bearer(token))); c.DeviceID != d.ID.String() || c.Trust != policy.Untrusted {
		t.Errorf("registered: %+v", c)
	}
	_, err := r.SetTrust(t.Context(), c, d.ID, policy.Trusted)
	wantFault(t, err, fault.Forbidden, "admin:all")
	if _, err := r.Verify(t.Context(), c, d.ID, r.code(t, admin, identity.Enrolment{UserID: c.UserID}), r.possession(t, c, own)); err != nil {
		t.Fatal(err)
	}
	if trust() != policy.Verified {
		t.Errorf("verified: %s", trust())
	}
	if _, err := r.SetTrust(t.Context(), admin, d.ID, policy.Trusted); err != nil {
		t.Fatal(err)
	}
	if trust() != policy.Trusted {
		t.Errorf("trusted: %s", trust())
	}
	got, err := r.SetTrust(t.Context(), admin, d.ID, policy.Untrusted)
	if err != nil || got.TrustedAt != nil || got.VerifiedAt != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if trust() != policy.Untrusted {
		t.Errorf("taken back: %s", trust())
	}
}

func TestAnEnrolmentCodeIsGoodOnceAndForWhomItIs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	r.user(t, "ann", policy.Developer)
	r.user(t, "bob", policy.Developer)
	ann, bob := r.as(t, "ann"), r.as(t, "bob")
	_, _, err := r.CreateEnrolment(t.Context(), ann, identity.Enrolment{})
	wantFault(t, err, fault.Forbidden, "admin:all")

	signer := key(t)
	d := r.register(t, bob, signer)
	verify := func(c policy.Caller, code string, p identity.Possession) error {
		_, err := r.Verify(t.Context(), c, d.ID, code, p)
		return err
	}
	forAnn := r.code(t, admin, identity.Enrolment{UserID: ann.UserID})
	wantFault(t, verify(bob, forAnn, r.possession(t, bob, signer)), fault.Forbidden, "the code is not known")
	code := r.code(t, admin, identity.Enrolment{})
	wantFault(t, verify(ann, code, r.possession(t, ann, signer)), fault.NotFound, "no device")
	wantFault(t, verify(admin, code, r.possession(t, admin, signer)), fault.Forbidden, "another user's")
	wantFault(t, verify(bob, code, r.possession(t, bob, key(t))), fault.Forbidden, "the challenge is not signed")
	wantFault(t, verify(bob, code, r.possession(t, ann, signer)), fault.Forbidden, "the challenge is not signed")
	p := r.possession(t, bob, signer)
	errs := together(3, func(int) error { return verify(bob, code, p) })
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of 3 used the code: %v", n, errs)
	}
	wantFault(t, verify(bob, code, r.possession(t, bob, signer)), fault.Forbidden, "the code is not known")

	with := identity.NewDevice{Name: "phone", JWK: key(t).Key().JWK(), Code: code}
	phone := key(t)
	with.JWK, with.Possession = phone.Key().JWK(), r.possession(t, bob, phone)
	_, err = r.Register(t.Context(), bob, with)
	wantFault(t, err, fault.Forbidden, "the code is not known")
	if n := r.count(t, `SELECT count(*) FROM devices`); n != 1 {
		t.Errorf("%d devices, one of them registered by a bad code", n)
	}
	with.Code, with.Possession = r.code(t, admin, identity.Enrolment{}), r.possession(t, bob, phone)
	got, err := r.Register(t.Context(), bob, with)
	if err != nil || got.Trust != policy.Verified || got.VerifiedBy != "local:root" {
		t.Errorf("%+v, %v", got, err)
	}
}

// onlyVerified lets nobody in whose device is not verified.
const onlyVerified = "enforceTrust: true\ndeviceTrust: {minimumLevel: verified}\n"

func TestWhereDevicesMustBeKnownTheFirstOneComesWithTheSession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	r.user(t, "ann", policy.Developer)
	r.user(t, "bob", policy.Developer)
	code := r.code(t, admin, identity.Enrolment{UserID: "local:ann"})
	r.policies.set(t, onlyVerified)
	laptop := key(t)
	opening := func(e identity.DeviceEnrolment) identity.Opening {
		o := byPassword("ann")
		o.Origin, o.Enrol = r.proves(t, laptop, o.Origin), e
		return o
	}
	refused := func(o identity.Opening, code fault.Code, message string) {
		t.Helper()
		_, err := r.OpenSession(t.Context(), o)
		wantFault(t, err, code, message)
		if n := r.count(t, `SELECT count(*) FROM devices`); n != 0 {
			t.Errorf("%d devices came of a refused session", n)
		}
	}
	unproven := byPassword("ann")
	unproven.Enrol.Name = "laptop"
	refused(unproven, fault.Invalid, "needs a proof")
	refused(opening(identity.DeviceEnrolment{}), fault.Forbidden, "device")
	refused(opening(identity.DeviceEnrolment{Name: "laptop"}), fault.Forbidden, "untrusted")
	refused(opening(identity.DeviceEnrolment{Name: "laptop", Code: "cce_made-up"}), fault.Forbidden, "the code is not known")
	refused(opening(identity.DeviceEnrolment{Code: code}), fault.Invalid, "deviceName")
	stolen := opening(identity.DeviceEnrolment{Name: "laptop", Code: code})
	stolen.Credential.Login = "bob"
	refused(stolen, fault.Forbidden, "the code is not known")
	stolen = opening(identity.DeviceEnrolment{Name: "laptop", Code: code})
	stolen.Credential.Password = "a guess of the password"
	refused(stolen, fault.Unauthenticated, "not accepted")

	enrolment := identity.DeviceEnrolment{Name: "laptop", Code: code}
	tries := []identity.Opening{opening(enrolment), opening(enrolment), opening(enrolment)}
	opened := make([]identity.Opened, len(tries))
	errs := together(len(tries), func(i int) (err error) {
		opened[i], err = r.OpenSession(t.Context(), tries[i])
		return err
	})
	if n := succeeded(errs); n != 1 {
		t.Fatalf("%d of 3 used the code: %v", n, errs)
	}
	for i, err := range errs {
		if err == nil {
			c := r.caller(t, r.signs(t, laptop, bearer(opened[i].AccessToken)))
			if c.DeviceID != opened[i].Session.DeviceID.String() || c.Trust != policy.Verified {
				t.Errorf("the session's device: %+v", c)
			}
		}
	}
	for _, action := range []string{"device.enroll", "device.verify", "session.create"} {
		if rows := r.audited(t, action); len(rows) == 0 {
			t.Errorf("%s is not in the audit log", action)
		}
	}
	r.open(t, opening(identity.DeviceEnrolment{})) // from now on its key is enough
}

func TestTheFirstAdministratorsDeviceIsVerifiedByTheOneTimeCode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.policies.set(t, onlyVerified)
	code, needed, err := r.EnsureBootstrap(t.Context())
	if err != nil || !needed {
		t.Fatal(needed, err)
	}
	laptop := key(t)
	o := identity.Opening{
		Credential: identity.Credential{Login: "root", Password: "correct horse battery staple", Code: code},
		Origin:     r.proves(t, laptop, here), Enrol: identity.DeviceEnrolment{Name: "laptop"},
	}
	token := r.open(t, o).AccessToken
	if c := r.caller(t, r.signs(t, laptop, bearer(token))); c.Trust != policy.Verified {
		t.Errorf("trust is %s", c.Trust)
	}
}

func TestADeviceIsBelievedByItsKeyAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	r.user(t, "eve", policy.Developer)
	own, other := key(t), key(t)
	d := r.register(t, r.as(t, "ann"), own)
	open := func(login, device string, s *dpop.Signer) error {
		o := byPassword(login)
		o.DeviceID = device
		if s != nil {
			o.Origin = r.proves(t, s, o.Origin)
		}
		_, err := r.OpenSession(t.Context(), o)
		return err
	}
	wantFault(t, open("ann", d.ID.String(), nil), fault.Forbidden, "a device is believed only with a proof by its key")
	wantFault(t, open("ann", d.ID.String(), other), fault.Forbidden, "the proof is not by the key of device")
	wantFault(t, open("ann", "d'; DROP", own), fault.Forbidden, "the proof is not by the key of device")
	wantFault(t, open("eve", "", own), fault.Forbidden, "another user's device")
	if err := open("ann", d.ID.String(), own); err != nil {
		t.Error(err)
	}
	o := byPassword("ann")
	o.Origin = r.proves(t, own, o.Origin)
	r.open(t, o)
	_, err := r.OpenSession(t.Context(), o)
	wantRefusal(t, err, "used before")
	o.Origin = r.proves(t, own, here)
	errs := together(3, func(int) error { return second(r.OpenSession(t.Context(), o)) })
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of 3 opened a session by one proof: %v", n, errs)
	}

	_, err = r.Register(t.Context(), r.as(t, "eve"), identity.NewDevice{
		Name: "mine", JWK: own.Key().JWK(), Possession: r.possession(t, r.as(t, "eve"), other),
	})
	wantFault(t, err, fault.Forbidden, "the challenge is not signed")
	c := r.as(t, "eve")
	_, err = r.Register(t.Context(), c, identity.NewDevice{Name: "mine", JWK: own.Key().JWK(), Possession: r.possession(t, c, own)})
	wantFault(t, err, fault.Conflict, "that of a device already")
	_, err = r.Register(t.Context(), c, identity.NewDevice{Name: "weak", JWK: json.RawMessage(
		`{"kty":"OKP","crv":"Ed25519","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)})
	wantFault(t, err, fault.Invalid, "low order")
}

func TestABoundSessionWantsAProofWithEveryRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	own := key(t)
	o := byPassword("ann")
	o.Origin = r.proves(t, own, o.Origin)
	token := r.open(t, o).AccessToken
	r.refuses(t, bearer(token), "the session wants a proof by its key")
	r.refuses(t, r.signs(t, key(t), bearer(token)), "another key")
	signed := r.signs(t, own, bearer(token))
	r.caller(t, signed)
	r.refuses(t, signed, "the proof was used before")
	elsewhere := r.signs(t, own, bearer(token))
	elsewhere.URL = publicURL + "/v1/audit"
	r.refuses(t, elsewhere, "htu is another URL")
	old := r.signs(t, own, bearer(token))
	r.clock.advance(2 * dpop.MaxAge)
	r.refuses(t, old, "iat is too long ago")
}

func TestARevokedDeviceEndsItsSessionsForEver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	r.user(t, "ann", policy.Developer)
	r.user(t, "bob", policy.Developer)
	own := key(t)
	ann := r.as(t, "ann")
	d := r.register(t, ann, own)
	o := byPassword("ann")
	o.Origin = r.proves(t, own, o.Origin)
	opened := r.open(t, o)
	wantFault(t, r.RevokeDevice(t.Context(), r.as(t, "bob"), d.ID), fault.NotFound, "no device")
	wantFault(t, r.RevokeDevice(t.Context(), admin, uuid.New()), fault.NotFound, "no device")
	if err := r.RevokeDevice(t.Context(), admin, d.ID); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, r.signs(t, own, bearer(opened.AccessToken)), "the session was revoked")
	o.Origin = r.proves(t, own, here)
	_, err := r.OpenSession(t.Context(), o)
	wantFault(t, err, fault.Forbidden, "was revoked")
	_, err = r.SetTrust(t.Context(), admin, d.ID, policy.Trusted)
	wantFault(t, err, fault.Conflict, "was revoked")
	if got, more, err := r.Devices(t.Context(), ann, identity.DeviceFilter{}, uuid.Max, 10); err != nil || more || len(got) != 0 {
		t.Errorf("listed: %v, %t, %v", got, more, err)
	}
	if got, _, err := r.Devices(t.Context(), ann, identity.DeviceFilter{Revoked: true}, uuid.Max, 10); err != nil || len(got) != 1 || got[0].RevokedBy != "local:root" {
		t.Errorf("listed: %v, %v", got, err)
	}
}
