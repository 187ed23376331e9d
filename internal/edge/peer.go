package edge

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/go-chi/chi/v5/middleware"
)

// Peer is where a request comes from.
type Peer struct {
	// Address is that of the client, as far as it is known: of whoever opened
	// the connection or, if that is a trusted proxy, of the one it names. It is
	// the zero Addr on a Unix socket.
	Address netip.Addr
	// Proxied says that the request was forwarded, or pretends to have been.
	Proxied bool
	// Local says that a program on this machine sent the request itself, over
	// the Unix socket or the loopback.
	Local bool
}

type peerKey struct{}

// PeerOf returns what Identify found out about the request that ctx belongs to.
// Without Identify it is the zero Peer, which is not local.
func PeerOf(ctx context.Context) Peer {
	p, _ := ctx.Value(peerKey{}).(Peer)
	return p
}

// Identify lets PeerOf tell where a request comes from. X-Forwarded-For is
// believed from right to left for as long as trusted proxies vouch for it. Other
// headers that name a client are never believed, but whoever sends one is not
// local.
func Identify(trusted []netip.Prefix) func(http.Handler) http.Handler {
	client := middleware.ClientIPFromRemoteAddr
	if len(trusted) > 0 {
		prefixes := make([]string, len(trusted))
		for i, p := range trusted {
			prefixes[i] = p.String()
		}
		client = middleware.ClientIPFromXFF(prefixes...)
	}
	return func(next http.Handler) http.Handler {
		return client(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p := Peer{Address: middleware.GetClientIPAddr(r.Context()), Proxied: forwarded(r.Header)}
			connected := remote(r)
			if !p.Address.IsValid() {
				// A trusted proxy that names no client answers for it itself.
				p.Address = connected
			}
			p.Local = !p.Proxied && (onUnixSocket(r) || connected.IsLoopback() && !contains(trusted, connected))
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p)))
		}))
	}
}

// String returns the address for logs, or "unix" where there is none.
func (p Peer) String() string {
	if !p.Address.IsValid() {
		return "unix"
	}
	return p.Address.String()
}

// Key returns what the peer's limits go by: its address or, of IPv6, its /64,
// which is the least that one customer gets.
func (p Peer) Key() string {
	if p.Address.Is6() {
		return netip.PrefixFrom(p.Address.WithZone(""), 64).Masked().String()
	}
	return p.String()
}

// forwarded reports whether a proxy has left a trace. An empty header is one.
func forwarded(h http.Header) bool {
	for name := range h {
		switch name {
		case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip":
			return true
		}
		if strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// remote returns the address of whoever opened the connection.
func remote(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

func onUnixSocket(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && local.Network() == "unix"
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a.WithZone("")) {
			return true
		}
	}
	return false
}
