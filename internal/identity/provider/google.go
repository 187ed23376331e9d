package provider

import (
	"context"
	"slices"
)

// googleProvider accepts the ID tokens of Google accounts that belong to one of
// the configured organisations. The hd claim says so; the domain of an e-mail
// address does not, for anybody can have a Google account with any address.
type googleProvider struct {
	config Google
	issuer *issuer
}

func (p *googleProvider) accept(ctx context.Context, t token) (Identity, error) {
	s, err := p.issuer.verify(ctx, t, idTokenTypes, []string{p.config.ClientID})
	if err != nil {
		return Identity{}, err
	}
	id, err := p.identity(s, t.claims)
	if err != nil {
		return Identity{}, err
	}
	return asBearer(id, t.claims, s.expires)
}

func (p *googleProvider) identity(s statement, c claims) (Identity, error) {
	domain := c.text("hd")
	if domain == "" {
		return Identity{}, forbid(googleName, "%s belongs to no organisation", s.subject)
	}
	if !slices.Contains(p.config.HostedDomains, domain) {
		return Identity{}, forbid(googleName, "%s belongs to %.100q", s.subject, domain)
	}
	id := Identity{
		Provider: googleName,
		Issuer:   p.issuer.url,
		Subject:  s.subject,
		StatedAt: s.issued,
		UserID:   "google:" + s.subject,
		Name:     display(c.text("name")),
		Email:    c.email(),
		Groups:   []string{"google:" + domain},
	}
	id.grant("", p.config.DomainRoles[domain])
	return id, nil
}
