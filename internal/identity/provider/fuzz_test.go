package provider_test

import (
	"encoding/json"
	"testing"

	"github.com/coderclaw/runtime/internal/identity/provider"
)

// What we read out of accepted claims is what encoding/json, and so every
// library that is built on it, reads.
func FuzzClaimsMeanOneThing(f *testing.F) {
	for _, seed := range []string{
		`{"iss":"https://idp.example","sub":"ann","aud":["a"]}`,
		`{"sub":"ann","SUB":"root"}`,
		`{"sub":"ann","\u0073ub":"root"}`,
		`{"ſub":"root"}`,
		`{"sub":"ann"}{"sub":"root"}`,
		`{"a":{"b":[{"c":1},{"c":2}]},"sub":"ann"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		issuer, subject, err := provider.ReadClaims(payload)
		if err != nil {
			return
		}
		var other struct {
			Issuer  any `json:"iss"`
			Subject any `json:"sub"`
		}
		if err := json.Unmarshal(payload, &other); err != nil {
			t.Fatalf("only we accept %q: %v", payload, err)
		}
		if text, _ := other.Issuer.(string); text != issuer {
			t.Errorf("iss of %q is %q or %q", payload, issuer, text)
		}
		if text, _ := other.Subject.(string); text != subject {
			t.Errorf("sub of %q is %q or %q", payload, subject, text)
		}
	})
}
