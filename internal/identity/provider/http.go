package provider

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"code.dny.dev/ssrf"
)

const (
	// askTimeout bounds one question to a provider, redials and all.
	askTimeout = 5 * time.Second
	// maxAnswer is far more than the keys of any provider.
	maxAnswer = 1 << 20
)

// clients are how providers are reached: those that are configured on loopback
// may be there, others may not lead us there.
type clients struct {
	guarded, loopback *http.Client
	transports        []*http.Transport // to be closed
}

func newClients(transport http.RoundTripper) clients {
	if transport != nil {
		c := newClient(transport)
		return clients{guarded: c, loopback: c}
	}
	// Providers are often on a private network. Never there: the metadata
	// services of clouds, and what listens on this machine.
	private4 := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
	}
	private6 := []netip.Prefix{netip.MustParsePrefix("fc00::/7"), ssrf.IPv6NAT64Prefix}
	guarded := newTransport(ssrf.New(ssrf.WithAnyPort(),
		ssrf.WithAllowedV4Prefixes(private4...),
		ssrf.WithAllowedV6Prefixes(private6...)))
	loopback := newTransport(ssrf.New(ssrf.WithAnyPort(),
		ssrf.WithAllowedV4Prefixes(append(private4, netip.MustParsePrefix("127.0.0.0/8"))...),
		ssrf.WithAllowedV6Prefixes(append(private6, netip.MustParsePrefix("::1/128"))...)))
	return clients{
		guarded:    newClient(guarded),
		loopback:   newClient(loopback),
		transports: []*http.Transport{guarded, loopback},
	}
}

// of returns the client for a provider that is configured with that URL.
func (c clients) of(provider string) *http.Client {
	if u, err := url.Parse(provider); err == nil && isLoopback(u) {
		return c.loopback
	}
	return c.guarded
}

func (c clients) close() {
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

func newTransport(guard *ssrf.Guardian) *http.Transport {
	return &http.Transport{
		// Control sees the address that a name was resolved to.
		DialContext:            (&net.Dialer{Timeout: askTimeout, Control: guard.Safe}).DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        time.Minute,
		TLSHandshakeTimeout:    askTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// newClient returns a client that follows no redirects, which could lead a
// request with a secret elsewhere, and reads no endless answers.
func newClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     capped{transport},
		Timeout:       askTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type capped struct{ http.RoundTripper }

func (c capped) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = http.MaxBytesReader(nil, answer.Body, maxAnswer)
	return answer, nil
}

// get returns the body of a successful answer.
func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	return io.ReadAll(answer.Body)
}
