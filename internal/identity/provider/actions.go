package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// actions accepts the tokens of GitHub Actions workflows. Anybody with a GitHub
// account can have such a token made for any audience, so that nothing but the
// rules tells friend from stranger.
type actions struct {
	rules     []Rule   // each with its audience and its role
	audiences []string // of all rules
	issuer    *issuer
}

func newActions(rules []Rule, publicURL string, i *issuer) *actions {
	a := &actions{issuer: i}
	for _, r := range rules {
		if r.Audience == "" {
			r.Audience = publicURL
		}
		if r.Role == "" {
			r.Role = "ci"
		}
		a.rules = append(a.rules, r)
		a.audiences = append(a.audiences, r.Audience)
	}
	return a
}

func (a *actions) accept(ctx context.Context, t token) (Identity, error) {
	s, err := a.issuer.verify(ctx, t, idTokenTypes, a.audiences)
	if err != nil {
		return Identity{}, err
	}
	// Without one the token could be used again for as long as it lasts.
	jti, err := t.claims.name("jti", true)
	if err != nil {
		return Identity{}, refuse(classClaims, "%w", err)
	}
	rule, err := a.match(t.claims)
	if err != nil {
		return Identity{}, refuse(classTrustRule, "%.100q: %w", s.subject, err)
	}
	id := Identity{
		Provider:  actionsName,
		Issuer:    a.issuer.url,
		Subject:   s.subject,
		StatedAt:  s.issued,
		UserID:    "ci:" + strconv.FormatInt(rule.RepositoryID, 10),
		Name:      display(t.claims.text("repository")),
		ProjectID: rule.Project,
		TokenID:   jti,
		ExpiresAt: s.expires,
		OneUse:    true,
	}
	id.grant(rule.Project, []string{rule.Role})
	return id, nil
}

// match returns the first rule that the claims meet, or an error that says what
// each rule for their repository misses.
func (a *actions) match(c claims) (Rule, error) {
	var missed []error
	for i, rule := range a.rules {
		if c.text("repository_id") != strconv.FormatInt(rule.RepositoryID, 10) {
			continue
		}
		err := rule.check(c)
		if err == nil {
			return rule, nil
		}
		missed = append(missed, fmt.Errorf("githubActions[%d]: %w", i, err))
	}
	if missed == nil {
		return Rule{}, fmt.Errorf("there is no rule for the repository %.60q with the id %.20q", c.text("repository"), c.text("repository_id"))
	}
	return Rule{}, errors.Join(missed...)
}

// check compares texts with texts: GitHub puts its ids into tokens as such.
func (r Rule) check(c claims) error {
	if !c.has("aud", r.Audience) {
		return fmt.Errorf("aud is not %q", r.Audience)
	}
	if owner := c.text("repository_owner_id"); owner != strconv.FormatInt(r.RepositoryOwnerID, 10) {
		return fmt.Errorf("repository_owner_id is %.20q", owner)
	}
	if event := c.text("event_name"); !slices.Contains(r.Events, event) {
		return fmt.Errorf("event_name is %.60q", event)
	}
	if ref := c.text("ref"); len(r.Refs) > 0 && !slices.Contains(r.Refs, ref) {
		return fmt.Errorf("ref is %.100q", ref)
	}
	if environment := c.text("environment"); r.Environment != "" && environment != r.Environment {
		return fmt.Errorf("environment is %.100q", environment)
	}
	if workflow := c.text("job_workflow_ref"); r.JobWorkflowRef != "" && workflow != r.JobWorkflowRef {
		return fmt.Errorf("job_workflow_ref is %.200q", workflow)
	}
	return nil
}
