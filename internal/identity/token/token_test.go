package token_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/token"
)

const (
	issuerURL = "https://claw.example.com"
	audience  = "https://claw.example.com/v1"

	goodHeader  = `{"alg":"EdDSA","kid":"KID","typ":"at+jwt"}`
	goodPayload = `{"iss":"https://claw.example.com","aud":"https://claw.example.com/v1",` +
		`"sub":"github:42","sid":"s1","jti":"j1","iat":1700000000,"exp":1700000600}`
)

var now = time.Unix(1700000000, 0).UTC()

func newIssuer(t testing.TB) token.Issuer {
	t.Helper()
	i, err := token.NewIssuer(issuerURL, audience)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newKey(t testing.TB) token.Key {
	t.Helper()
	k, err := token.NewKey(now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func known(keys ...token.Key) func(string) (ed25519.PublicKey, bool) {
	return func(kid string) (ed25519.PublicKey, bool) {
		i := slices.IndexFunc(keys, func(k token.Key) bool { return k.ID == kid })
		if i < 0 {
			return nil, false
		}
		return keys[i].Public(), true
	}
}

// forge signs any header and payload; KID stands for the id of the key.
func forge(k token.Key, header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(strings.ReplaceAll(header, "KID", k.ID))) + "." + encode([]byte(payload))
	return signed + "." + encode(ed25519.Sign(k.Private, []byte(signed)))
}

func TestVerifyReturnsWhatWasSigned(t *testing.T) {
	t.Parallel()
	i, k := newIssuer(t), newKey(t)
	for _, want := range []token.Claims{
		{UserID: "local:ann", SessionID: "s1", ID: "j1", IssuedAt: now, ExpiresAt: now.Add(token.MaxLifetime)},
		{
			UserID: "oidc:okta:00u/Ü \"1\"", SessionID: "s2", ProjectID: "p", ID: "j2", KeyThumbprint: "jkt",
			IssuedAt: now, ExpiresAt: now.Add(time.Second),
		},
	} {
		raw, err := i.Sign(k, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := i.Verify(raw, known(newKey(t), k), now)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestVerifyAcceptsATokenWithClaimsOfALaterRelease(t *testing.T) {
	t.Parallel()
	i, k := newIssuer(t), newKey(t)
	payload := strings.TrimSuffix(goodPayload, "}") + `,"later":{"iss":"x"},"nbf":1700000060}`
	if _, err := i.Verify(forge(k, goodHeader, payload), known(k), now); err != nil {
		t.Error(err)
	}
}

func TestVerifyRefusesATokenThat(t *testing.T) {
	t.Parallel()
	i, k := newIssuer(t), newKey(t)
	for _, row := range []struct{ says, old, with, want string }{
		{"is of type JWT", `"at+jwt"`, `"JWT"`, "typ is not at+jwt"},
		{"is of type AT+JWT", `"at+jwt"`, `"AT+JWT"`, "typ is not at+jwt"},
		{"is of the type with its long name", `"at+jwt"`, `"application/at+jwt"`, "typ is not at+jwt"},
		{"has no type", `,"typ":"at+jwt"`, ``, "typ is not at+jwt"},
		{"is a device proof", `"at+jwt"`, `"dpop+jwt"`, "typ is not at+jwt"},
		{"says none for alg", `"EdDSA"`, `"none"`, "alg is not EdDSA"},
		{"says eddsa for alg", `"EdDSA"`, `"eddsa"`, "alg is not EdDSA"},
		{"says HS256 for alg", `"EdDSA"`, `"HS256"`, "alg is not EdDSA"},
		{"says ES256 for alg", `"EdDSA"`, `"ES256"`, "alg is not EdDSA"},
		{"has no alg", `"alg":"EdDSA",`, ``, "alg is not EdDSA"},
		{"has no kid", `"kid":"KID",`, ``, "kid is missing"},
		{"has an empty kid", `"KID"`, `""`, "kid is missing"},
		{"names a key that is not known", `"KID"`, `"other"`, "its key is not known"},
		{"has a kid that is a number", `"KID"`, `1`, `"kid" has a value of the wrong type`},
		{"has critical extensions", `{"alg"`, `{"crit":["exp"],"exp":1,"alg"`, `"crit" is not accepted`},
		{"has no critical extension but says crit", `{"alg"`, `{"crit":[],"alg"`, `"crit" is not accepted`},
		{"has two algs", `{"alg"`, `{"alg":"none","alg"`, `"alg" comes twice`},
		{"has an Alg beside its alg", `{"alg"`, `{"Alg":"none","alg"`, `"alg" is written "Alg"`},
		{"is of another issuer", `"iss":"https://claw.example.com"`, `"iss":"https://claw.example.com/"`, "iss is another issuer"},
		{"has an empty issuer", `"iss":"https://claw.example.com"`, `"iss":""`, "iss is another issuer"},
		{"has no issuer", `"iss":"https://claw.example.com",`, ``, "iss is another issuer"},
		{"is for another audience", `.com/v1"`, `.com/v2"`, "aud is another audience"},
		{"is for two audiences", `"https://claw.example.com/v1"`, `["https://claw.example.com/v1","b"]`, `"aud" has a value of the wrong type`},
		{"has no audience", `"aud":"https://claw.example.com/v1",`, ``, "aud is another audience"},
		{"never expires", `,"exp":1700000600`, ``, "iat or exp is missing"},
		{"expires at 0", `"exp":1700000600`, `"exp":0`, "iat or exp is missing"},
		{"expires before time began", `"exp":1700000600`, `"exp":-1`, "iat or exp is missing"},
		{"expires at null", `"exp":1700000600`, `"exp":null`, `"exp" has a value of the wrong type`},
		{"expires at a text", `"exp":1700000600`, `"exp":"1700000600"`, `"exp" has a value of the wrong type`},
		{"expires in the year 292277026596", `"exp":1700000600`, `"exp":9223372036854775807`, "lives longer"},
		{"expires at 1e300", `"exp":1700000600`, `"exp":1e300`, `"exp" has a value of the wrong type`},
		{"expires now", `"iat":1700000000,"exp":1700000600`, `"iat":1699999990,"exp":1700000000`, "it has expired"},
		{"was never issued", `"iat":1700000000,`, ``, "iat or exp is missing"},
		{"is issued in the future", `"iat":1700000000`, `"iat":1700000061`, "it is not valid yet"},
		{"is not to be used yet", `"iat"`, `"nbf":1700000061,"iat"`, "it is not valid yet"},
		{"is not to be used in this age of the universe", `"iat"`, `"nbf":9223372036854775807,"iat"`, "it is not valid yet"},
		{"is issued in the year 292277026596", `"iat":1700000000`, `"iat":9223372036854775807`, "it is not valid yet"},
		{"lives a second longer than it may", `1700000600`, `1700000601`, "it lives longer than 10m0s"},
		{"expires before it is issued", `"iat":1700000000,"exp":1700000600`, `"iat":1700000050,"exp":1700000040`, "exp is not after iat"},
		{"has no sub", `"sub":"github:42",`, ``, "sub, sid or jti is missing"},
		{"has no sid", `"sid":"s1",`, ``, "sub, sid or jti is missing"},
		{"has no jti", `"jti":"j1",`, ``, "sub, sid or jti is missing"},
		{"has an empty sub", `"github:42"`, `""`, "sub, sid or jti is missing"},
		{"has a SUB in place of its sub", `"sub"`, `"SUB"`, `"sub" is written "SUB"`},
		{"has a SUB beside its sub", `"sub"`, `"SUB":"operator","sub"`, `"sub" is written "SUB"`},
		{"has two subs", `"sub"`, `"sub":"operator","sub"`, `"sub" comes twice`},
		{"hides a second sub behind an escape", `"sub"`, `"\u0073ub":"operator","sub"`, `"sub" comes twice`},
		{"hides the key that it is bound to behind a capital", `"iat"`, `"Cnf":{"jkt":"a"},"iat"`, `"cnf" is written "Cnf"`},
		{"has two thumbprints", `"iat"`, `"cnf":{"jkt":"a","jkt":"b"},"iat"`, `in "cnf" "jkt" comes twice`},
		{"is bound to nothing", `"iat"`, `"cnf":null,"iat"`, `in "cnf"`},
		{"has a list for a payload", goodPayload, `[` + goodPayload + `]`, "not a JSON object"},
		{"has two payloads", goodPayload, goodPayload + goodPayload, "not a JSON object"},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			header := strings.Replace(goodHeader, row.old, row.with, 1)
			payload := strings.Replace(goodPayload, row.old, row.with, 1)
			if header == goodHeader && payload == goodPayload {
				t.Fatalf("nothing says %s", row.old)
			}
			refuses(t, i, forge(k, header, payload), known(k), row.want)
		})
	}
}

func refuses(t *testing.T, i token.Issuer, raw string, key func(string) (ed25519.PublicKey, bool), want string) {
	t.Helper()
	c, err := i.Verify(raw, key, now)
	if fault.CodeOf(err) != fault.Unauthenticated || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s with %q", err, fault.Unauthenticated, want)
	}
	if c != (token.Claims{}) {
		t.Errorf("claims come with the refusal: %+v", c)
	}
}

func TestVerifyRefusesATextThat(t *testing.T) {
	t.Parallel()
	i, k := newIssuer(t), newKey(t)
	good := forge(k, goodHeader, goodPayload)
	last := strings.LastIndexByte(good, '.')
	signature, err := base64.RawURLEncoding.DecodeString(good[last+1:])
	if err != nil {
		t.Fatal(err)
	}
	with := func(signature []byte) string {
		return good[:last+1] + base64.RawURLEncoding.EncodeToString(signature)
	}
	mac := hmac.New(sha256.New, k.Public())
	mac.Write([]byte(good[:last]))
	flipped := slices.Clone(signature)
	flipped[10] ^= 1

	for _, row := range []struct{ says, raw, want string }{
		{"is empty", "", "three parts"},
		{"is not signed", good[:last+1], "its signature is empty"},
		{"is longer than any of ours", good + strings.Repeat("A", 4096), "longer than 4096 bytes"},
		{"has a part more", good + ".e30", "three parts"},
		{"ends with a line feed", good + "\n", "its signature is not strict base64url"},
		{"has a line feed in its signature", good[:last+5] + "\n" + good[last+5:], "its signature is not strict base64url"},
		{"is padded", good + "==", "its signature is not strict base64url"},
		{"has a bit set that does not count", good[:len(good)-1] + nextLetter(good[len(good)-1]), "its signature is not strict base64url"},
		{"has one bit of the signature flipped", with(flipped), "the signature is wrong"},
		{"has a short signature", with(signature[:63]), "the signature is wrong"},
		{"has a long signature", with(append(slices.Clone(signature), 0)), "the signature is wrong"},
		{"has the other S of the same signature", with(addOrder(signature)), "the signature is wrong"},
		{"has a signature of zeroes", with(make([]byte, 64)), "the signature is wrong"},
		{"is signed by the public key as a shared one", with(mac.Sum(nil)), "the signature is wrong"},
		{"has its payload exchanged", strings.Replace(good, "."+middle(good)+".", "."+middle(forge(k, goodHeader, `{}`))+".", 1), "the signature is wrong"},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			refuses(t, i, row.raw, known(k), row.want)
		})
	}
	t.Run("names our key and is signed by another", func(t *testing.T) {
		t.Parallel()
		other := newKey(t)
		other.ID = k.ID
		refuses(t, i, forge(other, goodHeader, goodPayload), known(k), "the signature is wrong")
	})
	t.Run("is signed by a key of the wrong length", func(t *testing.T) {
		t.Parallel()
		short := func(string) (ed25519.PublicKey, bool) { return make(ed25519.PublicKey, 31), true }
		refuses(t, i, good, short, "the signature is wrong")
	})
	if _, err := i.Verify(good, known(k), now); err != nil {
		t.Errorf("the text that the others were made of: %v", err)
	}
}

