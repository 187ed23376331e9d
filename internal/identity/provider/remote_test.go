package provider_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
)

// accept demands that a token is accepted.
func (b bench) accept(t *testing.T, token string) {
	t.Helper()
	if _, err := b.set.VerifyToken(t.Context(), token); err != nil {
		t.Fatal(err)
	}
}

func (b bench) unknownKey(t *testing.T, kid string) {
	t.Helper()
	_, err := b.set.VerifyToken(t.Context(), b.issuer.Forge(providertest.Forgery{Header: map[string]any{"kid": kid}}))
	wantRefused(t, err, fault.Unauthenticated, "key", kid)
}

func (b bench) wantFetches(t *testing.T, want int) {
	t.Helper()
	if got := b.issuer.Fetches(providertest.JWKS); got != want {
		t.Fatalf("the keys were fetched %d times, want %d", got, want)
	}
}

func TestTokensOfStrangersCostNoNetwork(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	other := providertest.NewIssuer(t)
	for _, token := range []string{
		other.Token(nil),
		b.issuer.Token(claims{"iss": other.URL}),
		b.issuer.Token(claims{"aud": "other"}),
		b.issuer.Token(claims{"exp": 1}),
		b.issuer.Forge(providertest.Forgery{Alg: "none"}),
	} {
		if _, err := b.set.VerifyToken(t.Context(), token); err == nil {
			t.Fatal("it was accepted")
		}
	}
	for _, i := range []*providertest.Issuer{b.issuer, other} {
		if n := i.Fetches(providertest.Discovery) + i.Fetches(providertest.JWKS); n != 0 {
			t.Errorf("an issuer was asked %d times", n)
		}
	}
}

func TestAFloodOfUnknownKeysCostsOneLookIn10Seconds(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for i := range 200 {
		b.unknownKey(t, fmt.Sprint("flood", i))
	}
	b.wantFetches(t, 1)
	b.accept(t, b.issuer.Token(nil))
	b.Advance(10 * time.Second)
	for i := range 200 {
		b.unknownKey(t, fmt.Sprint("more", i))
	}
	b.wantFetches(t, 2)
	if n := b.issuer.Fetches(providertest.Discovery); n != 2 {
		t.Errorf("the issuer was discovered %d times", n)
	}
}

func TestAFloodAtOnceCostsOneLook(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	good := b.issuer.Token(nil)
	var all sync.WaitGroup
	for i := range 50 {
		bad := b.issuer.Forge(providertest.Forgery{Header: map[string]any{"kid": fmt.Sprint("flood", i)}})
		all.Go(func() {
			if _, err := b.set.VerifyToken(t.Context(), bad); fault.CodeOf(err) != fault.Unauthenticated {
				t.Errorf("an unknown key: %v", err)
			}
		})
		all.Go(func() {
			if _, err := b.set.VerifyToken(t.Context(), good); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b.wantFetches(t, 1)
}

func TestAKeyThatIsNotThereIsNotLookedForAgainForAMinute(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.unknownKey(t, "gone")
	for range 5 {
		b.Advance(11 * time.Second)
		b.unknownKey(t, "gone")
	}
	b.wantFetches(t, 1)
	b.Advance(11 * time.Second)
	b.unknownKey(t, "gone")
	b.wantFetches(t, 2)
}

func TestBadSignaturesCostNoLook(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	good := b.issuer.Token(nil)
	b.accept(t, good)
	b.Advance(30 * time.Second)
	payload := fmt.Sprintf(`{"iss":%q,"aud":"coderclaw","sub":"root","iat":1,"exp":%d}`, b.issuer.URL, b.Now().Unix()+60)
	for range 50 {
		_, err := b.set.VerifyToken(t.Context(), providertest.Tamper(good, payload))
		wantRefused(t, err, fault.Unauthenticated, "signature", "")
	}
	b.wantFetches(t, 1)
}

func TestARotatedKeyIsPickedUpAndTheOldOneDropped(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	old := b.issuer.Token(claims{"exp": b.Now().Add(time.Hour).Unix()})
	b.accept(t, old)
	b.issuer.Rotate(t, "k2")
	b.Advance(10 * time.Second)
	b.accept(t, b.issuer.Token(nil))
	_, err := b.set.VerifyToken(t.Context(), old)
	wantRefused(t, err, fault.Unauthenticated, "key", "k1")
	b.wantFetches(t, 2)
}

func TestAWithdrawnKeyIsDroppedWithoutANewOneInUse(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	old := b.issuer.Token(claims{"exp": b.Now().Add(time.Hour).Unix()})
	b.accept(t, old)
	b.issuer.Rotate(t, "k2")
	b.Advance(14 * time.Minute)
	b.accept(t, old)
	b.Advance(time.Minute)
	_, err := b.set.VerifyToken(t.Context(), old)
	wantRefused(t, err, fault.Unauthenticated, "key", "k1")
}

func TestKnownKeysOutliveTheirIssuerForADay(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.accept(t, b.issuer.Token(nil))
	b.issuer.SetDown(true)
	for range 23 {
		b.Advance(time.Hour)
		b.accept(t, b.issuer.Token(nil))
	}
	_, err := b.set.VerifyToken(t.Context(), b.issuer.Forge(providertest.Forgery{Header: map[string]any{"kid": "new"}}))
	wantRefused(t, err, fault.Unavailable, "cannot be reached", "")
	b.Advance(time.Hour)
	_, err = b.set.VerifyToken(t.Context(), b.issuer.Token(nil))
	wantRefused(t, err, fault.Unavailable, "cannot be reached", "")
	b.issuer.SetDown(false)
	b.Advance(10 * time.Second)
	b.accept(t, b.issuer.Token(nil))
}

func TestAnIssuerThatIsDownIsAskedAgainLater(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.issuer.SetDown(true)
	for range 20 {
		_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(nil))
		wantRefused(t, err, fault.Unavailable, "cannot be reached", "discover")
	}
	// Go's client repeats a GET whose connection broke before an answer.
	asked := b.issuer.Fetches(providertest.Discovery)
	if asked < 1 || asked > 2 {
		t.Errorf("it was asked %d times", asked)
	}
	b.issuer.SetDown(false)
	_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(nil))
	wantRefused(t, err, fault.Unavailable, "cannot be reached", "")
	b.Advance(10 * time.Second)
	b.accept(t, b.issuer.Token(nil))
}

func TestASlowIssuerIsGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.set.SetAskTimeout(20 * time.Millisecond)
	b.issuer.Answer(providertest.JWKS, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(nil))
	wantRefused(t, err, fault.Unavailable, "cannot be reached", "deadline")
}

