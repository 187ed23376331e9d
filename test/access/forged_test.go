package access

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestOnlyTokensThatTheProviderHasSignedForUsAreAccepted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	evil := newIssuer(t) // is in nobody's configuration, and has a key by the same name
	key, forger := p.issuer.current(), evil.current()
	with := func(changes map[string]any) map[string]any {
		claims := p.issuer.claims()
		maps.Copy(claims, changes)
		return claims
	}
	rs256 := func(s *signer, id string, changes map[string]any) string {
		return sign(t, jose.RS256, s.key, id, with(changes))
	}
	// along is by the forger, and tells which key to check it with.
	along := func(o *jose.SignerOptions) string {
		return signWith(t, jose.SigningKey{Algorithm: jose.RS256, Key: forger.key}, o.WithHeader("kid", key.id), with(nil))
	}
	good := rs256(key, key.id, nil)
	if got := p.status(good); got != http.StatusOK {
		t.Fatalf("a good token gets %d", got)
	}
	der, err := x509.MarshalPKIXPublicKey(key.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	claims, err := json.Marshal(with(nil))
	if err != nil {
		t.Fatal(err)
	}
	curve := newECDSA(t, key.id)
	honest, _ := evil.tokens(t, "ann")
	seen := evil.asked.Load()
	signature := func(token string) string { return token[strings.LastIndex(token, "."):] }
	for what, token := range map[string]string{
		"a forged signature":            rs256(forger, key.id, nil),
		"a key that is not known":       rs256(forger, "another", nil),
		"no key's name, another's key":  rs256(forger, "", nil),
		"a key of its own along":        along(&jose.SignerOptions{EmbedJWK: true}),
		"the address of keys along":     along(new(jose.SignerOptions).WithHeader("jku", evil.url+"keys")),
		"another kind of key":           sign(t, jose.ES256, curve.key, key.id, with(nil)),
		"another provider's own token":  honest,
		"another audience":              rs256(key, key.id, map[string]any{"aud": "someone-else"}),
		"several audiences and no azp":  rs256(key, key.id, map[string]any{"aud": []string{clientID, "someone-else"}}),
		"another issuer":                rs256(key, key.id, map[string]any{"iss": evil.url}),
		"the issuer without its slash":  rs256(key, key.id, map[string]any{"iss": strings.TrimSuffix(p.issuer.url, "/")}),
		"an hour too old":               rs256(key, key.id, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"no end":                        rs256(key, key.id, map[string]any{"exp": nil}),
		"an hour too early":             rs256(key, key.id, map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"nobody":                        rs256(key, key.id, map[string]any{"sub": ""}),
		"no signature":                  base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims) + ".",
		"no signature, a key's name":    base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"first"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims) + "." + signature(good)[1:],
		"the public key as a secret":    sign(t, jose.HS256, publicPEM, key.id, with(nil)),
		"the signature of another text": strings.TrimSuffix(good, signature(good)) + signature(rs256(key, key.id, map[string]any{"sub": "bob"})),
		"half a token":                  good[:len(good)/2],
	} {
		if got := p.status(token); got != http.StatusUnauthorized {
			t.Errorf("%s gets %d", what, got)
		}
	}
	if n := evil.asked.Load() - seen; n > 0 {
		t.Errorf("a provider that nobody has configured was asked %d times", n)
	}
}

// pause is how long the server leaves a provider in peace after it has looked
// at its keys.
const pause = 10 * time.Second

func TestKeysThatTheProviderChangesAreFollowedAndStrangersCannotDriveThat(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	old, next, made := p.issuer.current(), newECDSA(t, "second"), newECDSA(t, "made up")
	token := func(s *signer, id string) string {
		claims := p.issuer.claims()
		claims["jti"] = id // no two are the same
		return sign(t, s.algorithm, s.key, s.id, claims)
	}
	if got := p.status(token(old, "first")); got != http.StatusOK {
		t.Fatalf("a good token gets %d", got)
	}
	asked, begun := p.issuer.keySets.Load(), time.Now()
	for i := range 40 {
		made.id = fmt.Sprintf("made up %d", i)
		if got := p.status(token(made, "forged")); got != http.StatusUnauthorized {
			t.Errorf("a token by a key that is made up gets %d", got)
		}
	}
	if n, most := p.issuer.keySets.Load()-asked, 1+int64(time.Since(begun)/pause); n > most {
		t.Errorf("forty made-up keys made the server ask for the keys %d times, and not %d at most", n, most)
	}
	p.issuer.rotate(next)
	// Only requests make the server look, and only when the pause is over.
	look := time.NewTicker(pause / 20)
	defer look.Stop()
	for deadline := begun.Add(patience); ; <-look.C {
		got := p.status(token(next, "next"))
		if got == http.StatusOK {
			break
		}
		if got != http.StatusUnauthorized || time.Now().After(deadline) {
			t.Fatalf("a token by the new key gets %d", got)
		}
	}
	if got := p.status(token(old, "second")); got != http.StatusUnauthorized {
		t.Errorf("a token by the key that was withdrawn gets %d", got)
	}
}
