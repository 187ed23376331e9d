package dpop_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/dpop"
)

const (
	requestURL  = "https://claw.example.com/v1/tasks"
	accessToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU" // RFC 9449, section 7.1
	tokenHash   = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"

	goodHeader  = `{"typ":"dpop+jwt","alg":"EdDSA","jwk":JWK}`
	goodPayload = `{"jti":"e1j3V_bKic8-LAEB","htm":"POST","htu":"https://claw.example.com/v1/tasks",` +
		`"iat":1700000000,"ath":"fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"}`

	// The header of the proofs in RFC 9449.
	rfcHeader = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)

var now = time.Unix(1700000000, 0).UTC()

// forge signs any header and payload; JWK stands for the public key.
func forge(private ed25519.PrivateKey, header, payload string) string {
	jwk := `{"crv":"Ed25519","kty":"OKP","x":"` + encode(private.Public().(ed25519.PublicKey)) + `"}`
	signed := encode([]byte(strings.ReplaceAll(header, "JWK", jwk))) + "." + encode([]byte(payload))
	return signed + "." + encode(ed25519.Sign(private, []byte(signed)))
}

func newPrivate() ed25519.PrivateKey {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	return private
}

func TestVerifyAcceptsTheProofsOfTheRFC(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		says, payload, signature, method, url, accessToken, id string
		issued                                                 int64
	}{
		{
			"section 4.1",
			"eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ",
			"2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg",
			"POST", "https://server.example.com/token", "", "-BwC3ESc6acc2lTc", 1562262616,
		},
		{
			"section 7.1",
			"eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9",
			"2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
			"GET", "https://resource.example.org/protectedresource", accessToken, "e1j3V_bKic8-LAEB", 1562262618,
		},
	} {
		at := time.Unix(row.issued, 0)
		p, err := dpop.Verify(rfcHeader+"."+row.payload+"."+row.signature, row.method, row.url, row.accessToken, at)
		if err != nil {
			t.Errorf("%s: %v", row.says, err)
			continue
		}
		if p.ID != row.id || !p.IssuedAt.Equal(at) || p.Nonce != "" ||
			p.Thumbprint != "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" || p.Key.Thumbprint() != p.Thumbprint {
			t.Errorf("%s: got %+v", row.says, p)
		}
	}
}

