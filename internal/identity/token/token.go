// Package token makes and checks what the runtime itself hands out as proof of
// who somebody is: access tokens (RFC 9068 with EdDSA), refresh tokens, API
// keys, and the stored form of passwords.
//
// It keeps nothing: keys, hashes and the time are arguments. What a token
// stands for now (roles, revocation) is for the owner of sessions to say.
package token

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/jws"
)

const (
	// MaxLifetime is how long an access token may live.
	MaxLifetime = 10 * time.Minute
	// Leeway is how far the clock of the server that signed may be ahead.
	Leeway = time.Minute
	// maxLength bounds the text of an access token, in bytes.
	maxLength = 4 << 10
	mediaType = "at+jwt" // RFC 9068, section 2.1
)

// Claims is what an access token says. Times have whole seconds.
type Claims struct {
	UserID        string // sub
	SessionID     string // sid
	ProjectID     string // prj; "" is none
	ID            string // jti
	KeyThumbprint string // cnf.jkt (RFC 9449, section 6.1); "" is a token that is bound to no key
	IssuedAt      time.Time
	ExpiresAt     time.Time
}

// Issuer signs and verifies the access tokens of one installation. The zero
// Issuer refuses everything.
type Issuer struct {
	url, audience string
}

// NewIssuer returns the issuer whose tokens carry url as iss and audience as
// aud. Both must be given: a check against nothing would accept anything.
func NewIssuer(url, audience string) (Issuer, error) {
	if url == "" || audience == "" {
		return Issuer{}, errors.New("the issuer of access tokens needs a URL and an audience")
	}
	return Issuer{url, audience}, nil
}

// URL is the iss of the tokens.
func (i Issuer) URL() string { return i.url }

// Audience is the aud of the tokens.
func (i Issuer) Audience() string { return i.audience }

// Sign returns the access token with claims c. UserID, SessionID, ID and both
// times are required, and the time between them is at most MaxLifetime.
func (i Issuer) Sign(k Key, c Claims) (string, error) {
	if err := i.check(c); err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	if len(k.Private) != ed25519.PrivateKeySize || k.ID == "" {
		return "", errors.New("sign access token: no key")
	}
	claims := jwt.MapClaims{
		"iss": i.url, "aud": i.audience,
		"sub": c.UserID, "sid": c.SessionID, "jti": c.ID,
		"iat": c.IssuedAt.Unix(), "exp": c.ExpiresAt.Unix(),
	}
	if c.ProjectID != "" {
		claims["prj"] = c.ProjectID
	}
	if c.KeyThumbprint != "" {
		claims["cnf"] = map[string]string{"jkt": c.KeyThumbprint}
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	t.Header["typ"] = mediaType
	t.Header["kid"] = k.ID
	signed, err := t.SignedString(k.Private)
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	if len(signed) > maxLength {
		return "", fmt.Errorf("sign access token: it is longer than %d bytes", maxLength)
	}
	return signed, nil
}

// Verify returns the claims of an access token that i signed with a key that
// key knows by its kid, and that is valid at now: issued no more than Leeway
// ahead, not expired. Anything else is fault.Unauthenticated with the reason.
func (i Issuer) Verify(raw string, key func(kid string) (ed25519.PublicKey, bool), now time.Time) (Claims, error) {
	c, err := i.verify(raw, key, now)
	if err != nil {
		return Claims{}, fault.New(fault.Unauthenticated, "the access token is refused: %v", err)
	}
	return c, nil
}

func (i Issuer) verify(raw string, key func(kid string) (ed25519.PublicKey, bool), now time.Time) (Claims, error) {
	t, err := jws.Split(raw, maxLength)
	if err != nil {
		return Claims{}, err
	}
	if err := verifySignature(t, key); err != nil {
		return Claims{}, err
	}
	var issuer, audience string
	var issued, notBefore, expires int64
	var c Claims
	if _, err := jws.Read(t.Payload, jws.Fields{
		"iss": &issuer, "aud": &audience,
		"sub": &c.UserID, "sid": &c.SessionID, "prj": &c.ProjectID, "jti": &c.ID,
		"iat": &issued, "nbf": &notBefore, "exp": &expires,
		"cnf": jws.Fields{"jkt": &c.KeyThumbprint},
	}); err != nil {
		return Claims{}, err
	}
	// In whole seconds, as time.Unix wraps around where a claim may be.
	switch latest := now.Add(Leeway).Unix(); {
	case issuer != i.url:
		return Claims{}, errors.New("iss is another issuer")
	case audience != i.audience:
		return Claims{}, errors.New("aud is another audience")
	case issued <= 0 || expires <= 0:
		return Claims{}, errors.New("iat or exp is missing")
	case issued > latest || notBefore > latest:
		return Claims{}, errors.New("it is not valid yet")
	case expires <= now.Unix():
		return Claims{}, errors.New("it has expired")
	}
	c.IssuedAt, c.ExpiresAt = time.Unix(issued, 0).UTC(), time.Unix(expires, 0).UTC()
	return c, i.check(c)
}

func verifySignature(t jws.Token, key func(kid string) (ed25519.PublicKey, bool)) error {
	var typ, alg, kid string
	if _, err := jws.Read(t.Header, jws.Fields{
		"typ": &typ, "alg": &alg, "kid": &kid,
		"crit": jws.Refused{}, // RFC 7515, section 4.1.11: no extension is understood here
	}); err != nil {
		return err
	}
	switch {
	case typ != mediaType:
		return errors.New("typ is not " + mediaType)
	case alg != jwt.SigningMethodEdDSA.Alg():
		return errors.New("alg is not " + jwt.SigningMethodEdDSA.Alg())
	case kid == "":
		return errors.New("kid is missing")
	}
	public, ok := key(kid)
	if !ok {
		return errors.New("its key is not known")
	}
	if jwt.SigningMethodEdDSA.Verify(t.Signed, t.Signature, public) != nil {
		return errors.New("the signature is wrong")
	}
	return nil
}

// check holds for every token of i, signed or verified.
func (i Issuer) check(c Claims) error {
	switch lifetime := c.ExpiresAt.Unix() - c.IssuedAt.Unix(); {
	case i.url == "" || i.audience == "":
		return errors.New("the issuer has no URL or no audience")
	case c.UserID == "" || c.SessionID == "" || c.ID == "":
		return errors.New("sub, sid or jti is missing")
	case lifetime <= 0:
		return errors.New("exp is not after iat")
	case lifetime > int64(MaxLifetime/time.Second):
		return fmt.Errorf("it lives longer than %s", MaxLifetime)
	}
	return nil
}

// Issued reports whether raw says that it is an access token of i, to tell our
// tokens from those of other issuers. Nothing is verified.
func (i Issuer) Issued(raw string) bool {
	t, err := jws.Split(raw, maxLength)
	if err != nil {
		return false
	}
	var issuer string
	_, err = jws.Read(t.Payload, jws.Fields{"iss": &issuer})
	return err == nil && issuer != "" && issuer == i.url
}
