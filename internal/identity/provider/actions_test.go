package provider_test

import (
	"maps"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
)

const publicURL = "https://claw.corp.example"

var mainBranch = provider.Rule{
	Project: "shop", RepositoryID: 74, RepositoryOwnerID: 65,
	Events: []string{"push"}, Refs: []string{"refs/heads/main"},
}

func newActions(t *testing.T, rules ...provider.Rule) (*provider.Set, *providertest.Issuer) {
	t.Helper()
	at, issuer := newClock(), providertest.NewActions(t)
	issuer.Now = at.Now
	return newSet(t, provider.Config{GitHubActions: rules, ActionsIssuer: issuer.URL, PublicURL: publicURL}, at, nil), issuer
}

func TestAWorkflowThatMeetsARuleIsCIInOneProject(t *testing.T) {
	t.Parallel()
	set, issuer := newActions(t, mainBranch)
	got, err := set.VerifyToken(t.Context(), issuer.ActionsToken(publicURL, claims{"jti": "once"}))
	if err != nil {
		t.Fatal(err)
	}
	if got.UserID != "ci:74" || got.Provider != "github-actions" || got.Name != "octo-org/octo-repo" || got.ProjectID != "shop" {
		t.Errorf("the token speaks for %+v", got)
	}
	if len(got.Roles) != 1 || len(got.Roles["shop"]) != 1 || got.Roles["shop"][0] != "ci" || got.Groups != nil {
		t.Errorf("roles %q, groups %q", got.Roles, got.Groups)
	}
	if !got.OneUse || got.TokenID != "once" || got.ExpiresAt.IsZero() {
		t.Errorf("one use %v, token id %q, expires %v", got.OneUse, got.TokenID, got.ExpiresAt)
	}
}

func TestAWorkflowThatMeetsNoRuleIsAStranger(t *testing.T) {
	t.Parallel()
	production := provider.Rule{
		Project: "shop", RepositoryID: 75, RepositoryOwnerID: 65, Events: []string{"push", "workflow_dispatch"}, Environment: "production",
		JobWorkflowRef: "octo-org/ci/.github/workflows/deploy.yml@refs/heads/main",
	}
	set, issuer := newActions(t, mainBranch, production)
	deploys := func(changed claims) claims {
		c := claims{"repository_id": "75", "environment": "production", "job_workflow_ref": production.JobWorkflowRef}
		maps.Copy(c, changed)
		return c
	}
	if _, err := set.VerifyToken(t.Context(), issuer.ActionsToken(publicURL, deploys(nil))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		does    string
		changed claims
		class   string
		cause   string
	}{
		{"a pull request of a fork", claims{"event_name": "pull_request", "ref": "refs/pull/7/merge", "head_ref": "evil", "base_ref": "main"}, "trust rule", `event_name is "pull_request"`},
		{"a pull request that runs on the branch", claims{"event_name": "pull_request_target"}, "trust rule", "pull_request_target"},
		{"a schedule", claims{"event_name": "schedule"}, "trust rule", "schedule"},
		{"another repository under the old name", claims{"repository_id": "740"}, "trust rule", "no rule"},
		{"a repository that went to another owner", claims{"repository_owner_id": "66"}, "trust rule", "repository_owner_id"},
		{"no owner", claims{"repository_owner_id": nil}, "trust rule", "repository_owner_id"},
		{"an id that is a number", claims{"repository_id": 74}, "trust rule", "no rule"},
		{"an id with a zero before it", claims{"repository_id": "074"}, "trust rule", "no rule"},
		{"another branch", claims{"ref": "refs/heads/main2"}, "trust rule", "refs/heads/main2"},
		{"a tag of the same name", claims{"ref": "refs/tags/main"}, "trust rule", "refs/tags/main"},
		{"the branch in capitals", claims{"ref": "refs/heads/Main"}, "trust rule", "Main"},
		{"no environment", deploys(claims{"environment": nil}), "trust rule", "environment"},
		{"another environment", deploys(claims{"environment": "staging"}), "trust rule", "staging"},
		{"another workflow", deploys(claims{"job_workflow_ref": "octo-org/ci/.github/workflows/deploy.yml@refs/heads/evil"}), "trust rule", "evil"},
		{"no token id", claims{"jti": nil}, "claims", "jti"},
		{"an empty token id", claims{"jti": ""}, "claims", "jti"},
		{"GitHub's usual audience", claims{"aud": "https://github.com/octo-org"}, "audience", "octo-org"},
		{"two audiences", claims{"aud": []string{publicURL, "https://other.example"}}, "audience", "azp"},
		{"an old token", claims{"exp": 1}, "expired", ""},
	} {
		t.Run(c.does, func(t *testing.T) {
			_, err := set.VerifyToken(t.Context(), issuer.ActionsToken(publicURL, c.changed))
			wantRefused(t, err, fault.Unauthenticated, "the token is not accepted: "+c.class, c.cause)
		})
	}
}

func TestPullRequestsAreLetInWhereARuleSaysSo(t *testing.T) {
	t.Parallel()
	review := mainBranch
	review.Project, review.Role = "review", "readonly"
	review.Events, review.Refs = []string{"pull_request"}, []string{"refs/pull/7/merge"}
	set, issuer := newActions(t, mainBranch, review)
	got, err := set.VerifyToken(t.Context(), issuer.ActionsToken(publicURL, claims{"event_name": "pull_request", "ref": "refs/pull/7/merge"}))
	if err != nil {
		t.Fatal(err)
	}
	if got.ProjectID != "review" || len(got.Roles) != 1 || got.Roles["review"][0] != "readonly" {
		t.Errorf("the token speaks for %+v", got)
	}
}

func TestARuleCanWantAnAudienceOfItsOwn(t *testing.T) {
	t.Parallel()
	release := mainBranch
	release.Project, release.Audience, release.Refs = "release", "claw-release", []string{"refs/heads/release"}
	set, issuer := newActions(t, mainBranch, release)
	onRelease := claims{"ref": "refs/heads/release"}
	got, err := set.VerifyToken(t.Context(), issuer.ActionsToken("claw-release", onRelease))
	if err != nil || got.ProjectID != "release" {
		t.Fatalf("%+v, %v", got, err)
	}
	for audience, changed := range map[string]claims{publicURL: onRelease, "claw-release": nil} {
		_, err := set.VerifyToken(t.Context(), issuer.ActionsToken(audience, changed))
		wantRefused(t, err, fault.Unauthenticated, "trust rule", "aud is not")
	}
}

func TestActionsTokensAreSignedByRS256Alone(t *testing.T) {
	t.Parallel()
	set, issuer := newActions(t, mainBranch)
	issuer.Rotate(t, "ec")
	_, err := set.VerifyToken(t.Context(), issuer.ActionsToken(publicURL, nil))
	wantRefused(t, err, fault.Unauthenticated, "algorithm", "ES256")
}
