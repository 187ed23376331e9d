package provider

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// pause is how long an issuer is left in peace after a look at its keys,
	// however many tokens ask for another.
	pause = 10 * time.Second
	// stalePause is the same for keys that are merely old.
	stalePause = time.Minute
	// staleAfter bounds how long a key that an issuer has withdrawn is used.
	staleAfter = 15 * time.Minute
	// deadAfter bounds how long known keys are used while the issuer is down.
	deadAfter = 24 * time.Hour
	// unknownFor is how long a key that an issuer did not have is not looked
	// for again.
	unknownFor = time.Minute
	maxUnknown = 1024
	minRSABits = 2048
)

// remote is what an issuer publishes about itself: where its endpoints are and
// which keys it signs with. It is fetched when it is first needed, again when a
// token names a key that is not known, and when it is old; never by two at
// once, and not more often than strangers could be allowed to cause.
type remote struct {
	issuer  string
	client  *http.Client
	now     func() time.Time
	log     *slog.Logger
	timeout time.Duration // for all that one look takes

	mu      sync.Mutex
	known   *published    // nil: never seen
	tried   time.Time     // when the last look began
	err     error         // what the last look ended with
	flight  chan struct{} // closed when the look under way ends; nil: none is
	unknown *lru.Cache[string, time.Time]
}

// published is one look at an issuer. It does not change.
type published struct {
	endpoints endpoints
	keys      map[string]jose.JSONWebKey // by key id
	at        time.Time
}

// endpoints is the part of an issuer's metadata that is used (OpenID Connect
// Discovery 1.0, section 3; RFC 8628, section 4).
type endpoints struct {
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Device        string   `json:"device_authorization_endpoint"`
	Keys          string   `json:"jwks_uri"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	Scopes        []string `json:"scopes_supported"`
}

func newRemote(issuer string, client *http.Client, o Options) *remote {
	unknown, err := lru.New[string, time.Time](maxUnknown)
	if err != nil {
		panic(err) // the size is a constant
	}
	return &remote{issuer: issuer, client: client, now: o.Now, log: o.Log, timeout: askTimeout, unknown: unknown}
}

// key returns the key with that id: an Unauthenticated fault if the issuer has
// none, an Unavailable one if it cannot be asked.
func (r *remote) key(ctx context.Context, id string) (jose.JSONWebKey, error) {
	asked := r.now()
	p, err := r.look(ctx, func(p *published) bool {
		_, ok := p.keys[id]
		return ok || r.lately(id)
	})
	if p != nil {
		if key, ok := p.keys[id]; ok {
			return key, nil
		}
	}
	if err != nil {
		return jose.JSONWebKey{}, unavailable(r.issuer, err)
	}
	// Only a look that came after the question says that there is no such key;
	// one that was due to others may have been too early for a new one.
	if !p.at.Before(asked) {
		r.unknown.Add(id, p.at)
	}
	return jose.JSONWebKey{}, refuse(classKey, "%s has no key %.60q", r.issuer, id)
}

// lately reports whether the issuer was found not to have that key a moment ago.
func (r *remote) lately(id string) bool {
	at, ok := r.unknown.Get(id)
	return ok && r.now().Sub(at) < unknownFor
}

// endpoints returns where the issuer is to be asked, or an Unavailable fault.
func (r *remote) endpoints(ctx context.Context) (endpoints, error) {
	p, err := r.look(ctx, func(*published) bool { return true })
	if p == nil {
		return endpoints{}, unavailable(r.issuer, err)
	}
	return p.endpoints, nil
}

// look returns what is known of the issuer, after a fresh look if that is not
// enough or old, and if it is not too soon for one. The error is that of the
// last look; what was known before it is returned all the same, for a day.
func (r *remote) look(ctx context.Context, enough func(*published) bool) (*published, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		now, wait := r.now(), pause
		known := r.known
		if known != nil && now.Sub(known.at) >= deadAfter {
			known = nil
		}
		content := known != nil && enough(known)
		if content {
			wait = stalePause
		}
		switch {
		case content && now.Sub(known.at) < staleAfter,
			content && r.flight != nil, // somebody else sees to it
			r.flight == nil && !r.tried.IsZero() && now.Sub(r.tried) < wait:
			return known, r.err
		case r.flight == nil:
			r.fetch(ctx, now)
			continue
		}
		flight := r.flight
		r.mu.Unlock()
		select {
		case <-flight:
			r.mu.Lock()
		case <-ctx.Done():
			r.mu.Lock()
			return known, ctx.Err()
		}
	}
}

// fetch takes a look; the lock is held, but not while the issuer is asked. One
// caller asks for all, so that its own leaving does not end the question.
func (r *remote) fetch(ctx context.Context, now time.Time) {
	flight := make(chan struct{})
	r.flight, r.tried = flight, now
	r.mu.Unlock()
	seen, err := (*published)(nil), errors.New("the look ended with a panic")
	defer func() {
		r.mu.Lock()
		if r.err = err; err == nil {
			seen.at = now
			r.known = seen
		}
		r.flight = nil
		close(flight)
	}()
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	defer cancel()
	if seen, err = r.ask(asking); err != nil {
		r.log.WarnContext(ctx, "an identity provider cannot be asked", "issuer", r.issuer, "error", err)
	}
}

func (r *remote) ask(ctx context.Context) (*published, error) {
	// The library compares the issuer that the document names with ours.
	document, err := oidc.NewProvider(oidc.ClientContext(ctx, r.client), r.issuer)
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", r.issuer, err)
	}
	var seen published
	if err := document.Claims(&seen.endpoints); err != nil {
		return nil, fmt.Errorf("discover %s: %w", r.issuer, err)
	}
	e := seen.endpoints
	if e.Keys == "" {
		return nil, fmt.Errorf("discover %s: no jwks_uri", r.issuer)
	}
	for _, url := range []string{e.Authorization, e.Token, e.Device, e.Keys} {
		if err := checkURL(url); url != "" && err != nil {
			return nil, fmt.Errorf("discover %s: %w", r.issuer, err)
		}
	}
	body, err := get(ctx, r.client, e.Keys)
	if err != nil {
		return nil, fmt.Errorf("fetch the keys of %s: %w", r.issuer, err)
	}
	if seen.keys, err = readKeys(body); err != nil {
		return nil, fmt.Errorf("read the keys of %s: %w", r.issuer, err)
	}
	return &seen, nil
}

// readKeys reads a JWK set and leaves out what is not for verifying, has no id
// or cannot be used (RFC 7517, section 5). Of two keys with one id the first
// counts.
func readKeys(data []byte) (map[string]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	keys := make(map[string]jose.JSONWebKey, len(set.Keys))
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil || !key.IsPublic() || key.KeyID == "" || len(key.KeyID) > maxName || key.Use != "" && key.Use != "sig" {
			continue
		}
		if key, ok := key.Key.(*rsa.PublicKey); ok && key.N.BitLen() < minRSABits {
			continue
		}
		if _, ok := keys[key.KeyID]; !ok {
			keys[key.KeyID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there are none that can be used")
	}
	return keys, nil
}