func middle(raw string) string { return strings.Split(raw, ".")[1] }

// nextLetter changes the last bit of a last letter, of which four bits do not
// count in 64 bytes.
func nextLetter(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)+1:][:1]
}

// addOrder adds the order of the group to S, which is the same number there.
func addOrder(signature []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := slices.Clone(signature[32:])
	slices.Reverse(s)
	s = new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(s)
	return slices.Concat(signature[:32], s)
}

func TestTheZeroIssuerRefusesEverything(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	var zero token.Issuer
	payload := strings.NewReplacer(issuerURL+`"`, `"`, audience+`"`, `"`).Replace(goodPayload)
	refuses(t, zero, forge(k, goodHeader, payload), known(k), "no URL or no audience")
	if zero.Issued(forge(k, goodHeader, payload)) {
		t.Error("a token without an issuer is said to be ours")
	}
	claims := token.Claims{UserID: "u", SessionID: "s", ID: "j", IssuedAt: now, ExpiresAt: now.Add(time.Minute)}
	if _, err := zero.Sign(k, claims); err == nil {
		t.Error("it signs")
	}
	for _, row := range [][2]string{{"", audience}, {issuerURL, ""}} {
		if _, err := token.NewIssuer(row[0], row[1]); err == nil {
			t.Errorf("NewIssuer(%q, %q) succeeds", row[0], row[1])
		}
	}
}

