package providertest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// deviceInterval is how long a client of a device login waits between polls.
const deviceInterval = 5 * time.Second

// grants are the authorization codes and device codes of a provider, each good
// for one token.
type grants struct {
	mu      sync.Mutex
	codes   map[string]grant
	devices map[string]*deviceGrant // by device code
}

type grant struct {
	person                            Claims
	nonce, challenge, redirect, scope string
}

type deviceGrant struct {
	grant
	userCode string
	decided  bool
	allowed  bool
	polled   time.Time
	expires  time.Time
}

// authorize sends the browser of a person who agrees back with a code.
func (g *grants) authorize(w http.ResponseWriter, r *http.Request, person Claims) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || !back.IsAbs() || q.Get("client_id") != ClientID || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" {
		http.Error(w, "bad authorization request", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	g.mu.Lock()
	if g.codes == nil {
		g.codes = map[string]grant{}
	}
	g.codes[code] = grant{person, q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri"), q.Get("scope")}
	g.mu.Unlock()
	answer := back.Query()
	answer.Set("code", code)
	answer.Set("state", q.Get("state"))
	back.RawQuery = answer.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

func (g *grants) startDevice(w http.ResponseWriter, r *http.Request, person Claims, activate string, now time.Time) {
	if r.PostFormValue("client_id") != ClientID {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_client"})
		return
	}
	text := rand.Text()
	d := &deviceGrant{
		grant:    grant{person: person, scope: r.PostFormValue("scope")},
		userCode: text[:4] + "-" + text[4:8],
		expires:  now.Add(15 * time.Minute),
	}
	g.mu.Lock()
	if g.devices == nil {
		g.devices = map[string]*deviceGrant{}
	}
	g.devices[text] = d
	g.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code":               text,
		"user_code":                 d.userCode,
		"verification_uri":          activate,
		"verification_uri_complete": activate + "?user_code=" + d.userCode,
		"expires_in":                900,
		"interval":                  int(deviceInterval.Seconds()),
	})
}

func (g *grants) decide(userCode string, allow bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.devices {
		if d.userCode == userCode {
			d.decided, d.allowed = true, allow
		}
	}
}

// redeem returns what a token request asks for, or the error of RFC 6749,
// section 5.2, or RFC 8628, section 3.5.
func (g *grants) redeem(r *http.Request, now time.Time) (granted grant, failed string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		code := r.PostFormValue("code")
		granted, ok := g.codes[code]
		delete(g.codes, code)
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if !ok || granted.redirect != r.PostFormValue("redirect_uri") || granted.challenge != Encode(string(sum[:])) {
			return grant{}, "invalid_grant"
		}
		return granted, ""
	case "urn:ietf:params:oauth:grant-type:device_code":
		code := r.PostFormValue("device_code")
		d, ok := g.devices[code]
		if !ok {
			return grant{}, "invalid_grant"
		}
		soon := now.Sub(d.polled) < deviceInterval
		d.polled = now
		switch {
		case now.After(d.expires):
			return grant{}, "expired_token"
		case soon:
			return grant{}, "slow_down"
		case !d.decided:
			return grant{}, "authorization_pending"
		case !d.allowed:
			return grant{}, "access_denied"
		}
		delete(g.devices, code)
		return d.grant, ""
	}
	return grant{}, "unsupported_grant_type"
}

// Challenge returns the S256 code challenge of a verifier (RFC 7636).
func Challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return Encode(string(sum[:]))
}

// Browse opens an authorization URL as a browser does whose person agrees, and
// returns what it is sent back with. A nil transport is the usual one.
func Browse(t testing.TB, transport http.RoundTripper, address string) url.Values {
	t.Helper()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	back, err := answer.Location()
	if err != nil {
		t.Fatal(fmt.Errorf("authorize: %s: %w", answer.Status, err))
	}
	return back.Query()
}
