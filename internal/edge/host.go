package edge

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// AllowHosts turns requests away that call the server by a name or address
// other than those given, without a port, and those of the loopback. A page
// whose name is made to point here (DNS rebinding) is of the same origin in the
// eyes of its browser, but still calls the server by that name. No browser gets
// to a Unix socket, where clients may name any host.
func AllowHosts(names []string, refuse Refuse) func(http.Handler) http.Handler {
	allowed := map[string]bool{}
	for _, name := range names {
		allowed[hostname(name)] = true
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if host := hostname(r.Host); !allowed[host] && !loopback(host) && !onUnixSocket(r) {
				refuse(w, r, http.StatusForbidden, ForbiddenHost, "the server does not go by this name", nil)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// hostname returns the host of a Host header (RFC 9110, section 7.2) in its one
// form: without port and brackets, in lower case, and addresses as netip writes
// them.
func hostname(hostport string) string {
	host := hostport
	if bare, _, err := net.SplitHostPort(hostport); err == nil {
		host = bare
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
