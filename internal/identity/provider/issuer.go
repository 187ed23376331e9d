package provider

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// The signatures that are accepted. None is symmetric: nobody can sign with
// what everybody may read.
var (
	anyAlgorithm = []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
		oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
	}
	onlyRS256 = []string{oidc.RS256}
)

// The types a token may say it is of (RFC 7519, section 5.1; RFC 9068, section
// 2.1). They keep other JWTs of an issuer apart: logout tokens, key proofs.
var (
	idTokenTypes     = []string{"", "jwt"}
	accessTokenTypes = []string{"", "jwt", "at+jwt", "application/at+jwt"}
)

// issuer verifies the tokens of one issuer.
type issuer struct {
	url        string
	algorithms []string
	keys       *remote
	now        func() time.Time
}

func newIssuer(url string, algorithms []string, client *http.Client, o Options) *issuer {
	return &issuer{url: url, algorithms: algorithms, keys: newRemote(url, client, o), now: o.Now}
}

// statement is what a verified token says of itself.
type statement struct {
	subject         string
	issued, expires time.Time
}

// verify accepts a token of one of those types that is made for one of those
// audiences. What can be refused
// without a key is, before the issuer is asked for one.
func (i *issuer) verify(ctx context.Context, t token, types, audiences []string) (s statement, err error) {
	if t.issuer != i.url {
		return s, refuse(classIssuer, "the issuer is %.100q, not %q", t.issuer, i.url)
	}
	if !slices.Contains(i.algorithms, t.alg) {
		return s, refuse(classAlgorithm, "alg %.20q is none of %q", t.alg, i.algorithms)
	}
	if !slices.Contains(types, strings.ToLower(t.typ)) {
		return s, refuse(classType, "typ %.40q is none of %q", t.typ, types)
	}
	if err := t.claims.checkAudience(audiences); err != nil {
		return s, err
	}
	if s.issued, s.expires, err = t.claims.checkTime(i.now()); err != nil {
		return s, err
	}
	if s.subject, err = t.claims.name("sub", true); err != nil {
		return s, refuse(classClaims, "%w", err)
	}
	key, err := i.keys.key(ctx, t.kid)
	if err != nil {
		return s, err
	}
	// What the library checks beside the signature has been checked here, more
	// strictly; it is asked all the same.
	verifier := oidc.NewVerifier(i.url, oneKey{key, t.alg}, &oidc.Config{
		SupportedSigningAlgs: []string{t.alg},
		SkipClientIDCheck:    true,
		Now:                  func() time.Time { return i.now().Add(-leeway) },
	})
	if _, err := verifier.Verify(ctx, t.raw); err != nil {
		return s, refuse(classSignature, "key %.60q: %w", t.kid, err)
	}
	return s, nil
}

// oneKey is an oidc.KeySet of the key that a token names, for the algorithm
// that it names.
type oneKey struct {
	key       jose.JSONWebKey
	algorithm string
}

func (k oneKey) VerifySignature(_ context.Context, raw string) ([]byte, error) {
	// RFC 7517, section 4.4: a key may be meant for one algorithm.
	if k.key.Algorithm != "" && k.key.Algorithm != k.algorithm {
		return nil, fmt.Errorf("is for %.20q, not %s", k.key.Algorithm, k.algorithm)
	}
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.algorithm)})
	if err != nil {
		return nil, err
	}
	return jws.Verify(k.key.Key)
}
