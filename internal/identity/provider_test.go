package identity_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
	"github.com/coderclaw/runtime/internal/policy"
)

// corp is a rig with an OpenID Connect provider, and GitHub Actions.
type corp struct {
	*rig
	issuer, actions *providertest.Issuer
}

func newCorp(t *testing.T) corp {
	t.Helper()
	c := corp{newRig(t), providertest.NewIssuer(t), providertest.NewActions(t)}
	c.issuer.Now, c.actions.Now = c.clock.Now, c.clock.Now
	set, err := provider.New(provider.Config{
		OIDC: []provider.OIDC{{
			Name: "corp", Issuer: c.issuer.URL, ClientID: providertest.ClientID, ClientSecret: providertest.ClientSecret,
			GroupsClaim: "groups", GroupRoles: map[string][]string{"dev": {"developer"}},
		}},
		GitHubActions: []provider.Rule{{
			Project: "web", RepositoryID: 74, RepositoryOwnerID: 65, Events: []string{"push"}, Refs: []string{"refs/heads/main"},
		}},
		ActionsIssuer: c.actions.URL, PublicURL: publicURL,
	}, provider.Options{Now: c.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	c.UseProviders(set)
	return c
}

func (c corp) token(groups ...string) string {
	now := c.clock.Now()
	return c.issuer.Token(providertest.Claims{
		"iss": c.issuer.URL, "sub": "7", "aud": providertest.ClientID, "groups": groups,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": strings.Join(groups, " "),
	})
}

func byToken(token string) identity.Opening {
	return identity.Opening{Credential: identity.Credential{Token: token}, Origin: here}
}

func TestATokenOfAProviderSpeaksForItsUser(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	token := c.token("dev")
	direct := c.caller(t, bearer(token))
	if direct.UserID != "oidc:corp:7" || direct.SessionID == "" || !slices.Equal(direct.Roles, []policy.Role{policy.Developer}) {
		t.Errorf("the caller is %+v", direct)
	}
	if again := c.caller(t, bearer(token)); again.SessionID != direct.SessionID {
		t.Error("each request opens a session")
	}
	opened := c.open(t, byToken(token))
	if opened.Session.Method != "corp" || opened.Session.Direct {
		t.Errorf("opened %+v", opened.Session)
	}
	c.clock.advance(61*time.Minute + time.Second)
	c.refuses(t, bearer(token), "expired")
	if _, err := c.Refresh(t.Context(), opened.RefreshToken, here); err != nil {
		t.Errorf("the session ends with the token that opened it: %v", err)
	}
}

func TestAKeyThatIsWithdrawnVouchesForNoTokenAnyMore(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	now := c.clock.Now()
	token := c.issuer.Token(providertest.Claims{
		"iss": c.issuer.URL, "sub": "7", "aud": providertest.ClientID, "iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	})
	first := c.caller(t, bearer(token))
	c.clock.advance(time.Minute)
	if again := c.caller(t, bearer(token)); again.SessionID != first.SessionID {
		t.Error("another look at the token opens another session")
	}
	c.issuer.Rotate(t, "k2")
	c.clock.advance(17 * time.Minute) // the keys are looked at again after 15 minutes, the token after one
	c.refuses(t, bearer(token), "k1")
}

func TestGroupsGiveTheRolesBoundToThem(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	admin := c.admin(t)
	if _, err := c.Bind(t.Context(), admin, identity.Binding{Kind: identity.GroupSubject, Subject: "oidc:corp:ops", Role: policy.Admin}); err != nil {
		t.Fatal(err)
	}
	first := c.open(t, byToken(c.token("ops"))).AccessToken
	if got := c.caller(t, bearer(first)).Roles; !slices.Equal(got, []policy.Role{policy.Admin}) {
		t.Errorf("in the group: %v", got)
	}
	c.open(t, byToken(c.token("others"))) // has left the group, as the provider now says
	if got := c.caller(t, bearer(first)).Roles; slices.Contains(got, policy.Admin) {
		t.Errorf("left the group: %v", got)
	}
}

func TestWhatAProviderSaidLastCountsWhateverIsShownLast(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	admin := c.admin(t)
	if _, err := c.Bind(t.Context(), admin, identity.Binding{Kind: identity.GroupSubject, Subject: "oidc:corp:dev", Role: policy.Admin}); err != nil {
		t.Fatal(err)
	}
	defaults := []policy.Role{"readonly"}
	shown, kept := c.token("dev"), c.token("dev", "ops")
	before := c.open(t, byToken(shown)).AccessToken
	c.clock.advance(time.Second)
	c.open(t, byToken(c.token("others")))
	after := c.open(t, byToken(kept)).AccessToken
	for name, token := range map[string]string{"opened before": before, "opened after by an older token": after, "the older token itself": kept} {
		if got := c.caller(t, bearer(token)).Roles; !slices.Equal(got, defaults) {
			t.Errorf("%s: %v, which the provider has taken away", name, got)
		}
	}
	if n := c.count(t, `SELECT count(*) FROM users WHERE id = 'oidc:corp:7' AND last_login_at > stated_at - interval '1 second' AND groups = '{oidc:corp:others}'`); n != 1 {
		t.Error("an older token has changed the user")
	}

	// At once, and in whatever order.
	var tokens []string
	for range 8 {
		c.clock.advance(time.Second)
		tokens = append(tokens, c.token("dev"))
	}
	c.clock.advance(time.Second)
	tokens = append(tokens, c.token("ops"))
	for _, err := range together(len(tokens), func(i int) error { return second(c.OpenSession(t.Context(), byToken(tokens[i]))) }) {
		if err != nil {
			t.Error(err)
		}
	}
	if got := c.caller(t, bearer(before)).Roles; !slices.Equal(got, defaults) {
		t.Errorf("after many logins at once: %v", got)
	}
}

func TestAKeyHasOfTheProvidersRolesWhatTheUserHadLast(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	ann := c.caller(t, bearer(c.open(t, byToken(c.token("dev"))).AccessToken))
	_, secret := c.newKey(t, ann, identity.NewKey{})
	if got := c.caller(t, bearer(secret)).Roles; !slices.Equal(got, []policy.Role{policy.Developer}) {
		t.Errorf("the key has %v", got)
	}
	c.open(t, byToken(c.token("others")))
	if got := c.caller(t, bearer(secret)).Roles; len(got) != 0 {
		t.Errorf("the key has %v, which its user has no more", got)
	}
}

func TestAWorkflowsTokenOpensOneSession(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	token := c.actions.ActionsToken(publicURL, providertest.Claims{"jti": "run-1"})
	c.refuses(t, bearer(token), "exchanged for a session")
	elsewhere := c.sibling(t)
	elsewhere.UseProviders(nil)
	errs := together(4, func(int) error { return second(c.OpenSession(t.Context(), byToken(token))) })
	if n := succeeded(errs); n != 1 {
		t.Fatalf("%d of 4 opened a session by one token: %v", n, errs)
	}
	_, err := c.OpenSession(t.Context(), byToken(token))
	wantRefusal(t, err, "used before")

	opened := c.open(t, byToken(c.actions.ActionsToken(publicURL, providertest.Claims{"jti": "run-2"})))
	ci := c.caller(t, bearer(opened.AccessToken))
	if ci.UserID != "ci:74" || ci.ProjectID != "web" || !slices.Equal(ci.Roles, []policy.Role{policy.CI}) {
		t.Errorf("the caller is %+v", ci)
	}
	o := byToken(c.actions.ActionsToken(publicURL, providertest.Claims{"jti": "run-3"}))
	o.ProjectID = "shop"
	_, err = c.OpenSession(t.Context(), o)
	wantFault(t, err, fault.Forbidden, "for project web only")
	_, _, err = c.CreateKey(t.Context(), ci, identity.NewKey{Name: "k", ExpiresAt: c.clock.Now().Add(time.Hour)})
	wantFault(t, err, fault.Forbidden, "a key is made by people")
	_, err = elsewhere.OpenSession(t.Context(), byToken(token))
	wantRefusal(t, err, "no provider of tokens is configured")
}

func TestAUserIsNotTakenOverByAnotherIssuer(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	c.open(t, byToken(c.token("dev")))
	c.exec(t, `UPDATE users SET issuer = 'https://old.example.com' WHERE id = 'oidc:corp:7'`)
	_, err := c.OpenSession(t.Context(), byToken(c.token("dev")))
	wantFault(t, err, fault.Forbidden, "is known from issuer")
}

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestALoginByBrowserOpensTheSessionThatWasAskedFor(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	c.bindUser(t, "oidc:corp:ann", "web")
	begin := func(n identity.NewLogin) (identity.Login, url.Values) {
		t.Helper()
		n.Provider = "corp"
		l, err := c.BeginLogin(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		return l, providertest.Browse(t, nil, l.AuthorizationURL)
	}
	program := identity.NewLogin{
		RedirectURI: "http://127.0.0.1:5000/back", CodeChallenge: challenge("the verifier"), Session: identity.Opening{ProjectID: "web"},
	}
	l, back := begin(program)
	end := identity.LoginEnd{ID: l.ID, Code: back.Get("code"), State: back.Get("state"), CodeVerifier: "the verifier"}
	errs := together(3, func(int) error {
		opened, err := c.FinishLogin(t.Context(), end, here)
		if err == nil && (opened.Session.UserID != "oidc:corp:ann" || opened.Session.ProjectID != "web" || opened.Session.Address != here.Address) {
			t.Errorf("opened %+v", opened.Session)
		}
		return err
	})
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of 3 ended one login: %v", n, errs)
	}
	for name, spoil := range map[string]func(*identity.LoginEnd){
		"another's state":   func(e *identity.LoginEnd) { e.State = "guess" },
		"no state":          func(e *identity.LoginEnd) { e.State = "" },
		"another verifier":  func(e *identity.LoginEnd) { e.CodeVerifier = "guess" },
		"no verifier":       func(e *identity.LoginEnd) { e.CodeVerifier = "" },
		"another's login":   func(e *identity.LoginEnd) { e.ID = "guess" },
		"a code of nothing": func(e *identity.LoginEnd) { e.Code = "guess" },
	} {
		l, back := begin(program)
		end := identity.LoginEnd{ID: l.ID, Code: back.Get("code"), State: back.Get("state"), CodeVerifier: "the verifier"}
		spoil(&end)
		if _, err := c.FinishLogin(t.Context(), end, here); fault.CodeOf(err) != fault.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, back = begin(program)
	c.clock.advance(10 * time.Minute)
	_, err := c.FinishLogin(t.Context(), identity.LoginEnd{ID: l.ID, Code: back.Get("code"), State: back.Get("state"), CodeVerifier: "the verifier"}, here)
	wantRefusal(t, err, "has expired")
}

func (r *rig) bindUser(t testing.TB, id, project string) { r.bind(t, id, policy.Developer, project) }

func TestALoginSendsNobodyElsewhere(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	for _, address := range []string{
		"", "https://evil.example.com/", publicURL + "/elsewhere", publicURL + ".evil.example.com" + identity.LoginCallback,
		"http://localhost:80/", "http://127.0.0.1/", "http://127.0.0.1.evil.example.com:1/", "https://127.0.0.1:1/",
		"http://user@127.0.0.1:1/", "http://127.0.0.1:1/#x", "http://10.0.0.1:1/", "javascript:alert(1)",
	} {
		_, err := c.BeginLogin(t.Context(), identity.NewLogin{Provider: "corp", RedirectURI: address, CodeChallenge: challenge("v")})
		wantFault(t, err, fault.Invalid, "redirectUrl")
	}
	_, err := c.BeginLogin(t.Context(), identity.NewLogin{Provider: "corp", RedirectURI: "http://[::1]:7/"})
	wantFault(t, err, fault.Invalid, "codeChallenge is required")
	for _, address := range []string{publicURL + identity.LoginCallback, "http://[::1]:7/", "http://127.0.0.1:7"} {
		if _, err := c.BeginLogin(t.Context(), identity.NewLogin{Provider: "corp", RedirectURI: address, CodeChallenge: challenge("v")}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	_, err = c.BeginLogin(t.Context(), identity.NewLogin{Provider: "github", RedirectURI: publicURL + identity.LoginCallback})
	wantFault(t, err, fault.NotFound, `no login by "github"`)
	c.policies.set(t, "identity:\n  providers: [local]\n")
	_, err = c.BeginLogin(t.Context(), identity.NewLogin{Provider: "corp", RedirectURI: publicURL + identity.LoginCallback})
	wantFault(t, err, fault.NotFound, `no login by "corp"`)
	if names, err := c.Logins(t.Context()); err != nil || !slices.Equal(names, []string{"local"}) {
		t.Errorf("%v, %v", names, err)
	}
}

func TestALoginByDeviceWaitsForThePerson(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	l, err := c.BeginLogin(t.Context(), identity.NewLogin{Provider: "corp", Device: true})
	if err != nil || l.UserCode == "" || l.VerificationURI == "" || l.Interval <= 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	poll := func() error { return second(c.FinishLogin(t.Context(), identity.LoginEnd{ID: l.ID}, here)) }
	if err := poll(); !errors.Is(err, provider.ErrAuthorizationPending) {
		t.Fatalf("undecided: %v", err)
	}
	asked := c.issuer.Fetches(providertest.TokenPath)
	for range 5 {
		if err := poll(); !errors.Is(err, provider.ErrAuthorizationPending) {
			t.Fatalf("too soon: %v", err)
		}
	}
	if n := c.issuer.Fetches(providertest.TokenPath) - asked; n != 0 {
		t.Errorf("the provider was asked %d times too often", n)
	}
	c.issuer.Decide(l.UserCode, true)
	c.clock.advance(l.Interval)
	errs := together(3, func(int) error { return poll() })
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of 3 ended one login: %v", n, errs)
	}
	wantRefusal(t, poll(), "has ended")

	l, err = c.BeginLogin(t.Context(), identity.NewLogin{Provider: "corp", Device: true})
	if err != nil {
		t.Fatal(err)
	}
	c.issuer.Decide(l.UserCode, false)
	wantRefusal(t, poll(), "")
	wantRefusal(t, poll(), "has ended")
}