func TestWhatIssuersMustNotPublish(t *testing.T) {
	t.Parallel()
	elsewhere := providertest.NewIssuer(t)
	metadata := func(name string, value any) func(bench) {
		return func(b bench) {
			m := b.issuer.Metadata()
			m[name] = value
			b.issuer.Answer(providertest.Discovery, func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(m) })
		}
	}
	keys := func(h http.HandlerFunc) func(bench) {
		return func(b bench) { b.issuer.Answer(providertest.JWKS, h) }
	}
	for _, c := range []struct {
		does  string
		cause string
		wrong func(bench)
	}{
		{"another issuer", "did not match", metadata("issuer", elsewhere.URL)},
		{"the issuer with a slash", "did not match", func(b bench) { metadata("issuer", b.issuer.URL+"/")(b) }},
		{"no keys", "jwks_uri", metadata("jwks_uri", "")},
		{"keys in the clear", "neither https nor on loopback", metadata("jwks_uri", "http://keys.example/keys")},
		{"keys in a file", "not the URL", metadata("jwks_uri", "file:///etc/passwd")},
		{"a token endpoint in the clear", "neither https nor on loopback", metadata("token_endpoint", "http://keys.example/token")},
		{"keys at the metadata service of a cloud", "prohibited", metadata("jwks_uri", "https://169.254.169.254/keys")},
		{"keys elsewhere, by a redirect", "302", keys(http.RedirectHandler(elsewhere.URL+providertest.JWKS, http.StatusFound).ServeHTTP)},
		{"keys without an end", "too large", keys(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys":[],"x":"`))
			block := bytes.Repeat([]byte("x"), 1<<16)
			for range 64 << 20 / len(block) {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		})},
		{"an empty set", "none that can be used", keys(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":[]}`)) })},
		{"a secret as a key", "none that can be used", keys(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys":[{"kty":"oct","kid":"k1","k":"c2VjcmV0"}]}`))
		})},
		{"a key for encryption", "none that can be used", keys(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys":[{"kty":"EC","use":"enc","kid":"k1","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`))
		})},
		{"something else than JSON", "invalid character", keys(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`<html>`)) })},
		{"an error", "500", keys(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })},
	} {
		t.Run(c.does, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			c.wrong(b)
			_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(nil))
			wantRefused(t, err, fault.Unavailable, "cannot be reached", c.cause)
			if n := elsewhere.Fetches(providertest.JWKS); n != 0 {
				t.Error("the redirect was followed")
			}
		})
	}
}

func TestAnIssuerThatTurnsIntoAnotherIsNotBelieved(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.accept(t, b.issuer.Token(nil))
	m := b.issuer.Metadata()
	m["issuer"] = "https://evil.example"
	b.issuer.Answer(providertest.Discovery, func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(m) })
	old := b.issuer.Token(claims{"exp": b.Now().Add(time.Hour).Unix()})
	b.issuer.Rotate(t, "evil")
	b.Advance(20 * time.Minute)
	_, err := b.set.VerifyToken(t.Context(), b.issuer.Token(nil))
	wantRefused(t, err, fault.Unavailable, "cannot be reached", "did not match")
	b.accept(t, old)
}

func TestAnIssuerElsewhereCannotLeadBackToThisMachine(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, url := range []string{b.issuer.URL, "http://169.254.169.254/latest/meta-data/", "http://[::ffff:127.0.0.1]/", "http://[fe80::1]/", "http://0.0.0.0/"} {
		answer, err := b.set.ClientElsewhere().Get(url)
		if err == nil || !strings.Contains(err.Error(), "prohibited") {
			t.Errorf("%s: %v, %v", url, answer, err)
		}
	}
}
