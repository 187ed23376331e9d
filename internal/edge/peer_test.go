package edge_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/coderclaw/runtime/internal/edge"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestAddressesAreThoseThatTrustedProxiesVouchFor(t *testing.T) {
	t.Parallel()
	proxies := prefixes("10.0.0.0/8", "fd00::/8")
	for name, c := range map[string]struct {
		trusted   []netip.Prefix
		remote    string
		forwarded []string
		want      string
	}{
		"a client":                                    {nil, "198.51.100.7:1", nil, "198.51.100.7"},
		"a client that claims another address":        {nil, "198.51.100.7:1", []string{"203.0.113.9"}, "198.51.100.7"},
		"a stranger that claims another address":      {proxies, "198.51.100.7:1", []string{"203.0.113.9"}, "198.51.100.7"},
		"a proxy's client":                            {proxies, "10.0.0.1:1", []string{"203.0.113.9"}, "203.0.113.9"},
		"a proxy's client that claims an address":     {proxies, "10.0.0.1:1", []string{"127.0.0.1, 203.0.113.9"}, "203.0.113.9"},
		"a claim in a header of its own":              {proxies, "10.0.0.1:1", []string{"127.0.0.1", "203.0.113.9"}, "203.0.113.9"},
		"a claim of being a trusted proxy":            {proxies, "10.0.0.1:1", []string{"10.6.6.6, 203.0.113.9"}, "203.0.113.9"},
		"a chain of proxies":                          {proxies, "[fd00::1]:1", []string{"203.0.113.9, 10.2.0.1"}, "203.0.113.9"},
		"a proxy within IPv6":                         {proxies, "[::ffff:10.0.0.1]:1", []string{"203.0.113.9"}, "203.0.113.9"},
		"a proxy of a proxy that nobody vouches for":  {proxies, "10.0.0.1:1", []string{"127.0.0.1, 198.51.100.200"}, "198.51.100.200"},
		"a proxy that names nobody":                   {proxies, "10.0.0.1:1", nil, "10.0.0.1"},
		"a proxy that passes nonsense on":             {proxies, "10.0.0.1:1", []string{"203.0.113.9, unknown"}, "10.0.0.1"},
		"a proxy on the loopback that is not trusted": {proxies, "127.0.0.1:1", []string{"203.0.113.9"}, "127.0.0.1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.remote
		r.Header["X-Forwarded-For"] = c.forwarded
		r.Header["X-Real-Ip"], r.Header["Forwarded"] = []string{"127.0.0.1"}, []string{"for=127.0.0.1"}
		var got edge.Peer
		edge.Identify(c.trusted)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = edge.PeerOf(r.Context())
		})).ServeHTTP(httptest.NewRecorder(), r)
		if got.String() != c.want || !got.Proxied || got.Local {
			t.Errorf("%s: %+v, want %s, proxied and not local", name, got, c.want)
		}
	}
}

func TestOnlyProgramsOfThisMachineAreLocal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trusted []netip.Prefix
		header  string
		want    string
	}{
		"a program":                              {nil, "", "127.0.0.1 proxied=false local=true"},
		"a forwarded request":                    {nil, "X-Forwarded-For", "127.0.0.1 proxied=true local=false"},
		"a request forwarded by the standard":    {nil, "Forwarded", "127.0.0.1 proxied=true local=false"},
		"a request forwarded for a host":         {nil, "X-Forwarded-Host", "127.0.0.1 proxied=true local=false"},
		"a request by way of":                    {nil, "Via", "127.0.0.1 proxied=true local=false"},
		"a request forwarded as nginx may do":    {nil, "x-real-ip", "127.0.0.1 proxied=true local=false"},
		"a proxy that leaves no trace":           {prefixes("127.0.0.0/8"), "", "127.0.0.1 proxied=false local=false"},
		"a proxy whose client claims loopback":   {prefixes("127.0.0.1/32"), "X-Forwarded-For", "192.0.2.1 proxied=true local=false"},
		"another proxy is trusted, not this one": {prefixes("10.0.0.0/8"), "", "127.0.0.1 proxied=false local=true"},
	} {
		headers := map[string]string{}
		if c.header != "" {
			headers[c.header] = "127.0.0.1, 192.0.2.1"
		}
		if _, got := ask(t, server(t, edge.Identify(c.trusted)(told)), http.MethodGet, headers); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestWhoReachesTheUnixSocketIsLocal(t *testing.T) {
	t.Parallel()
	client := onUnixSocket(t, edge.Identify(prefixes("127.0.0.0/8"))(told))
	for header, want := range map[string]string{"Accept": "unix proxied=false local=true", "X-Forwarded-For": "unix proxied=true local=false"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://anything", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(header, "127.0.0.1")
		if _, got := do(t, client, req); got != want {
			t.Errorf("with %s: %s, want %s", header, got, want)
		}
	}
}

func TestNobodyIsLocalUnlessIdentified(t *testing.T) {
	t.Parallel()
	if p := edge.PeerOf(t.Context()); p.Local || p.Key() == "" {
		t.Errorf("an unknown peer is %+v with the key %q", p, p.Key())
	}
}

func TestAddressesOfOneCustomerShareTheirLimits(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"198.51.100.7":              "198.51.100.7",
		"2001:db8:1:2::1":           "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff:ffff::9": "2001:db8:1:2::/64",
		"2001:db8:1:3::1":           "2001:db8:1:3::/64",
		"fe80::1%eth0":              "fe80::/64",
	} {
		if got := (edge.Peer{Address: netip.MustParseAddr(address)}).Key(); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
