package identity_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
)

// signingKey is the key that the server signs with.
func (r *rig) signingKey(t testing.TB) token.Key {
	t.Helper()
	var text string
	if err := r.pool.QueryRow(t.Context(), `SELECT private_key FROM signing_keys WHERE retired_at IS NULL`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	k, err := token.ParseKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestATokenSaysNoMoreThanItsSession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.ReadOnly)
	r.user(t, "eve", policy.Developer)
	opened := r.login(t, "ann")
	k, now := r.signingKey(t), r.clock.Now()
	forge := func(typ string, change jwt.MapClaims) identity.Request {
		t.Helper()
		claims := jwt.MapClaims{
			"iss": publicURL, "aud": publicURL, "sub": "local:ann", "sid": opened.Session.ID.String(), "jti": "1",
			"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		}
		for name, value := range change {
			claims[name] = value
			if value == nil {
				delete(claims, name)
			}
		}
		made := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
		made.Header["typ"], made.Header["kid"] = typ, k.ID
		signed, err := made.SignedString(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		return bearer(signed)
	}
	c := r.caller(t, forge("at+jwt", jwt.MapClaims{"roles": []string{"admin"}, "scope": "admin:all", "prj": "web", "effectivePermissions": []string{"admin:all"}}))
	if !slices.Equal(c.Roles, []policy.Role{policy.ReadOnly}) || c.ProjectID != "" || c.AllProjects {
		t.Errorf("what the token says of roles is believed: %+v", c)
	}
	for reason, q := range map[string]identity.Request{
		"iat or exp is missing":           forge("at+jwt", jwt.MapClaims{"exp": nil}),
		"aud is another audience":         forge("at+jwt", jwt.MapClaims{"aud": nil}),
		"typ is not at+jwt":               forge("JWT", nil),
		"it lives longer than 10m0s":      forge("at+jwt", jwt.MapClaims{"exp": now.Add(time.Hour).Unix()}),
		"no such session":                 forge("at+jwt", jwt.MapClaims{"sid": "guess"}),
		"names another user than its ses": forge("at+jwt", jwt.MapClaims{"sub": "local:eve"}),
	} {
		r.refuses(t, q, reason)
	}
	r.refuses(t, forge("at+jwt", jwt.MapClaims{"sid": "018f0000-0000-7000-8000-000000000000"}), "no such session")
}

func TestServersShareTheKeyThatSigns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	elsewhere := r.sibling(t)
	r.user(t, "ann", policy.Developer)
	tokens := make([]string, 4)
	errs := together(len(tokens), func(i int) error {
		opened, err := []*rig{r, elsewhere}[i%2].OpenSession(t.Context(), byPassword("ann"))
		tokens[i] = opened.AccessToken
		return err
	})
	if succeeded(errs) != len(tokens) {
		t.Fatal(errs)
	}
	for _, text := range tokens {
		r.caller(t, bearer(text))
		elsewhere.caller(t, bearer(text))
	}
	if n := r.count(t, `SELECT count(*) FROM signing_keys`); n != 1 {
		t.Errorf("%d keys", n)
	}
}

func TestASigningKeyIsChangedAndTheOldOneVerifiesForAWhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	r.login(t, "ann")
	r.clock.advance(30*24*time.Hour - time.Minute)
	late := r.login(t, "ann").AccessToken
	old := r.signingKey(t)
	r.clock.advance(time.Minute)
	fresh := r.sibling(t)
	run(t, fresh)
	waitFor(t, func() bool { return r.count(t, `SELECT count(*) FROM signing_keys`) == 2 })
	if next := r.signingKey(t); next.ID == old.ID {
		t.Fatal("the old key signs")
	}
	fresh.caller(t, bearer(late))
	r.caller(t, bearer(fresh.login(t, "ann").AccessToken)) // by a key that this server has not heard of

	keys := func() (ids []string) {
		t.Helper()
		text, err := fresh.JWKS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal(text, &set); err != nil {
			t.Fatal(err)
		}
		for _, k := range set.Keys {
			if k["d"] != "" {
				t.Error("a private key is public")
			}
			ids = append(ids, k["kid"])
		}
		return ids
	}
	if got := keys(); !slices.Contains(got, old.ID) || len(got) != 2 {
		t.Errorf("public keys: %v", got)
	}
	r.clock.advance(time.Hour)
	fresh = r.sibling(t)
	run(t, fresh)
	waitFor(t, func() bool { return r.count(t, `SELECT count(*) FROM signing_keys`) == 1 })
	if got := keys(); slices.Contains(got, old.ID) {
		t.Errorf("public keys: %v", got)
	}
}

// run keeps a service going until the test ends.
func run(t testing.TB, r *rig) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// waitFor fails if what is to come does not come soon.
func waitFor(t testing.TB, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !come(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not come")
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestTheSigningKeyCanBeAFiles(t *testing.T) {
	t.Parallel()
	k, err := token.NewKey(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *identity.Options) { o.SigningKeyFile = path })
	r.user(t, "ann", policy.Developer)
	r.caller(t, bearer(r.login(t, "ann").AccessToken))
	if n := r.count(t, `SELECT count(*) FROM signing_keys`); n != 0 {
		t.Errorf("%d keys in the database", n)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.New(r.pool, identity.Options{PublicURL: publicURL, Bus: r.bus, SigningKeyFile: path}); err == nil {
		t.Error("a key that others can read is used")
	}
}
