package edge_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coderclaw/runtime/internal/edge"
)

func TestTheServerAnswersToItsOwnNamesOnly(t *testing.T) {
	t.Parallel()
	named := server(t, edge.AllowHosts([]string{"claw.example", "10.0.0.5", "2001:db8::5"}, refuse)(fine))
	nameless := server(t, edge.AllowHosts(nil, refuse)(fine))
	for host, c := range map[string]struct{ named, nameless bool }{
		"claw.example":                {true, false},
		"CLAW.example.:443":           {true, false},
		"10.0.0.5:7433":               {true, false},
		"[2001:DB8:0::5]:7433":        {true, false},
		"127.0.0.1:7433":              {true, true},
		"127.3.2.1":                   {true, true},
		"[::1]:7433":                  {true, true},
		"[::ffff:127.0.0.1]":          {true, true},
		"LocalHost:1":                 {true, true},
		"evil.example":                {false, false}, // made to point here
		"evil.example:7433":           {false, false},
		"localhost.evil.example":      {false, false},
		"127.0.0.1.evil.example:7433": {false, false},
		"claw.example.evil.example":   {false, false},
		"127.0.0.1@evil.example":      {false, false},
		"0.0.0.0:7433":                {false, false}, // leads to the loopback in some browsers
		"10.0.0.6":                    {false, false},
	} {
		for s, allowed := range map[*httptest.Server]bool{named: c.named, nameless: c.nameless} {
			resp, text := ask(t, s, http.MethodGet, map[string]string{"Host": host})
			if (resp.StatusCode == http.StatusOK) != allowed || !allowed && (resp.StatusCode != http.StatusForbidden || text != edge.ForbiddenHost) {
				t.Errorf("%s: %s %s", host, resp.Status, text)
			}
		}
	}
}

func TestAnyNameLeadsToTheUnixSocket(t *testing.T) {
	t.Parallel()
	client := onUnixSocket(t, edge.AllowHosts(nil, refuse)(fine))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://coderclaw", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, text := do(t, client, req); text != "fine" {
		t.Errorf("answered %s", text)
	}
}

func TestBrowsersAreKeptOnHTTPSWhereThereIsHTTPS(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		proxied bool
		tls     *tls.ConnectionState
		want    string
	}{
		"plain HTTP":            {false, nil, ""},
		"TLS":                   {false, &tls.ConnectionState{}, "max-age=31536000"},
		"a proxy that ends TLS": {true, nil, "max-age=31536000"},
	} {
		r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		r.TLS = c.tls
		edge.SecurityHeaders(c.proxied)(fine).ServeHTTP(w, r)
		if got := w.Header().Get("Strict-Transport-Security"); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if w.Header().Get("Cross-Origin-Resource-Policy") != "same-origin" || w.Header().Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("%s: other sites may embed the answer: %v", name, w.Header())
		}
	}
}
