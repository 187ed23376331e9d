package provider_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
)

var (
	ann = providertest.User{ID: 583231, Login: "ann", Email: "ann@corp.example", Organizations: map[string]string{"Acme": "active"}, Teams: []string{"acme/ops", "other/ops"}}
	eve = providertest.User{ID: 666, Login: "eve", Unverified: "ann@corp.example", Organizations: map[string]string{"acme-evil": "active"}, Teams: []string{"acme-evil/ops"}}
)

func newGitHub(t *testing.T, change func(*provider.GitHub), users ...providertest.User) (provider.Flow, *providertest.GitHub, *clock) {
	t.Helper()
	at, hub := newClock(), providertest.NewGitHub(t, users...)
	hub.Now = at.Now
	config := provider.GitHub{
		ClientID: providertest.ClientID, ClientSecret: providertest.ClientSecret, BaseURL: hub.URL,
		Organizations: []string{"acme"}, TeamRoles: map[string][]string{"Acme/Ops": {"admin"}},
	}
	if change != nil {
		change(&config)
	}
	return flow(t, newSet(t, provider.Config{GitHub: &config}, at, nil), "github"), hub, at
}

func TestAMemberOfTheOrganisationLogsInWithTheRolesOfHerTeams(t *testing.T) {
	t.Parallel()
	f, hub, _ := newGitHub(t, nil, ann, eve)
	got, err := f.Exchange(t.Context(), login(t, f, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got.UserID != "github:583231" || got.Provider != "github" || got.Issuer != hub.URL || got.Subject != "583231" || got.Name != "ann" || got.Email != "ann@corp.example" {
		t.Errorf("the login speaks for %+v", got)
	}
	if want := []string{"github:acme", "github:acme/ops"}; !slices.Equal(got.Groups, want) {
		t.Errorf("groups %q, want %q", got.Groups, want)
	}
	if len(got.Roles) != 1 || !slices.Equal(got.Roles[""], []string{"admin"}) {
		t.Errorf("roles %q", got.Roles)
	}
}

func TestARenamedAccountStaysWhoItWas(t *testing.T) {
	t.Parallel()
	f, hub, _ := newGitHub(t, nil, ann)
	renamed := ann
	renamed.Login = "ann-of-acme"
	hub.Put(renamed)
	// Somebody else takes the name that she gave up.
	hub.Put(providertest.User{ID: 9, Login: "ann", Organizations: map[string]string{"acme": "active"}})
	got, err := f.Exchange(t.Context(), login(t, f, nil))
	if err != nil || got.UserID != "github:583231" || got.Name != "ann-of-acme" {
		t.Fatalf("%+v, %v", got, err)
	}
	hub.SignIn(9)
	got, err = f.Exchange(t.Context(), login(t, f, nil))
	if err != nil || got.UserID != "github:9" || got.Name != "ann" || got.Roles != nil {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestWhoIsNotOfTheOrganisationIsNotLetIn(t *testing.T) {
	t.Parallel()
	invited := providertest.User{ID: 7, Login: "guest", Organizations: map[string]string{"acme": "pending"}}
	alone := providertest.User{ID: 8, Login: "alone", Email: "alone@acme.example"}
	f, hub, _ := newGitHub(t, func(c *provider.GitHub) { c.AllowedUsers = []int64{88} }, eve, invited, alone)
	for _, u := range []providertest.User{eve, invited, alone} {
		hub.SignIn(u.ID)
		_, err := f.Exchange(t.Context(), login(t, f, nil))
		wantRefused(t, err, fault.Forbidden, "github is not allowed in", u.Login)
	}
}

func TestAUserOrATeamCanBeLetInAlone(t *testing.T) {
	t.Parallel()
	f, _, _ := newGitHub(t, func(c *provider.GitHub) {
		c.Organizations, c.TeamRoles, c.AllowedUsers = nil, nil, []int64{666}
	}, eve)
	got, err := f.Exchange(t.Context(), login(t, f, nil))
	if err != nil || got.UserID != "github:666" || got.Groups != nil || got.Email != "" {
		t.Fatalf("the user: %+v, %v", got, err)
	}
	f, hub, _ := newGitHub(t, func(c *provider.GitHub) { c.Organizations = nil }, ann)
	if got, err := f.Exchange(t.Context(), login(t, f, nil)); err != nil || got.Roles[""][0] != "admin" {
		t.Fatalf("the team: %+v, %v", got, err)
	}
	other := ann
	other.Teams = []string{"acme/dev"}
	hub.Put(other)
	_, err = f.Exchange(t.Context(), login(t, f, nil))
	wantRefused(t, err, fault.Forbidden, "not allowed in", "")
}

func TestTeamsOnLaterPagesCount(t *testing.T) {
	t.Parallel()
	busy := ann
	busy.Teams = nil
	for i := range 230 {
		busy.Teams = append(busy.Teams, fmt.Sprintf("acme/team-%03d", i))
	}
	f, _, _ := newGitHub(t, func(c *provider.GitHub) { c.TeamRoles = map[string][]string{"acme/team-229": {"developer"}} }, busy)
	got, err := f.Exchange(t.Context(), login(t, f, nil))
	if err != nil || len(got.Groups) != 231 || !slices.Equal(got.Roles[""], []string{"developer"}) {
		t.Fatalf("%d groups, roles %q, %v", len(got.Groups), got.Roles, err)
	}
}

func TestAGitHubLoginOnAnotherDevice(t *testing.T) {
	t.Parallel()
	f, hub, at := newGitHub(t, nil, ann)
	start, err := f.StartDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if start.VerificationURI != hub.URL+"/login/device" || start.Interval != 5*time.Second {
		t.Errorf("the login starts with %+v", start)
	}
	if _, err := f.PollDevice(t.Context(), start.DeviceCode); !errors.Is(err, provider.ErrAuthorizationPending) {
		t.Fatal(err)
	}
	if _, err := f.PollDevice(t.Context(), start.DeviceCode); !errors.Is(err, provider.ErrSlowDown) {
		t.Fatal(err)
	}
	at.Advance(start.Interval)
	hub.Decide(start.UserCode, true)
	got, err := f.PollDevice(t.Context(), start.DeviceCode)
	if err != nil || got.UserID != "github:583231" || got.Roles[""][0] != "admin" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestBrokenGitHubLoginsAreRefused(t *testing.T) {
	t.Parallel()
	f, hub, _ := newGitHub(t, nil, ann)
	r := login(t, f, nil)
	r.CodeVerifier = "stolen code, no verifier"
	_, err := f.Exchange(t.Context(), r)
	wantRefused(t, err, fault.Unauthenticated, "code of the login", "bad_verification_code")
	for status, code := range map[int]fault.Code{
		http.StatusUnauthorized:        fault.Unauthenticated,
		http.StatusInternalServerError: fault.Unavailable,
		http.StatusTooManyRequests:     fault.Unavailable,
		http.StatusFound:               fault.Unavailable,
	} {
		r := login(t, f, nil)
		hub.Fail(status)
		_, err := f.Exchange(t.Context(), r)
		wantRefused(t, err, code, "", fmt.Sprint(status))
		hub.Fail(0)
	}
	wrong, _, _ := newGitHub(t, func(c *provider.GitHub) { c.ClientSecret = "wrong" }, ann)
	_, err = wrong.Exchange(t.Context(), login(t, wrong, nil))
	wantRefused(t, err, fault.ProviderRefused, "does not accept this server", "incorrect_client_credentials")
}

func TestTheAPIIsWhereGitHubHasIt(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"":                         "https://api.github.com",
		"https://github.com/":      "https://api.github.com",
		"https://acme.ghe.com":     "https://api.acme.ghe.com",
		"https://git.corp.example": "https://git.corp.example/api/v3",
	} {
		if got := provider.APIURL(base); got != want {
			t.Errorf("%q: %s, want %s", base, got, want)
		}
	}
}