func TestVerifyAcceptsAProofThat(t *testing.T) {
	t.Parallel()
	private := newPrivate()
	for _, row := range []struct{ says, old, with string }{
		{"is as it should be", "", ""},
		{"is made a minute ago", "1700000000", "1699999940"},
		{"is made by a clock that is a minute ahead", "1700000000", "1700000060"},
		{"writes its host in capitals", "claw.example.com", "CLAW.Example.com"},
		{"writes its scheme in capitals", "https:", "HTTPS:"},
		{"writes the port that https has anyway", "claw.example.com", "claw.example.com:443"},
		{"escapes what needs no escape", "/v1/tasks", "/v1/%74as%6Bs"},
		{"has a query, which is ignored", "/v1/tasks", "/v1/tasks?limit=1"},
		{"has a fragment, which is ignored", "/v1/tasks", "/v1/tasks#top"},
		{"says more than we know", `"jti"`, `"later":{"htm":"GET"},"jti"`},
		{"has more in its header than we know", `"typ"`, `"kid":"1","typ"`},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			raw := forge(private, strings.Replace(goodHeader, row.old, row.with, 1), strings.Replace(goodPayload, row.old, row.with, 1))
			if _, err := dpop.Verify(raw, "POST", requestURL, accessToken, now); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVerifyRefusesAProofThat(t *testing.T) {
	t.Parallel()
	private := newPrivate()
	other := `{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	for _, row := range []struct{ says, old, with, want string }{
		{"is of type JWT", `"dpop+jwt"`, `"JWT"`, "typ is not dpop+jwt"},
		{"is of type DPoP+jwt", `"dpop+jwt"`, `"DPoP+jwt"`, "typ is not dpop+jwt"},
		{"is an access token", `"dpop+jwt"`, `"at+jwt"`, "typ is not dpop+jwt"},
		{"has no type", `"typ":"dpop+jwt",`, ``, "typ is not dpop+jwt"},
		{"says none for alg", `"EdDSA"`, `"none"`, "alg is not that of the key"},
		{"says HS256 for alg", `"EdDSA"`, `"HS256"`, "alg is not that of the key"},
		{"says ES256 with an Ed25519 key", `"EdDSA"`, `"ES256"`, "alg is not that of the key"},
		{"has no alg", `"alg":"EdDSA",`, ``, "alg is not that of the key"},
		{"has critical extensions", `{"typ"`, `{"crit":["b64"],"b64":false,"typ"`, `"crit" is not accepted`},
		{"has two types", `{"typ"`, `{"typ":"JWT","typ"`, `"typ" comes twice`},
		{"brings no key", `,"jwk":JWK`, ``, "jwk is missing"},
		{"brings a key that is null", `JWK`, `null`, `"jwk" has a value of the wrong type`},
		{"brings a key that is a text", `JWK`, `"key"`, "not a JSON object"},
		{"brings another's key", `JWK`, other, "the signature is wrong"},
		{"brings a P-256 key for its Ed25519 signature", `"EdDSA","jwk":JWK`, `"ES256","jwk":` + p256JWK, "the signature is wrong"},
		{"brings its private key", `JWK`, `{"d":"AAAA",` + other[1:], `in its jwk "d" is not accepted`},
		{"brings a key of low order", `JWK`, strings.Replace(other, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 1), "low order"},
		{"brings two keys", `"jwk":JWK`, `"jwk":JWK,"jwk":JWK`, `"jwk" comes twice`},
		{"has no jti", `"jti":"e1j3V_bKic8-LAEB",`, ``, "jti is not"},
		{"has an empty jti", `e1j3V_bKic8-LAEB`, ``, "jti is not"},
		{"has a jti of 129 characters", `e1j3V_bKic8-LAEB`, strings.Repeat("j", 129), "jti is not"},
		{"has a jti that no database stores", `e1j3V_bKic8-LAEB`, `a\u0000`, "jti is not"},
		{"has a jti with a line feed", `e1j3V_bKic8-LAEB`, `a\nb`, "jti is not"},
		{"has a jti with a space", `e1j3V_bKic8-LAEB`, `a b`, "jti is not"},
		{"has a jti that is not ASCII", `e1j3V_bKic8-LAEB`, `ü`, "jti is not"},
		{"has a jti that is a number", `"e1j3V_bKic8-LAEB"`, `1`, `"jti" has a value of the wrong type`},
		{"has two jtis", `"jti"`, `"jti":"x","jti"`, `"jti" comes twice`},
		{"has a JTI in place of its jti", `"jti"`, `"JTI"`, `"jti" is written "JTI"`},
		{"has a long nonce", `"jti"`, `"nonce":"` + strings.Repeat("n", 129) + `","jti"`, "nonce is not"},
		{"has a nonce with a line feed", `"jti"`, `"nonce":"a\n","jti"`, "nonce is not"},
		{"is for GET", `"POST"`, `"GET"`, "htm is another method"},
		{"is for post in small letters", `"POST"`, `"post"`, "htm is another method"},
		{"is for no method", `"htm":"POST",`, ``, "htm is another method"},
		{"is made 61 seconds ago", "1700000000", "1699999939", "iat is too long ago"},
		{"is made by a clock that is 61 seconds ahead", "1700000000", "1700000061", "iat is in the future"},
		{"is made at no time", `"iat":1700000000,`, ``, "iat is too long ago"},
		{"is made at the end of time", "1700000000", "9223372036854775807", "iat is"},
		{"is made at a fraction of a second", "1700000000", "1700000000.5", `"iat" has a value of the wrong type`},
		{"is made at a text", "1700000000", `"1700000000"`, `"iat" has a value of the wrong type`},
		{"is for no access token", `,"ath":"` + tokenHash + `"`, ``, "ath is not of the access token"},
		{"is for another access token", "fUHyO2r2", "fUHyO2r3", "ath is not of the access token"},
		{"is for an empty access token", tokenHash, ``, "ath is not of the access token"},
		{"has the hash of the access token padded", tokenHash, tokenHash + "=", "ath is not of the access token"},
		{"has null for the hash", `"` + tokenHash + `"`, `null`, `"ath" has a value of the wrong type`},
		{"is for no URL", `"htu":"https://claw.example.com/v1/tasks",`, ``, "htu is not an absolute"},
		{"is for a path alone", "https://claw.example.com/v1/tasks", "/v1/tasks", "htu is not an absolute"},
		{"is for another scheme", "https://claw", "http://claw", "htu is another URL"},
		{"is for a scheme that is not of the web", "https://claw", "ftp://claw", "htu is not an absolute"},
		{"is for another host", "claw.example.com", "claw.example.org", "htu is another URL"},
		{"is for a host that begins like ours", "claw.example.com", "claw.example.com.evil.org", "htu is another URL"},
		{"is for a host that Unicode spells like ours", "claw.example.com", "claw.example\u3002com", "htu is another URL"},
		{"is for another port", "claw.example.com", "claw.example.com:8443", "htu is another URL"},
		{"is for the port of the other scheme", "claw.example.com", "claw.example.com:80", "htu is another URL"},
		{"is for a user", "claw.example.com", "me@claw.example.com", "htu has a user"},
		{"is for another path", "/v1/tasks", "/v1/agents", "htu is another URL"},
		{"is for a path in capitals", "/v1/tasks", "/v1/Tasks", "htu is another URL"},
		{"is for a path with a slash more", "/v1/tasks", "/v1/tasks/", "htu is another URL"},
		{"is for a path with two slashes", "/v1/tasks", "/v1//tasks", "htu is another URL"},
		{"is for a path with an escaped slash", "/v1/tasks", "/v1%2Ftasks", "htu is another URL"},
		{"is for a path with dots", "/v1/tasks", "/v1/x/../tasks", "htu is another URL"},
		{"is for what is no URL", "https://claw", "https://%zz", "htu is not a URL"},
		{"has a list for a payload", goodPayload, `[]`, "not a JSON object"},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			header := strings.Replace(goodHeader, row.old, row.with, 1)
			payload := strings.Replace(goodPayload, row.old, row.with, 1)
			if header == goodHeader && payload == goodPayload {
				t.Fatalf("nothing says %s", row.old)
			}
			refuses(t, forge(private, header, payload), accessToken, row.want)
		})
	}
}

func refuses(t *testing.T, raw, accessToken, want string) {
	t.Helper()
	p, err := dpop.Verify(raw, "POST", requestURL, accessToken, now)
	if fault.CodeOf(err) != fault.Unauthenticated || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s with %q", err, fault.Unauthenticated, want)
	}
	if p.Thumbprint != "" || p.ID != "" {
		t.Errorf("a proof comes with the refusal: %+v", p)
	}
}

func TestVerifyRefusesATextThat(t *testing.T) {
	t.Parallel()
	private := newPrivate()
	good := forge(private, goodHeader, goodPayload)
	last := strings.LastIndexByte(good, '.')
	signature, err := base64.RawURLEncoding.DecodeString(good[last+1:])
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(signature)
	flipped[40] ^= 1
	for _, row := range []struct{ says, raw, accessToken, want string }{
		{"is empty", "", accessToken, "three parts"},
		{"is two proofs", good + ", " + good, accessToken, "three parts"},
		{"is longer than any proof", strings.Repeat("A", 8193), accessToken, "longer than 8192 bytes"},
		{"is not signed", good[:last+1], accessToken, "its signature is empty"},
		{"ends with a line feed", good + "\n", accessToken, "its signature is not strict base64url"},
		{"is padded", good + "==", accessToken, "its signature is not strict base64url"},
		{"has one bit of the signature flipped", good[:last+1] + encode(flipped), accessToken, "the signature is wrong"},
		{"has a short signature", good[:last+1] + encode(signature[:32]), accessToken, "the signature is wrong"},
		{"is for an access token that the request does not have", good, "", "ath is of an access token"},
		{"is for the access token of another request", good, accessToken + "x", "ath is not of the access token"},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			refuses(t, row.raw, row.accessToken, row.want)
		})
	}
}

// The second signature of ECDSA is as good as the first, so what tells proofs
// apart must not be their text.
func TestTheOtherECDSASignatureIsTheSameProof(t *testing.T) {
	t.Parallel()
	s, err := dpop.GenerateP256()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Proof("POST", requestURL, accessToken, "", now)
	if err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndexByte(raw, '.')
	signature, err := base64.RawURLEncoding.DecodeString(raw[last+1:])
	if err != nil {
		t.Fatal(err)
	}
	negated := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(signature[32:])).FillBytes(make([]byte, 32))
	replays := dpop.NewReplays(10)
	for i, text := range []string{raw, raw[:last+1] + encode(slices.Concat(signature[:32], negated))} {
		p, err := dpop.Verify(text, "POST", requestURL, accessToken, now)
		if err != nil {
			t.Fatal(err)
		}
		if seen := replays.Seen(p, now); seen != (i == 1) {
			t.Errorf("signature %d: seen is %v", i, seen)
		}
	}
}

func TestVerifyComparesWithTheURLOfTheRequestAlike(t *testing.T) {
	t.Parallel()
	private := newPrivate()
	for _, row := range []struct {
		htu, requested string
		want           bool
	}{
		{"https://claw.example.com", "https://claw.example.com/", true},
		{"http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1?x=1", true},
		{"http://127.0.0.1:80/v1", "http://127.0.0.1/v1", true},
		{"http://[::1]:8080/v1", "http://[::1]:8080/v1", true},
		{"http://[::1]:80/v1", "http://[::1]/v1", true},
		{"http://[2001:DB8::1]/v1", "http://[2001:db8::1]/v1", true},
		{"https://a/%7ex%c3%bc", "https://a/~x%C3%BC", true},
		{"https://a/ü", "https://a/%C3%BC", true},
		{"https://a/x%252F", "https://a/x%2F", false},
		{"https://a/x", "a/x", false},
		{"https://a/x", "", false},
		{"https://\u212a/x", "https://k/x", false},
	} {
		payload := strings.Replace(goodPayload, requestURL, row.htu, 1)
		_, err := dpop.Verify(forge(private, goodHeader, payload), "POST", row.requested, accessToken, now)
		if (err == nil) != row.want {
			t.Errorf("a proof for %s at %s: %v", row.htu, row.requested, err)
		}
	}
}

// Only what was signed verifies, in no other spelling.
func FuzzVerify(f *testing.F) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	good := forge(private, goodHeader, goodPayload)
	f.Add(good)
	f.Add(good + "\n")
	f.Add(forge(private, goodHeader, strings.Replace(goodPayload, `"htm"`, `"HTM":"GET","htm"`, 1)))
	f.Add(forge(private, strings.Replace(goodHeader, "JWK", p256JWK, 1), goodPayload))
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := dpop.Verify(raw, "POST", requestURL, accessToken, now)
		if (err == nil) != (raw == good) {
			t.Errorf("%q: %+v, %v", raw, p, err)
		}
		if err != nil && fault.CodeOf(err) != fault.Unauthenticated {
			t.Errorf("the refusal is %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for name, generate := range map[string]func() (*dpop.Signer, error){"Ed25519": dpop.GenerateEd25519, "P-256": dpop.GenerateP256} {
		b.Run(name, func(b *testing.B) {
			s, err := generate()
			if err != nil {
				b.Fatal(err)
			}
			raw, err := s.Proof("POST", requestURL, accessToken, "nonce", now)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := dpop.Verify(raw, "POST", requestURL, accessToken, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
