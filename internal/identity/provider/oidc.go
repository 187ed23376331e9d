package provider

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// oidcProvider accepts the tokens of an OpenID Connect provider: those that
// were handed to us and, for logins, those that we were given.
type oidcProvider struct {
	config OIDC
	issuer *issuer
}

func (p *oidcProvider) accept(ctx context.Context, t token) (Identity, error) {
	audiences := p.config.Audiences
	if len(audiences) == 0 {
		audiences = []string{p.config.ClientID}
	}
	s, err := p.issuer.verify(ctx, t, accessTokenTypes, audiences)
	if err != nil {
		return Identity{}, err
	}
	id, err := p.identity(s, t.claims)
	if err != nil {
		return Identity{}, err
	}
	return asBearer(id, t.claims, s.expires)
}

// asBearer adds what matters for a token that its bearer may show again.
func asBearer(id Identity, c claims, expires time.Time) (Identity, error) {
	jti, err := c.name("jti", false)
	if err != nil {
		return Identity{}, refuse(classClaims, "%w", err)
	}
	id.TokenID, id.ExpiresAt = jti, expires
	return id, nil
}

// identity says who verified claims speak for.
func (p *oidcProvider) identity(s statement, c claims) (Identity, error) {
	for name, value := range p.config.RequiredClaims {
		if !c.has(name, value) {
			return Identity{}, forbid(p.config.Name, "the claim %s of %.100q is not %q", name, s.subject, value)
		}
	}
	id := Identity{
		Provider: p.config.Name,
		Issuer:   p.issuer.url,
		Subject:  s.subject,
		StatedAt: s.issued,
		UserID:   "oidc:" + p.config.Name + ":" + s.subject,
		Name:     p.displayName(c),
		Email:    c.email(),
	}
	groups, err := p.groups(c)
	if err != nil {
		return Identity{}, refuse(classClaims, "%w", err)
	}
	for _, group := range groups {
		id.Groups = append(id.Groups, "oidc:"+p.config.Name+":"+group)
		id.grant("", p.config.GroupRoles[group])
		for project, roles := range p.config.ProjectRoles {
			id.grant(project, roles[group])
		}
	}
	return id, nil
}

func (p *oidcProvider) displayName(c claims) string {
	names := []string{"preferred_username", "name"}
	if p.config.UsernameClaim != "" {
		names = []string{p.config.UsernameClaim}
	}
	for _, name := range names {
		if shown := display(c.text(name)); shown != "" {
			return shown
		}
	}
	return ""
}

func (p *oidcProvider) groups(c claims) ([]string, error) {
	if p.config.GroupsClaim == "" {
		return nil, nil
	}
	groups, err := c.list(p.config.GroupsClaim)
	if err != nil {
		return nil, err
	}
	for _, group := range groups {
		if group == "" || len(group) > maxName || !printable(group) {
			return nil, fmt.Errorf("%s holds a name that is empty, too long or not printable", p.config.GroupsClaim)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// grant adds roles in a project.
func (id *Identity) grant(project string, roles []string) {
	for _, role := range roles {
		if slices.Contains(id.Roles[project], role) {
			continue
		}
		if id.Roles == nil {
			id.Roles = map[string][]string{}
		}
		id.Roles[project] = append(id.Roles[project], role)
	}
}
