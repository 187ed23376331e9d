package providertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"
)

// Token signs what an honest issuer would: the claims given, over iss, sub, aud
// (ClientID), iat and an exp in five minutes.
func (i *Issuer) Token(c Claims) string { return i.Forge(Forgery{Claims: c}) }

// ActionsToken signs a token of a workflow that was started by a push to the
// branch main of octo-org/octo-repo, made for that audience, with some claims
// changed. The claims are those that GitHub documents.
func (i *Issuer) ActionsToken(audience string, changed Claims) string {
	c := Claims{
		"jti":                   rand.Text(),
		"sub":                   "repo:octo-org/octo-repo:ref:refs/heads/main",
		"aud":                   audience,
		"ref":                   "refs/heads/main",
		"ref_type":              "branch",
		"ref_protected":         "true",
		"sha":                   "7f5e64ec4ac1fbb71dd8ebe3ee9a0ba10a9f9b5e",
		"repository":            "octo-org/octo-repo",
		"repository_id":         "74",
		"repository_owner":      "octo-org",
		"repository_owner_id":   "65",
		"repository_visibility": "private",
		"run_id":                "9103726431",
		"run_number":            "10",
		"run_attempt":           "2",
		"actor":                 "octocat",
		"actor_id":              "12",
		"workflow":              "agents",
		"workflow_ref":          "octo-org/octo-repo/.github/workflows/agents.yml@refs/heads/main",
		"job_workflow_ref":      "octo-org/octo-repo/.github/workflows/agents.yml@refs/heads/main",
		"event_name":            "push",
		"head_ref":              "",
		"base_ref":              "",
		"runner_environment":    "github-hosted",
		"nbf":                   i.Now().Add(-5 * time.Minute).Unix(),
	}
	maps.Copy(c, changed)
	return i.Forge(Forgery{Claims: c, Header: map[string]any{"x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA"}})
}

// Forgery says how a token is to differ from an honest one.
type Forgery struct {
	Claims Claims
	// Payload is used as it is, instead of claims.
	Payload string
	// Header is laid over alg, kid and typ; nil takes one away.
	Header map[string]any
	// RawHeader is used as it is.
	RawHeader string
	// Key signs, by the method that Alg or, without one, its type demands; a
	// []byte is a secret. None is the issuer's own.
	Key any
	Alg string
}

// Forge signs anything.
func (i *Issuer) Forge(f Forgery) string {
	kid, own := i.Key()
	if f.Key == nil {
		f.Key = own
	}
	if f.Alg == "" {
		f.Alg = algorithmOf(f.Key)
	}
	if f.RawHeader == "" {
		f.RawHeader = object(Claims{"alg": f.Alg, "kid": kid, "typ": "JWT"}, f.Header)
	}
	if f.Payload == "" {
		now := i.Now()
		f.Payload = object(Claims{
			"iss": i.URL, "sub": "ann", "aud": ClientID,
			"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		}, f.Claims)
	}
	signed := Encode(f.RawHeader) + "." + Encode(f.Payload)
	return signed + "." + Encode(string(sign(f.Alg, f.Key, []byte(signed))))
}

// Encode returns the base64url of a part of a token.
func Encode(part string) string { return base64.RawURLEncoding.EncodeToString([]byte(part)) }

// Tamper returns a token with another payload and the old signature.
func Tamper(token, payload string) string {
	parts := strings.Split(token, ".")
	return parts[0] + "." + Encode(payload) + "." + parts[2]
}

func object(base, over Claims) string {
	merged := maps.Clone(base)
	for name, value := range over {
		if merged[name] = value; value == nil {
			delete(merged, name)
		}
	}
	text, err := json.Marshal(merged)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func algorithmOf(key any) string {
	switch key.(type) {
	case *rsa.PrivateKey:
		return "RS256"
	case *ecdsa.PrivateKey:
		return "ES256"
	case ed25519.PrivateKey:
		return "EdDSA"
	case []byte:
		return "HS256"
	}
	panic(fmt.Sprintf("no algorithm for a %T", key))
}

// sign makes the signatures of RFC 7518, section 3, and RFC 8037.
func sign(alg string, key any, text []byte) []byte {
	digest := sha256.Sum256(text)
	var signature []byte
	var err error
	switch key := key.(type) {
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write(text)
		signature = mac.Sum(nil)
	case ed25519.PrivateKey:
		signature = ed25519.Sign(key, text)
	case *rsa.PrivateKey:
		if alg == "PS256" {
			signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], nil)
		} else {
			signature, err = rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
		}
	case *ecdsa.PrivateKey:
		r, s, failed := ecdsa.Sign(rand.Reader, key, digest[:])
		if err = failed; err == nil {
			size := (key.Params().BitSize + 7) / 8
			signature = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	}
	if err != nil {
		panic(err)
	}
	if alg == "none" {
		return nil
	}
	return signature
}
