package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// expiryMargin is how long before its end a token counts as expired: the
// request takes time to arrive.
const expiryMargin = 30 * time.Second

// Token is what a request carries in its Authorization header.
type Token struct {
	Value     string    // empty: the request carries none
	Type      string    // Bearer (default) or DPoP
	ExpiresAt time.Time // zero: it is not known to
}

// Token returns the access token of a session that was opened or refreshed at
// that time, by the clock of this machine.
func (o OpenedSession) Token(at time.Time) Token {
	return Token{Value: o.AccessToken, Type: o.TokenType, ExpiresAt: at.Add(time.Duration(o.ExpiresIn) * time.Second)}
}

// Fresh reports whether the token can still be used at that time.
func (t Token) Fresh(at time.Time) bool {
	return t.ExpiresAt.IsZero() || at.Before(t.ExpiresAt.Add(-expiryMargin))
}

// String keeps the token out of logs.
func (t Token) String() string { return "[token]" }

// GoString keeps the token out of logs.
func (t Token) GoString() string { return t.String() }

// WithToken makes the client send "Authorization: Bearer token".
func WithToken(token string) Option {
	return func(c *Client) { c.tokens = tokens{current: Token{Value: token}} }
}

// WithTokenSource makes requests carry what source returns. It is asked for a
// token before the first request, when the last one is about to expire and,
// with its value, when the server has refused that one; the request is then
// sent again if there is another. It is never asked twice at the same time.
func WithTokenSource(source func(ctx context.Context, refused string) (Token, error)) Option {
	return func(c *Client) { c.tokens = tokens{source: source, lock: make(chan struct{}, 1)} }
}

// WithSession makes the client speak for a session that was just opened, and
// renew its tokens as long as it lasts. A refresh token is good for one use:
// nobody else may use the one of opened. WithProof is needed too if its
// TokenType is DPoP.
func WithSession(opened OpenedSession) Option {
	return func(c *Client) {
		token, refresh := opened.Token(time.Now()), opened.RefreshToken
		WithTokenSource(func(ctx context.Context, refused string) (Token, error) {
			if token.Value != refused && token.Fresh(time.Now()) {
				return token, nil
			}
			next, err := c.RefreshSession(ctx, refresh)
			if err == nil {
				token, refresh = next.Token(time.Now()), next.RefreshToken
			}
			return token, err
		})(c)
	}
}

// WithProof makes each request carry a proof that the client holds a key (RFC
// 9449), which prove makes for its method, its URL without query, and the
// access token in it ("" for none); where it returns "", there is none. Sessions
// that the client opens with a proof are bound to the key.
func WithProof(prove func(method, url, accessToken string) (string, error)) Option {
	return func(c *Client) { c.prove = prove }
}

// tokens hands out the token of each request.
type tokens struct {
	source  func(ctx context.Context, refused string) (Token, error) // nil: current is all there is
	lock    chan struct{}                                            // holds one while somebody is at current
	current Token
}

func (t *tokens) valid() error {
	if strings.ContainsFunc(t.current.Value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("token: it holds a space, a line break or another character that no token has")
	}
	return nil
}

// get returns a token that is fresh and is not the refused one, as far as there
// is one.
func (t *tokens) get(ctx context.Context, refused string) (Token, error) {
	if t.source == nil {
		return t.current, nil
	}
	select {
	case t.lock <- struct{}{}:
		defer func() { <-t.lock }()
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
	// Whoever had the lock before may have fetched what is needed.
	if t.current.Value != "" && t.current.Value != refused && t.current.Fresh(time.Now()) {
		return t.current, nil
	}
	next, err := t.source(ctx, refused)
	if err != nil {
		return Token{}, credentialError{err}
	}
	t.current = next
	return next, nil
}

// credentialError is why there is no token to send a request with. Whoever
// looked for it has tried again often enough.
type credentialError struct{ cause error }

func (e credentialError) Error() string { return e.cause.Error() }
func (e credentialError) Unwrap() error { return e.cause }

func isCredential(err error) bool { return errors.As(err, new(credentialError)) }

// send sends r, and again with another token if the server refuses the first:
// what is refused was not done.
func (c *Client) send(ctx context.Context, r call, body []byte) (*http.Response, error) {
	var t Token
	var err error
	if !r.anonymous {
		if t, err = c.tokens.get(ctx, ""); err != nil {
			return nil, err
		}
	}
	res, err := c.sendWith(ctx, r, body, t)
	if err != nil || res.StatusCode != http.StatusUnauthorized || r.anonymous || c.tokens.source == nil {
		return res, err
	}
	next, err := c.tokens.get(ctx, t.Value)
	if err == nil && next.Value == t.Value {
		return res, nil
	}
	io.CopyN(io.Discard, res.Body, maxProblem) //nolint:errcheck // only so that the connection can be used again
	res.Body.Close()
	if err != nil {
		return nil, err
	}
	return c.sendWith(ctx, r, body, next)
}

func (c *Client) sendWith(ctx context.Context, r call, body []byte, t Token) (*http.Response, error) {
	req, err := c.request(ctx, r, body, t)
	if err != nil {
		return nil, err
	}
	return c.http.Do(req)
}

// authorize adds the token, and the proof of the key if there is one. A proof
// is good for one request.
func (c *Client) authorize(h http.Header, method, address string, t Token) error {
	if t.Value != "" {
		scheme := t.Type
		if scheme == "" {
			scheme = "Bearer"
		}
		h.Set("Authorization", scheme+" "+t.Value)
	}
	if c.prove == nil {
		return nil
	}
	proof, err := c.prove(method, address, t.Value)
	if err != nil {
		return credentialError{fmt.Errorf("prove the key: %w", err)}
	}
	if proof != "" {
		h.Set("DPoP", proof)
	}
	return nil
}
