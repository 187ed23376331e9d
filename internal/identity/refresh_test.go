package identity_test

import (
	"testing"

	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

func TestARefreshTokenIsGoodOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	first := r.login(t, "ann")
	second, err := r.Refresh(t.Context(), first.RefreshToken, here)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken || second.Session.ID != first.Session.ID {
		t.Errorf("refreshed: %+v", second)
	}
	r.caller(t, bearer(second.AccessToken))
	if entries := r.audited(t, "session.refresh"); len(entries) != 1 || entries[0].SessionID != first.Session.ID.String() {
		t.Errorf("audited: %+v", entries)
	}

	_, err = r.Refresh(t.Context(), first.RefreshToken, here)
	wantRefusal(t, err, "the refresh token was used before")
	r.refuses(t, bearer(second.AccessToken), "the session was revoked")
	_, err = r.Refresh(t.Context(), second.RefreshToken, here)
	wantRefusal(t, err, "the session was revoked")
	if entries := r.audited(t, "session.revoke"); len(entries) != 1 || entries[0].ResourceID != first.Session.ID.String() {
		t.Errorf("audited: %+v", entries)
	}
}

func TestOfManyWhoRefreshAtOnceOneDoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	elsewhere := r.sibling(t)
	r.user(t, "ann", policy.Developer)
	opened := r.login(t, "ann")
	errs := together(4, func(i int) error {
		_, err := []*rig{r, elsewhere}[i%2].Refresh(t.Context(), opened.RefreshToken, here)
		return err
	})
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of 4 got tokens: %v", n, errs)
	}
	if n := r.count(t, `SELECT count(*) FROM sessions WHERE revoked_at IS NULL`); n != 0 {
		t.Error("the session goes on although its token came more than once")
	}
}

func TestABoundSessionIsRefreshedByItsKeyAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	own, other := key(t), key(t)
	o := byPassword("ann")
	o.Origin = r.proves(t, own, o.Origin)
	opened := r.open(t, o)
	for _, from := range []identity.Origin{here, r.proves(t, other, here)} {
		_, err := r.Refresh(t.Context(), opened.RefreshToken, from)
		wantRefusal(t, err, "the session wants a proof by its key")
	}
	proof := r.proves(t, own, here)
	next, err := r.Refresh(t.Context(), opened.RefreshToken, proof)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Refresh(t.Context(), next.RefreshToken, proof)
	wantRefusal(t, err, "used before and can be used once")
	if _, err := r.Refresh(t.Context(), next.RefreshToken, r.proves(t, own, here)); err != nil {
		t.Errorf("a refused proof has used up the token: %v", err)
	}
}

func TestARefreshTokenIsRefusedToThoseWhoHaveNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	opened := r.login(t, "ann")
	for _, token := range []string{"", "guess", opened.AccessToken, opened.RefreshToken[:len(opened.RefreshToken)-1] + "A"} {
		if token == opened.RefreshToken {
			continue
		}
		_, err := r.Refresh(t.Context(), token, here)
		wantRefusal(t, err, "there is no such refresh token")
	}
}
