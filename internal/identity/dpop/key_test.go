package dpop_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/dpop"
)

const (
	// RFC 8037, appendix A.2.
	ed25519JWK = `{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	// RFC 9449, section 4.1.
	p256JWK = `{"crv":"P-256","kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}`
)

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func parseJWK(t testing.TB, text string) dpop.Key {
	t.Helper()
	k, err := dpop.ParseJWK([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestThumbprintsAreThoseOfTheRFCs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ says, jwk, algorithm, want, canonical string }{
		{"RFC 8037, appendix A.3", ed25519JWK, "EdDSA", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", ed25519JWK},
		{"RFC 9449, section 6.1", p256JWK, "ES256", "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", p256JWK},
		{
			"a browser's export", ` { "key_ops":["verify"], "ext":true, "alg":"ES256", "use":"sig", "kid":"1", ` + p256JWK[1:],
			"ES256", "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", p256JWK,
		},
		{
			"a key with the name of RFC 9864", `{"alg":"Ed25519",` + ed25519JWK[1:],
			"EdDSA", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", ed25519JWK,
		},
	} {
		k := parseJWK(t, row.jwk)
		if got := k.Thumbprint(); got != row.want {
			t.Errorf("%s: the thumbprint is %s, want %s", row.says, got, row.want)
		}
		if k.Algorithm() != row.algorithm || string(k.JWK()) != row.canonical {
			t.Errorf("%s: got %s %s", row.says, k.Algorithm(), k.JWK())
		}
	}
}

// RFC 8037, appendix A.5.
func TestAKeyVerifiesTheSignatureOfTheRFC(t *testing.T) {
	t.Parallel()
	message := []byte("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc")
	signature, err := base64.RawURLEncoding.DecodeString("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
	if err != nil {
		t.Fatal(err)
	}
	k := parseJWK(t, ed25519JWK)
	if !k.Verify(message, signature) {
		t.Error("it does not verify")
	}
	for says, wrong := range map[string][]byte{
		"none": nil, "a short one": signature[:63], "a long one": append(slices.Clone(signature), 0), "zeroes": make([]byte, 64),
	} {
		if k.Verify(message, wrong) {
			t.Errorf("%s verifies", says)
		}
	}
	if k.Verify(append(message, '.'), signature) || parseJWK(t, p256JWK).Verify(message, signature) {
		t.Error("it verifies another message or key")
	}
}

// lowOrder lists every encoding of a point of low order that crypto/ed25519
// decodes.
var lowOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func TestParseJWKRefusesKeysUnderWhichOneSignatureHoldsForAll(t *testing.T) {
	t.Parallel()
	for _, text := range lowOrder {
		point, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = dpop.ParseJWK(fmt.Appendf(nil, `{"kty":"OKP","crv":"Ed25519","x":%q}`, encode(point)))
		if fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s: %v", text, err)
		}
	}
	// What the refusal is for.
	identity := make([]byte, 32)
	identity[0] = 1
	signature := append(slices.Clone(identity), make([]byte, 32)...)
	if !ed25519.Verify(identity, []byte("any message"), signature) {
		t.Error("crypto/ed25519 refuses the key by itself now")
	}
}

func TestParseJWKRefuses(t *testing.T) {
	t.Parallel()
	const ed, ec = ed25519JWK, p256JWK
	nonCanonical := make([]byte, 32) // p + 3, which is 3
	for i := range nonCanonical {
		nonCanonical[i] = 0xff
	}
	nonCanonical[0], nonCanonical[31] = 0xed+3, 0x7f
	off := make([]byte, 32) // no point has y = 2
	off[0] = 2
	for _, row := range []struct{ says, in, old, with, want string }{
		{"nothing", ed, ed, "", "not a JSON object"},
		{"a list", ed, ed, "[" + ed + "]", "not a JSON object"},
		{"two keys", ed, ed, ed + ec, "not a JSON object"},
		{"a key of more than 4 KiB", ed, "{", `{"kid":"` + strings.Repeat("a", 4096) + `",`, "longer than 4096 bytes"},
		{"a private Ed25519 key", ed, "{", `{"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",`, `"d" is not accepted`},
		{"a private P-256 key", ec, "{", `{"d":"AAAA",`, `"d" is not accepted`},
		{"a private key that is null", ec, "{", `{"d":null,`, `"d" is not accepted`},
		{"a private key behind a capital", ec, "{", `{"D":"AAAA",`, `"d" is written "D"`},
		{"the key of RFC 7638", ed, ed, `{"kty":"RSA","n":"0vx7","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`, `"n" is not accepted`},
		{"a shared key", ed, ed, `{"kty":"oct","k":"AAAA"}`, `"k" is not accepted`},
		{"a key with a certificate", ed, "{", `{"x5c":["AAAA"],`, `"x5c" is not accepted`},
		{"a key that is fetched", ed, "{", `{"x5u":"http://169.254.169.254/",`, `"x5u" is not accepted`},
		{"a key that expires", ed, "{", `{"exp":1,`, `"exp" is not accepted`},
		{"a key for encryption", ed, "{", `{"use":"enc",`, "use is not sig"},
		{"a key that signs", ed, "{", `{"key_ops":["sign"],`, "key_ops is not verify alone"},
		{"a key that also derives", ec, "{", `{"key_ops":["verify","deriveBits"],`, "key_ops is not verify alone"},
		{"an Ed25519 key for ES256", ed, "{", `{"alg":"ES256",`, "alg is not that of the key"},
		{"a P-256 key for ES384", ec, "{", `{"alg":"ES384",`, "alg is not that of the key"},
		{"a P-256 key for none", ec, "{", `{"alg":"none",`, "alg is not that of the key"},
		{"a key without its type", ed, `"kty":"OKP",`, "", "neither OKP with Ed25519"},
		{"a key without its curve", ed, `"crv":"Ed25519",`, "", "neither OKP with Ed25519"},
		{"an X25519 key", ed, `"Ed25519"`, `"X25519"`, "neither OKP with Ed25519"},
		{"an Ed448 key", ed, `"Ed25519"`, `"Ed448"`, "neither OKP with Ed25519"},
		{"an EC key on Ed25519", ed, `"OKP"`, `"EC"`, "neither OKP with Ed25519"},
		{"a P-384 key", ec, `"P-256"`, `"P-384"`, "neither OKP with Ed25519"},
		{"a secp256k1 key", ec, `"P-256"`, `"secp256k1"`, "neither OKP with Ed25519"},
		{"a type with a space", ed, `"OKP"`, `"OKP "`, "neither OKP with Ed25519"},
		{"two coordinates of the same name", ed, "{", `{"x":"AAAA",`, `"x" comes twice`},
		{"an Ed25519 key with two coordinates", ed, "{", `{"y":"AAAA",`, "an Ed25519 key has no y"},
		{"an Ed25519 key of 31 bytes", ed, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", encode(make([]byte, 31)), "x has 31 bytes, not 32"},
		{"an Ed25519 key of 33 bytes", ed, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", encode(make([]byte, 33)), "x has 33 bytes, not 32"},
		{"an Ed25519 key of no byte", ed, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "", "x is empty"},
		{"an Ed25519 key that is padded", ed, "HURo", "HURo=", "x is not strict base64url"},
		{"an Ed25519 key with bits that do not count", ed, "HURo", "HURp", "x is not strict base64url"},
		{"an Ed25519 key with a line feed", ed, "HURo", `HUR\no`, "x is not strict base64url"},
		{"an Ed25519 key off the curve", ed, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", encode(off), "not on the curve"},
		{"an Ed25519 key in its other encoding", ed, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", encode(nonCanonical), "not in its canonical encoding"},
		{"a P-256 key without y", ec, `,"y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"`, "", "y is empty"},
		{"a P-256 key of a short y", ec, "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA", encode(make([]byte, 31)), "y has 31 bytes, not 32"},
		{"a P-256 key off the curve", ec, "9VE4", "9VE5", "not on the curve"},
		{"a P-256 key at infinity", ec, ec, `{"kty":"EC","crv":"P-256","x":"` + encode(make([]byte, 32)) + `","y":"` + encode(make([]byte, 32)) + `"}`, "not on the curve"},
		{"a P-256 key beyond the field", ec, "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", beyondField(), "not on the curve"},
		{"a coordinate that is a number", ed, `"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`, "1", `"x" has a value of the wrong type`},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(row.in, row.old, row.with, 1)
			if text == row.in {
				t.Fatalf("nothing says %s", row.old)
			}
			k, err := dpop.ParseJWK([]byte(text))
			if fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %s with %q", err, fault.Invalid, row.want)
			}
			if k.Thumbprint() != "" {
				t.Error("a key comes with the refusal")
			}
		})
	}
}

func beyondField() string {
	x := elliptic.P256().Params().P
	return encode(new(big.Int).Add(x, big.NewInt(5)).FillBytes(make([]byte, 32)))
}

func TestTheZeroKeyVerifiesNothing(t *testing.T) {
	t.Parallel()
	var k dpop.Key
	if k.Verify(nil, nil) || k.VerifyChallenge("c", encode(make([]byte, 64))) {
		t.Error("it verifies")
	}
	if k.Thumbprint() != "" || k.Algorithm() != "" || len(k.JWK()) != 0 {
		t.Errorf("it is %s, %s, %s", k.Thumbprint(), k.Algorithm(), k.JWK())
	}
}

func TestAnECDSASignatureOfZeroesOrBeyondTheOrderIsRefused(t *testing.T) {
	t.Parallel()
	k := parseJWK(t, p256JWK)
	order := elliptic.P256().Params().N.FillBytes(make([]byte, 32))
	zero, one := make([]byte, 32), append(make([]byte, 31), 1)
	for _, signature := range [][]byte{
		slices.Concat(zero, zero), slices.Concat(zero, one), slices.Concat(one, zero),
		slices.Concat(order, order), slices.Concat(one, order), slices.Concat(order, one),
	} {
		if k.Verify([]byte("message"), signature) {
			t.Errorf("%x verifies", signature)
		}
	}
}

// What is accepted is a public key that reads the same once it is written.
func FuzzParseJWK(f *testing.F) {
	f.Add([]byte(ed25519JWK))
	f.Add([]byte(p256JWK))
	f.Add([]byte(`{"key_ops":["verify"],"ext":true,"kty":"EC","crv":"P-256","x":"","y":""}`))
	for _, text := range lowOrder {
		point, _ := hex.DecodeString(text)
		f.Add(fmt.Appendf(nil, `{"kty":"OKP","crv":"Ed25519","x":%q}`, encode(point)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := dpop.ParseJWK(data)
		if err != nil {
			if fault.CodeOf(err) != fault.Invalid {
				t.Errorf("the refusal is %v", err)
			}
			return
		}
		again, err := dpop.ParseJWK(k.JWK())
		if err != nil || again.Thumbprint() != k.Thumbprint() || k.Thumbprint() == "" {
			t.Errorf("%s is read again as %s, %v", k.JWK(), again.JWK(), err)
		}
		k.Verify([]byte("message"), make([]byte, 64))
	})
}
