package provider_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
)

type claims = providertest.Claims

func TestATokenOfAConfiguredIssuerSpeaksForItsSubject(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) {
		c.GroupsClaim = "groups"
		c.GroupRoles = map[string][]string{"ops": {"admin", "developer"}, "dev": {"developer"}, "none of hers": {"readonly"}}
	})
	got, err := b.set.VerifyToken(t.Context(), b.issuer.Token(claims{
		"preferred_username": "ann\u202e\n", "email": "ann@corp.example", "email_verified": true,
		"groups": []string{"ops", "dev", "ops"}, "jti": "t1",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got.UserID != "oidc:corp:ann" || got.Provider != "corp" || got.Issuer != b.issuer.URL || got.Subject != "ann" {
		t.Errorf("the token speaks for %+v", got)
	}
	if got.Name != "ann" || got.Email != "ann@corp.example" || got.TokenID != "t1" || got.OneUse || got.ProjectID != "" {
		t.Errorf("the token says %+v", got)
	}
	if want := []string{"oidc:corp:dev", "oidc:corp:ops"}; !slices.Equal(got.Groups, want) {
		t.Errorf("groups %q, want %q", got.Groups, want)
	}
	if roles := got.Roles[""]; len(got.Roles) != 1 || len(roles) != 2 || !slices.Contains(roles, "admin") || !slices.Contains(roles, "developer") {
		t.Errorf("roles %q", got.Roles)
	}
	if left := got.ExpiresAt.Sub(b.Now()).Minutes(); left != 5 {
		t.Errorf("it ends in %v minutes", left)
	}
}

func TestEverySignatureOfTheListIsAccepted(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, rsaKey := providertest.NewActions(t).Key()
	for i, c := range []struct {
		alg string
		key crypto.Signer
	}{{"EdDSA", edwards}, {"RS256", rsaKey}, {"PS256", rsaKey}} {
		b.Advance(10e9) // each key is new to the server
		b.issuer.UseKey(fmt.Sprint("other", i), c.key)
		if _, err := b.set.VerifyToken(t.Context(), b.issuer.Forge(providertest.Forgery{Alg: c.alg})); err != nil {
			t.Errorf("%s: %v", c.alg, err)
		}
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	kid, key := b.issuer.Key()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := b.Now().Unix()
	good := b.issuer.Token(nil)
	parts := strings.Split(good, ".")
	said := func(c claims) providertest.Forgery { return providertest.Forgery{Claims: c} }
	header := func(h map[string]any) providertest.Forgery { return providertest.Forgery{Header: h} }
	payload := func(format string) providertest.Forgery {
		return providertest.Forgery{Payload: fmt.Sprintf(format, b.issuer.URL, providertest.ClientID, now+300)}
	}
	for _, c := range []struct {
		token string
		class string
		cause string
		does  string
	}{
		{b.issuer.Forge(providertest.Forgery{Alg: "none"}), "malformed", "part 3", "alg none"},
		{b.issuer.Forge(providertest.Forgery{Header: map[string]any{"alg": "NoNe"}}), "algorithm", "NoNe", "alg none in mixed case"},
		{parts[0] + "." + parts[1] + ".", "malformed", "part 3", "no signature"},
		{b.issuer.Forge(providertest.Forgery{Key: public}), "algorithm", "HS256", "HS256 with the public key as secret"},
		{b.issuer.Forge(providertest.Forgery{Key: public, Header: map[string]any{"alg": "ES256"}}), "signature", "", "a MAC that calls itself ES256"},
		{b.issuer.Forge(providertest.Forgery{Key: stranger, Header: map[string]any{"kid": kid}}), "signature", "", "a key of somebody else under a known id"},
		{b.issuer.Forge(header(map[string]any{"alg": "ES384"})), "signature", "", "another algorithm than that of the signature"},
		{b.issuer.Forge(header(map[string]any{"kid": nil})), "malformed", "kid", "no key id"},
		{b.issuer.Forge(header(map[string]any{"kid": "other", "jku": "https://evil.example/keys"})), "key", "other", "a key elsewhere"},
		{b.issuer.Forge(header(map[string]any{"crit": []string{"exp"}})), "malformed", "crit", "crit"},
		{b.issuer.Forge(header(map[string]any{"CRIT": []string{"exp"}})), "malformed", "CRIT", "crit in capitals"},
		{b.issuer.Forge(header(map[string]any{"b64": false})), "malformed", "b64", "b64"},
		{b.issuer.Forge(header(map[string]any{"typ": "logout+jwt"})), "type", "logout+jwt", "a logout token"},
		{b.issuer.Forge(header(map[string]any{"typ": "dpop+jwt"})), "type", "dpop+jwt", "a key proof"},
		{b.issuer.Forge(header(map[string]any{"typ": 1})), "malformed", "typ", "a type that is a number"},
		{b.issuer.Forge(providertest.Forgery{RawHeader: `{"alg":"none","alg":"ES256","kid":"` + kid + `"}`}), "malformed", "twice", "alg twice"},

		{b.issuer.Token(claims{"iss": "https://elsewhere.example"}), "issuer", "elsewhere", "another issuer"},
		{b.issuer.Token(claims{"iss": b.issuer.URL + "/"}), "issuer", "", "the issuer with a slash"},
		{b.issuer.Token(claims{"iss": nil}), "malformed", "iss", "no issuer"},
		{b.issuer.Token(claims{"aud": "other"}), "audience", "other", "another audience"},
		{b.issuer.Token(claims{"aud": nil}), "audience", "", "no audience"},
		{b.issuer.Token(claims{"aud": []string{}}), "audience", "", "an empty audience"},
		{b.issuer.Token(claims{"aud": []any{providertest.ClientID, 1}}), "audience", "", "an audience with a number"},
		{b.issuer.Token(claims{"aud": strings.ToUpper(providertest.ClientID)}), "audience", "", "the audience in capitals"},
		{b.issuer.Token(claims{"aud": []string{providertest.ClientID, "other"}}), "audience", "azp", "two audiences and nobody it was issued to"},
		{b.issuer.Token(claims{"azp": "other"}), "audience", "azp", "issued to somebody else"},
		{b.issuer.Token(claims{"azp": nil, "AZP": "x"}), "malformed", "AZP", "azp in capitals"},
		{b.issuer.Token(claims{"exp": now - 60}), "expired", "", "expired a leeway ago"},
		{b.issuer.Token(claims{"exp": nil}), "claims", "exp is missing", "no exp"},
		{b.issuer.Token(claims{"exp": 0}), "claims", "exp", "exp 0"},
		{b.issuer.Token(claims{"exp": -1}), "claims", "exp", "exp before 1970"},
		{b.issuer.Token(claims{"exp": 1e300}), "claims", "exp", "exp after the end of time"},
		{b.issuer.Token(claims{"exp": fmt.Sprint(now + 300)}), "claims", "exp", "exp as a text"},
		{b.issuer.Token(claims{"iat": nil}), "claims", "iat is missing", "made at no time"},
		{b.issuer.Token(claims{"iat": now + 61}), "not yet valid", "iat", "made in the future"},
		{b.issuer.Token(claims{"nbf": now + 61}), "not yet valid", "nbf", "not valid yet"},
		{b.issuer.Token(claims{"nbf": "soon"}), "claims", "nbf", "nbf as a text"},
		{b.issuer.Token(claims{"sub": nil}), "claims", "sub", "no subject"},
		{b.issuer.Token(claims{"sub": ""}), "claims", "sub", "an empty subject"},
		{b.issuer.Token(claims{"sub": 7}), "claims", "sub", "a subject that is a number"},
		{b.issuer.Token(claims{"sub": "ann\nroot"}), "claims", "sub", "a subject with a line break"},
		{b.issuer.Token(claims{"sub": strings.Repeat("a", 256)}), "claims", "sub", "a long subject"},
		{b.issuer.Token(claims{"SUB": "root"}), "malformed", "SUB", "another subject in capitals"},
		{b.issuer.Token(claims{"sub": nil, "SUB": "root"}), "malformed", "SUB", "a subject in capitals alone"},
		{b.issuer.Token(claims{"ſub": "root"}), "malformed", "ſub", "a subject with a long s"},
		{b.issuer.Token(claims{"Team": "a", "team": "b"}), "malformed", "case", "a claim of ours in two cases"},
		{b.issuer.Token(claims{"jti": 1}), "claims", "jti", "a token id that is a number"},
		{b.issuer.Forge(payload(`{"iss":%q,"aud":%q,"exp":%d,"sub":"ann","sub":"root"}`)), "malformed", "twice", "two subjects"},
		{b.issuer.Forge(payload(`{"iss":%q,"aud":%q,"exp":%d,"sub":"ann","s\u0075b":"root"}`)), "malformed", "twice", "two subjects, one escaped"},
		{b.issuer.Forge(payload(`{"iss":%q,"aud":%q,"exp":%d,"sub":"ann","act":{"x":1,"x":2}}`)), "malformed", "twice", "a name twice inside"},
		{b.issuer.Forge(payload(`{"iss":%q,"aud":%q,"exp":%d,"sub":"ann"}{}`)), "malformed", "after", "two objects"},
		{b.issuer.Forge(payload(`{"iss":%q,"aud":%q,"exp":%d,"sub":"an` + "\xff" + `"}`)), "malformed", "UTF-8", "broken UTF-8"},
		{b.issuer.Forge(payload(`[{"iss":%q,"aud":%q,"exp":%d}]`)), "malformed", "object", "a list"},
		{b.issuer.Forge(payload(`{"iss":%q,"aud":%q,"exp":%d,"sub":"ann","x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`)), "malformed", "deep", "deep nesting"},
		{b.issuer.Forge(providertest.Forgery{Payload: `{"iss"`}), "malformed", "claims", "half an object"},

		{providertest.Tamper(good, `{"iss":"`+b.issuer.URL+`","aud":"coderclaw","sub":"root","iat":1,"exp":`+fmt.Sprint(now+300)+`}`), "signature", "", "changed claims"},
		{good + "\n", "malformed", "", "a line break at the end"},
		{parts[0] + "." + parts[1] + "." + parts[2][:10] + "\n" + parts[2][10:], "malformed", "", "a line break in the signature"},
		{good + "=", "malformed", "", "padding"},
		{otherPadding(t, good), "malformed", "", "other bits after the last byte"},
		{good + "." + parts[2], "malformed", "parts", "four parts"},
		{parts[0] + "." + parts[1], "malformed", "parts", "two parts"},
		{"", "malformed", "parts", "nothing"},
		{b.issuer.Token(claims{"x": strings.Repeat("x", 16<<10)}), "malformed", "bytes", "a huge token"},
		{`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "malformed", "", "the JSON form"},
		{b.issuer.Forge(said(claims{"_claim_names": claims{"groups": "x"}})), "signature", "", "a claim that is nowhere"},
	} {
		t.Run(c.does, func(t *testing.T) {
			_, err := b.set.VerifyToken(t.Context(), c.token)
			wantRefused(t, err, fault.Unauthenticated, "the token is not accepted: "+c.class, c.cause)
			if c.token != "" && strings.Contains(err.Error(), c.token) {
				t.Error("the error repeats the token")
			}
		})
	}
	if _, err := b.set.VerifyToken(t.Context(), good); err != nil {
		t.Fatalf("the honest token: %v", err)
	}
}

// otherPadding changes the bits of the last character that stand for nothing.
func otherPadding(t *testing.T, token string) string {
	t.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	other := token[:len(token)-1] + string(alphabet[last^1])
	one, err1 := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
	two, err2 := base64.RawURLEncoding.DecodeString(other[strings.LastIndexByte(other, '.')+1:])
	if err1 != nil || err2 != nil || string(one) != string(two) {
		t.Fatal("the two signatures are not the same bytes")
	}
	return other
}

func TestClocksMayBeAMinuteOff(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	now := b.Now().Unix()
	for _, c := range []claims{{"exp": now - 59}, {"iat": now + 60}, {"nbf": now + 60}, {"exp": json.Number(fmt.Sprint(now, ".5"))}} {
		if _, err := b.set.VerifyToken(t.Context(), b.issuer.Token(c)); err != nil {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestTokensForOthersTooMustBeIssuedToUs(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) { c.Audiences = []string{"coderclaw-api"} })
	for _, c := range []claims{
		{"aud": "coderclaw-api"},
		{"aud": []string{"coderclaw-api", "account"}, "azp": "coderclaw-api"},
	} {
		if _, err := b.set.VerifyToken(t.Context(), b.issuer.Forge(providertest.Forgery{Claims: c, Header: map[string]any{"typ": "at+jwt"}})); err != nil {
			t.Errorf("%v: %v", c, err)
		}
	}
	_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(nil))
	wantRefused(t, err, fault.Unauthenticated, "audience", "coderclaw-api")
}

func TestRequiredClaimsKeepOthersOut(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) {
		c.RequiredClaims = map[string]string{"tenant": "acme", "email_verified": "true", "level": "3", "groups": "staff"}
	})
	full := claims{"tenant": "acme", "email_verified": true, "level": 3, "groups": []string{"x", "staff"}}
	if _, err := b.set.VerifyToken(t.Context(), b.issuer.Token(full)); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{"tenant": "other", "email_verified": false, "level": nil, "groups": []string{"staff2"}} {
		changed := maps.Clone(full)
		changed[name] = value
		_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(changed))
		wantRefused(t, err, fault.Forbidden, "corp", name)
	}
}

func TestGroupsHaveRolesInProjects(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) {
		c.GroupsClaim = "groups"
		c.GroupRoles = map[string][]string{"dev": {"readonly"}}
		c.ProjectRoles = map[string]map[string][]string{"shop": {"dev": {"developer"}, "ops": {"admin"}}, "bank": {"ops": {"admin"}}}
	})
	got, err := b.set.VerifyToken(t.Context(), b.issuer.Token(claims{"groups": "dev"}))
	if err != nil || len(got.Roles) != 2 || !slices.Equal(got.Roles[""], []string{"readonly"}) || !slices.Equal(got.Roles["shop"], []string{"developer"}) {
		t.Fatalf("roles %q, %v", got.Roles, err)
	}
}

func TestGroupsThatCannotBeReadAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *provider.OIDC) { c.GroupsClaim = "groups" })
	for _, groups := range []any{7, []any{"a", 1}, []string{""}, []string{"a\nb"}, map[string]any{"a": true}} {
		_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(claims{"groups": groups}))
		wantRefused(t, err, fault.Unauthenticated, "claims", "groups")
	}
	got, err := b.set.VerifyToken(t.Context(), b.issuer.Token(claims{"groups": nil}))
	if err != nil || got.Groups != nil || got.Roles != nil {
		t.Fatalf("without groups: %+v, %v", got, err)
	}
}

func TestTheSameMailAtTwoIssuersIsTwoPeople(t *testing.T) {
	t.Parallel()
	at := newClock()
	one, two := providertest.NewIssuer(t), providertest.NewIssuer(t)
	one.Now, two.Now = at.Now, at.Now
	set := newSet(t, provider.Config{OIDC: []provider.OIDC{
		{Name: "one", Issuer: one.URL, Audiences: []string{providertest.ClientID}},
		{Name: "two", Issuer: two.URL, Audiences: []string{providertest.ClientID}},
	}}, at, nil)
	same := claims{"sub": "ann", "email": "ann@corp.example", "email_verified": true, "preferred_username": "ann"}
	a, err := set.VerifyToken(t.Context(), one.Token(same))
	if err != nil {
		t.Fatal(err)
	}
	b, err := set.VerifyToken(t.Context(), two.Token(same))
	if err != nil {
		t.Fatal(err)
	}
	if a.UserID != "oidc:one:ann" || b.UserID != "oidc:two:ann" {
		t.Errorf("the users are %s and %s", a.UserID, b.UserID)
	}
	// Both issuers call their key k1, and each is believed with its own only.
	_, key := two.Key()
	_, err = set.VerifyToken(t.Context(), one.Forge(providertest.Forgery{Key: key}))
	wantRefused(t, err, fault.Unauthenticated, "signature", "k1")
	if names := set.Logins(); len(names) != 0 {
		t.Errorf("people can log in at %q, where we are no client", names)
	}
}
