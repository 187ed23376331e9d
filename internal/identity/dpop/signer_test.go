package dpop_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/identity/dpop"
)

// eachSigner runs a test with both kinds of keys.
func eachSigner(t *testing.T, test func(t *testing.T, s *dpop.Signer)) {
	for name, generate := range map[string]func() (*dpop.Signer, error){"Ed25519": dpop.GenerateEd25519, "P-256": dpop.GenerateP256} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := generate()
			if err != nil {
				t.Fatal(err)
			}
			test(t, s)
		})
	}
}

func TestAProofVerifiesForItsRequest(t *testing.T) {
	t.Parallel()
	eachSigner(t, func(t *testing.T, s *dpop.Signer) {
		for _, row := range []struct{ accessToken, nonce string }{{"", ""}, {accessToken, ""}, {"", "n1"}, {accessToken, "n2"}} {
			raw, err := s.Proof("GET", requestURL+"?limit=5#x", row.accessToken, row.nonce, now)
			if err != nil {
				t.Fatal(err)
			}
			p, err := dpop.Verify(raw, "GET", requestURL, row.accessToken, now)
			if err != nil {
				t.Fatal(err)
			}
			if p.Thumbprint != s.Key().Thumbprint() || p.Nonce != row.nonce || !p.IssuedAt.Equal(now) || len(p.ID) < 16 {
				t.Errorf("got %+v", p)
			}
		}
	})
}

func TestEachProofHasItsOwnID(t *testing.T) {
	t.Parallel()
	s, err := dpop.GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for range 20 {
		raw, err := s.Proof("GET", requestURL, "", "", now)
		if err != nil {
			t.Fatal(err)
		}
		p, err := dpop.Verify(raw, "GET", requestURL, "", now)
		if err != nil {
			t.Fatal(err)
		}
		ids[p.ID] = true
	}
	if len(ids) != 20 {
		t.Errorf("20 proofs have %d ids", len(ids))
	}
}

func TestAProofIsOnlyMadeForAnAbsoluteURL(t *testing.T) {
	t.Parallel()
	s, err := dpop.GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"", "/v1/tasks", "claw.example.com/v1", "https:///v1", "https://me:secret@claw.example.com/", "unix:/run/claw.sock"} {
		if _, err := s.Proof("GET", url, "", "", now); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestAChallengeIsAnsweredByItsKeyAlone(t *testing.T) {
	t.Parallel()
	eachSigner(t, func(t *testing.T, s *dpop.Signer) {
		signature, err := s.SignChallenge("https://claw.example.com 123")
		if err != nil {
			t.Fatal(err)
		}
		other, err := dpop.GenerateEd25519()
		if err != nil {
			t.Fatal(err)
		}
		empty, err := s.SignChallenge("")
		if err != nil {
			t.Fatal(err)
		}
		plain, err := base64.RawURLEncoding.DecodeString(signature)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			says                 string
			key                  dpop.Key
			challenge, signature string
			want                 bool
		}{
			{"the answer", s.Key(), "https://claw.example.com 123", signature, true},
			{"the answer to another challenge", s.Key(), "https://claw.example.com 124", signature, false},
			{"the answer of another key", other.Key(), "https://claw.example.com 123", signature, false},
			{"no answer", s.Key(), "https://claw.example.com 123", "", false},
			{"the answer, padded", s.Key(), "https://claw.example.com 123", signature + "==", false},
			{"the answer and a line feed", s.Key(), "https://claw.example.com 123", signature + "\n", false},
			{"the answer cut short", s.Key(), "https://claw.example.com 123", encode(plain[:63]), false},
			{"the answer to an empty challenge", s.Key(), "", empty, false},
		} {
			if got := row.key.VerifyChallenge(row.challenge, row.signature); got != row.want {
				t.Errorf("%s: got %v", row.says, got)
			}
		}
	})
}

// A server chooses the challenge, so it must not get a proof signed that way.
func TestTheSignatureOfAChallengeIsNoneOfAProof(t *testing.T) {
	t.Parallel()
	eachSigner(t, func(t *testing.T, s *dpop.Signer) {
		raw, err := s.Proof("POST", requestURL, accessToken, "", now)
		if err != nil {
			t.Fatal(err)
		}
		last := strings.LastIndexByte(raw, '.')
		signature, err := s.SignChallenge(raw[:last])
		if err != nil {
			t.Fatal(err)
		}
		refuses(t, raw[:last+1]+signature, accessToken, "the signature is wrong")
		if s.Key().VerifyChallenge(raw[:last], raw[last+1:]) {
			t.Error("the signature of a proof answers a challenge")
		}
	})
}

func TestASignerSurvivesItsFile(t *testing.T) {
	t.Parallel()
	eachSigner(t, func(t *testing.T, s *dpop.Signer) {
		data, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := dpop.ParseSigner(data)
		if err != nil {
			t.Fatal(err)
		}
		if again.Key().Thumbprint() != s.Key().Thumbprint() {
			t.Errorf("got %v, want %v", again, s)
		}
		signature, err := again.SignChallenge("c")
		if err != nil || !s.Key().VerifyChallenge("c", signature) {
			t.Errorf("it does not sign as before: %v", err)
		}
	})
}

func TestParseSignerRefuses(t *testing.T) {
	t.Parallel()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := func(private any) []byte {
		data, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	block := func(kind string, data []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}) }
	good := block("PRIVATE KEY", der(newPrivate()))
	for _, row := range []struct {
		says string
		data []byte
		want string
	}{
		{"nothing", nil, "not one PEM block"},
		{"a text", []byte("key"), "not one PEM block"},
		{"a key with a text after it", append(append([]byte{}, good...), "x"...), "not one PEM block"},
		{"a block of another type", block("EC PRIVATE KEY", der(p384)), "not one PEM block"},
		{"a block of noise", block("PRIVATE KEY", []byte("noise")), "not PKCS#8"},
		{"a P-384 key", block("PRIVATE KEY", der(p384)), "not P-256"},
		{"a key that does not sign", block("PRIVATE KEY", der(x25519)), "does not sign"},
	} {
		if _, err := dpop.ParseSigner(row.data); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.says, err, row.want)
		}
	}
	if _, err := dpop.NewSigner(ed25519.PrivateKey(make([]byte, 31))); err == nil {
		t.Error("a private key of 31 bytes is taken")
	}
	if _, err := dpop.NewSigner(nil); err == nil {
		t.Error("no private key is taken")
	}
	if _, err := dpop.NewSigner(&ecdsa.PrivateKey{}); err == nil {
		t.Error("an empty private key is taken")
	}
}

func TestASignerIsNeverPrinted(t *testing.T) {
	t.Parallel()
	eachSigner(t, func(t *testing.T, s *dpop.Signer) {
		encoded, err := json.Marshal(map[string]any{"key": s})
		if err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", s)
		for _, text := range []string{
			fmt.Sprintf("%v", s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), string(encoded), log.String(),
		} {
			if !strings.Contains(text, "[device key "+s.Key().Thumbprint()+"]") || len(text) > 200 {
				t.Errorf("it prints as %s", text)
			}
		}
	})
}
