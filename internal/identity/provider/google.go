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
	subject, expires, err := p.issuer.verify(ctx, t, idTokenTypes, []string{p.config.ClientID})
	if err != nil {
		return Identity{}, err
	}
	id, err := p.identity(subject, t.claims)
	if err != nil {
		return Identity{}, err
	}
	return asBearer(id, t.claims, expires)
}

func (p *googleProvider) identity(subject string, c claims) (Identity, error) {
	domain := c.text("hd")
	if domain == "" {
		return Identity{}, forbid(googleName, "%s belongs to no organisation", subject)
	}
	if !slices.Contains(p.config.HostedDomains, domain) {
		return Identity{}, forbid(googleName, "%s belongs to %.100q", subject, domain)
	}
	id := Identity{
		Provider: googleName,
		Issuer:   p.issuer.url,
		Subject:  subject,
		UserID:   "google:" + subject,
		Name:     display(c.text("name")),
		Email:    c.email(),
		Groups:   []string{"google:" + domain},
	}
	id.grant("", p.config.DomainRoles[domain])
	return id, nil
}
