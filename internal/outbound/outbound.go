// Package outbound makes the HTTP clients that reach addresses which somebody
// else has chosen.
//
// Nothing leads such a client elsewhere: it follows no redirects, uses no proxy
// and looks at each address that a name was resolved to before it connects.
package outbound

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

const dialTimeout = 10 * time.Second

// ErrRefused is in the chain of the error of a request whose target is not one
// that the client may reach.
var ErrRefused = errors.New("not an address that may be reached")

// Reach is what a client may connect to.
type Reach func(network, address string, _ syscall.RawConn) error

// Public are the addresses of the internet, on ports 80 and 443.
var Public = guarded(ssrf.New())

// Private are those of Public, private networks and this machine, on any port.
// The metadata services of clouds are never among them.
var Private = guarded(ssrf.New(ssrf.WithAnyPort(),
	ssrf.WithAllowedV4Prefixes(
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("127.0.0.0/8")),
	ssrf.WithAllowedV6Prefixes(netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("::1/128"))))

// Any are all addresses.
var Any Reach = func(string, string, syscall.RawConn) error { return nil }

// metadata is where a cloud answers in the midst of a private range.
var metadata = netip.MustParseAddr("fd00:ec2::254")

func guarded(g *ssrf.Guardian) Reach {
	return func(network, address string, conn syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err == nil && at.Addr().Unmap().WithZone("") == metadata {
			err = ErrRefused
		}
		if err == nil {
			err = g.Safe(network, address, conn)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return nil
	}
}

// Client returns a client that connects to what reach allows. It has no
// time-out of its own but for connecting, and keeps no connection.
func Client(reach Reach) *http.Client {
	// Control sees the address that a name was resolved to.
	dialer := net.Dialer{Timeout: dialTimeout, Control: reach}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    dialTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Check says at once what could not be reached later: an address, or a port,
// that the URL names itself. What a name stands for shows when it is asked for.
func (r Reach) Check(u *url.URL) error {
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%w: no port", ErrRefused)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil { // a name; anything public will do to look at the port
		ip = netip.AddrFrom4([4]byte{1, 1, 1, 1})
	}
	ip = ip.Unmap()
	network := "tcp4"
	if ip.Is6() {
		network = "tcp6"
	}
	return r(network, net.JoinHostPort(ip.String(), port), nil)
}