func TestSignRefusesClaimsThatVerifyWould(t *testing.T) {
	t.Parallel()
	i, k := newIssuer(t), newKey(t)
	good := token.Claims{UserID: "u", SessionID: "s", ID: "j", IssuedAt: now, ExpiresAt: now.Add(time.Minute)}
	for _, row := range []struct {
		says string
		edit func(*token.Claims)
	}{
		{"no user", func(c *token.Claims) { c.UserID = "" }},
		{"no session", func(c *token.Claims) { c.SessionID = "" }},
		{"no id", func(c *token.Claims) { c.ID = "" }},
		{"no expiry", func(c *token.Claims) { c.ExpiresAt = time.Time{} }},
		{"no time of issue", func(c *token.Claims) { c.IssuedAt = time.Time{} }},
		{"no life", func(c *token.Claims) { c.ExpiresAt = c.IssuedAt }},
		{"a long life", func(c *token.Claims) { c.ExpiresAt = now.Add(token.MaxLifetime + time.Second) }},
		{"a text that makes it longer than Verify takes", func(c *token.Claims) { c.UserID = strings.Repeat("u", 4096) }},
	} {
		c := good
		row.edit(&c)
		if _, err := i.Sign(k, c); err == nil {
			t.Errorf("claims with %s are signed", row.says)
		}
	}
	if _, err := i.Sign(token.Key{}, good); err == nil {
		t.Error("a key that is none signs")
	}
	if _, err := i.Sign(k, good); err != nil {
		t.Error(err)
	}
}

