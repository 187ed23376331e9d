package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// attemptTimeout bounds one attempt of a call, its answer included.
	attemptTimeout = time.Minute
	// maxAnswer bounds what is read of an answer. A page of 50 tasks, each with
	// the longest input and output, stays below it.
	maxAnswer = 256 << 20
	// defaultRetries with firstWait and longestWait adds up to at least 6 s,
	// longer than a server takes to restart.
	defaultRetries = 6
	firstWait      = 100 * time.Millisecond
	longestWait    = 5 * time.Second
	// patience is how long a call waits when the server names a time.
	patience = 30 * time.Second
)

// Client speaks to one CoderClaw server. It is safe for concurrent use.
//
// A call that finds no server, or one that is overloaded or restarting (429,
// 502, 503, 504), is tried again a few times with growing pauses, or after the
// time that the server names. Calls that must not happen twice (UpdateTask,
// CancelTask) are tried again only when the request surely did not leave. An
// answer that is not a success is an [*Error].
type Client struct {
	address   string // as it was given
	base      string // of URLs, without a slash at its end
	http      *http.Client
	tokens    tokens
	prove     func(method, url, accessToken string) (string, error)
	userAgent string
	retries   int
}

// Option changes what NewClient makes.
type Option func(*Client)

// WithHTTPClient makes requests go through h, for example for a private
// certificate authority. Its Timeout, if any, also cuts streams, which then
// reconnect. Unless h says otherwise, redirects are not followed.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithUserAgent names the program in the server's logs. The default is
// "coderclaw-go".
func WithUserAgent(name string) Option { return func(c *Client) { c.userAgent = name } }

// WithRetries sets how often a call is tried again, and how often a stream is
// that was never connected. The default is 6, which outlasts a restart of the
// server; 0 means never.
func WithRetries(n int) Option { return func(c *Client) { c.retries = n } }

// NewClient returns a client for the server at an address: a URL such as
// "http://127.0.0.1:7433", whose path, if any, is put before every route, or
// "unix:" and the path of a socket. It does not connect.
func NewClient(address string, opts ...Option) (*Client, error) {
	baseURL := address
	socket, isSocket := strings.CutPrefix(address, "unix:")
	if isSocket {
		baseURL = "http://localhost"
	}
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("server address: %w", err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fmt.Errorf("server address %q: want http://host:port, https://host or unix:/path", u.Redacted())
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("server address %q: credentials, a query or a fragment have no place in it", u.Redacted())
	}
	c := &Client{address: address, base: strings.TrimRight(u.String(), "/"), userAgent: "coderclaw-go", retries: defaultRetries}
	for _, opt := range opts {
		opt(c)
	}
	if err := c.tokens.valid(); err != nil {
		return nil, err
	}
	h := http.Client{}
	switch {
	case c.http != nil && isSocket:
		return nil, fmt.Errorf("server address %q: an HTTP client of your own has to dial the socket itself; name the server by a URL", address)
	case c.http != nil:
		h = *c.http
	default:
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 16
		if isSocket {
			t.Proxy = nil
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			}
		}
		h.Transport = t
	}
	if h.CheckRedirect == nil {
		// Following would turn a POST into a GET; the caller has the wrong address.
		h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	c.http = &h
	return c, nil
}

// call is one request, apart from how often it is sent.
type call struct {
	method string
	path   string // escaped
	query  url.Values
	header http.Header
	in     any           // nil: no body
	out    any           // nil: the answer's body does not matter
	once   bool          // not to be sent again once it may have left
	wait   time.Duration // how long the server is asked to wait, besides its work

	anonymous bool         // it shows no token: it is how one is had
	pending   error        // what 202 means; nil: a success
	content   *upload      // the body, instead of in
	answer    *http.Header // is set to what the answer says of itself
	sink      io.Writer    // takes the answer as it comes, however long it is, instead of out
}

func (c *Client) do(ctx context.Context, r call) error {
	var body []byte
	if r.in != nil {
		var err error
		if body, err = json.Marshal(r.in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	for attempt := 0; ; attempt++ {
		again, err := c.attempt(ctx, r, body)
		if err == nil || !again || attempt >= c.retries || ctx.Err() != nil {
			return err
		}
		wait := jitter(min(firstWait<<attempt, longestWait))
		var answer *Error
		if errors.As(err, &answer) && answer.RetryAfter > 0 {
			wait = jitter(answer.RetryAfter)
		}
		// The reason for the failure says more than a deadline would.
		if deadline, ok := ctx.Deadline(); wait > patience || ok && time.Until(deadline) < wait {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// attempt sends r once and reports whether it makes sense, and is safe, to send
// it again.
func (c *Client) attempt(ctx context.Context, r call, body []byte) (again bool, err error) {
	if r.sink == nil && r.content == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, attemptTimeout+r.wait)
		defer cancel()
	}
	// From the moment it has a connection, a request may have reached the server.
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }}
	res, err := c.send(httptrace.WithClientTrace(ctx, trace), r, body)
	if err != nil {
		return !permanent(err) && !isCredential(err) && !(r.once && sent.Load()), err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		err := errorFrom(res)
		return !r.once && err.temporary(), err
	}
	if res.StatusCode == http.StatusAccepted && r.pending != nil {
		return false, r.pending
	}
	if r.answer != nil {
		*r.answer = res.Header
	}
	if r.sink != nil {
		n, err := io.Copy(r.sink, res.Body)
		if err != nil {
			err = fmt.Errorf("read answer: %w", err)
		}
		return n == 0, err
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return !r.once, fmt.Errorf("read answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return false, fmt.Errorf("answer is longer than %d MiB: ask for fewer items at once", maxAnswer>>20)
	}
	if r.out == nil {
		return false, nil
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "application/json" {
		return false, c.foreign(kind)
	}
	if err := json.Unmarshal(answer, r.out); err != nil {
		return false, fmt.Errorf("decode answer: %w", err)
	}
	return false, nil
}

func (c *Client) request(ctx context.Context, r call, body []byte, t Token) (*http.Request, error) {
	address := c.base + r.path
	target := address
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	switch {
	case r.content != nil:
		req.GetBody, req.ContentLength = nil, r.content.size
		if req.Body, err = r.content.begin(); err != nil {
			return nil, err
		}
	case r.in == nil:
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	default:
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if err := c.authorize(req.Header, r.method, address, t); err != nil {
		return nil, err
	}
	maps.Copy(req.Header, r.header)
	return req, nil
}

// errForeign says that something else answers at the address.
var errForeign = errors.New("no CoderClaw server")

func (c *Client) foreign(contentType string) error {
	return fmt.Errorf("%s: %w: it answered with %q", c.address, errForeign, contentType)
}

// permanent reports whether a failed exchange would fail again.
func permanent(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	return errors.As(err, &untrusted) || errors.As(err, &noTLS) ||
		errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, errForeign) || errors.Is(err, errEventTooLong)
}

// jitter returns d and up to half of it more, so that clients which failed
// together do not come back together.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/2+1) }

// pause waits for d, or returns ctx's error when that ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
