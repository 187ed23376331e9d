package identity_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

func TestWhatWasAskedForGoesOnAsLongAsItsSubmitterMayAskForIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := r.admin(t)
	r.user(t, "ann", policy.Developer)
	session := func() policy.Caller {
		return r.caller(t, bearer(r.login(t, "ann").AccessToken))
	}

	loggedOut, expired, thrownOut := session(), session(), session()
	if err := r.Revoke(t.Context(), loggedOut, uuid.MustParse(loggedOut.SessionID)); err != nil {
		t.Fatal(err)
	}
	if err := r.Revoke(t.Context(), admin, uuid.MustParse(thrownOut.SessionID)); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(identity.DefaultSessionTTL + time.Hour)
	for what, c := range map[string]policy.Caller{"logged out": loggedOut, "expired": expired} {
		got, err := r.Submitter(t.Context(), c.SessionID)
		if err != nil || got.UserID != "local:ann" || len(got.Roles) != 1 || got.Roles[0] != policy.Developer {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	for what, id := range map[string]string{"thrown out": thrownOut.SessionID, "unknown": uuid.NewString(), "no id": "x"} {
		if _, err := r.Submitter(t.Context(), id); fault.CodeOf(err) != fault.Unauthenticated {
			t.Errorf("%s: %v, want unauthenticated", what, err)
		}
	}
	disabled := true
	if _, err := r.UpdateUser(t.Context(), r.as(t, "root"), "local:ann", identity.UserPatch{Disabled: &disabled}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Submitter(t.Context(), loggedOut.SessionID); fault.CodeOf(err) != fault.Unauthenticated {
		t.Errorf("of a disabled user: %v, want unauthenticated", err)
	}
}