func TestIssuedTellsOurTokensFromThoseOfOthers(t *testing.T) {
	t.Parallel()
	i, k := newIssuer(t), newKey(t)
	for _, row := range []struct {
		says, raw string
		want      bool
	}{
		{"our token", forge(k, goodHeader, goodPayload), true},
		{"our token, signed by anyone", forge(newKey(t), goodHeader, goodPayload), true},
		{"a token of GitHub", forge(k, goodHeader, `{"iss":"https://token.actions.githubusercontent.com"}`), false},
		{"a token whose issuer begins like ours", forge(k, goodHeader, `{"iss":"https://claw.example.com.evil.org"}`), false},
		{"a token without an issuer", forge(k, goodHeader, `{}`), false},
		{"a token of two issuers", forge(k, goodHeader, `{"iss":"https://claw.example.com","iss":"https://evil.org"}`), false},
		{"an API key", "ccl_1_abc", false},
		{"nothing", "", false},
	} {
		if got := i.Issued(row.raw); got != row.want {
			t.Errorf("Issued says %v of %s", got, row.says)
		}
	}
}

// Only what was signed verifies, in no other spelling.
func FuzzVerify(f *testing.F) {
	i := newIssuer(f)
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	k := token.Key{ID: "k1", Private: private}
	good := forge(k, goodHeader, goodPayload)
	f.Add(good)
	f.Add(good + "\n")
	f.Add(forge(k, goodHeader, strings.Replace(goodPayload, `"sub"`, `"SUB":"x","sub"`, 1)))
	f.Add(forge(k, `{"alg":"none","typ":"at+jwt"}`, goodPayload))
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		i.Issued(raw)
		c, err := i.Verify(raw, known(k), now)
		if (err == nil) != (raw == good) {
			t.Errorf("%q: %+v, %v", raw, c, err)
		}
		if err != nil && fault.CodeOf(err) != fault.Unauthenticated {
			t.Errorf("the refusal is %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	i, k := newIssuer(b), newKey(b)
	raw, err := i.Sign(k, token.Claims{
		UserID: "github:42", SessionID: "0198c5a0-0000-7000-8000-000000000000", ProjectID: "runtime", ID: "0198c5a0",
		KeyThumbprint: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", IssuedAt: now, ExpiresAt: now.Add(token.MaxLifetime),
	})
	if err != nil {
		b.Fatal(err)
	}
	keys := known(k)
	b.ReportAllocs()
	for b.Loop() {
		if !i.Issued(raw) {
			b.Fatal("not ours")
		}
		if _, err := i.Verify(raw, keys, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	i, k := newIssuer(b), newKey(b)
	c := token.Claims{UserID: "u", SessionID: "s", ID: "j", IssuedAt: now, ExpiresAt: now.Add(time.Minute)}
	for b.Loop() {
		if _, err := i.Sign(k, c); err != nil {
			b.Fatal(err)
		}
	}
}
