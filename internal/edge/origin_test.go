package edge_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/edge"
)

const (
	publicURL = "https://claw.example"
	ourSite   = "https://app.example"
)

func origins(t *testing.T) *edge.Origins {
	t.Helper()
	o, err := edge.NewOrigins(publicURL, []string{ourSite})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestPagesOfAllowedSitesMayCall(t *testing.T) {
	t.Parallel()
	s := server(t, origins(t).CORS(fine))
	for name, c := range map[string]struct {
		origin, method, headers string
		allowed                 bool
	}{
		"an allowed site":                    {ourSite, "POST", "authorization,dpop,idempotency-key,if-match,last-event-id", true},
		"our own site by its public name":    {publicURL, "DELETE", "", true},
		"another site":                       {"https://evil.example", "POST", "", false},
		"an allowed site without encryption": {"http://app.example", "POST", "", false},
		"an allowed site on another port":    {"https://app.example:8443", "POST", "", false},
		"a name that begins like ours":       {"https://app.example.evil.example", "POST", "", false},
		"a name that ends like ours":         {"https://evilapp.example", "POST", "", false},
		"a sandboxed page":                   {"null", "POST", "", false},
		"a header that the API does not use": {ourSite, "POST", "x-forwarded-for", false},
		"a method that the API does not use": {ourSite, "TRACE", "", false},
	} {
		headers := map[string]string{"Origin": c.origin, "Access-Control-Request-Method": c.method}
		if c.headers != "" {
			headers["Access-Control-Request-Headers"] = c.headers
		}
		resp, text := ask(t, s, http.MethodOptions, headers)
		want := ""
		if c.allowed {
			want = c.origin
		}
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want || text != "" {
			t.Errorf("%s: preflight allows %q and says %q", name, got, text)
		}
		if got := resp.Header.Get("Access-Control-Allow-Credentials"); c.allowed && got != "true" || !c.allowed && got != "" {
			t.Errorf("%s: credentials %q", name, got)
		}
		if !slices.Contains(resp.Header.Values("Vary"), "Origin") {
			t.Errorf("%s: caches may give one site's answer to another", name)
		}
	}
	resp, text := ask(t, s, http.MethodGet, map[string]string{"Origin": ourSite})
	if resp.Header.Get("Access-Control-Allow-Origin") != ourSite || text != "fine" {
		t.Errorf("an allowed site is answered %q with %q", text, resp.Header)
	}
	for _, name := range []string{"Location", "Retry-After", "X-Request-Id", "Etag"} {
		if !strings.Contains(resp.Header.Get("Access-Control-Expose-Headers"), name) {
			t.Errorf("pages cannot read %s", name)
		}
	}
}

func TestNoSiteIsAllowedByDefault(t *testing.T) {
	t.Parallel()
	o, err := edge.NewOrigins("", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := server(t, o.CORS(fine))
	for _, origin := range []string{"https://evil.example", "null", "", s.URL} {
		resp, _ := ask(t, s, http.MethodGet, map[string]string{"Origin": origin})
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%q is allowed: %q", origin, got)
		}
	}
}

func TestOriginsThatBrowsersNeverSendAreRefused(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{"app.example", "https://app.example/", "https://app.example/path", "*"} {
		if _, err := edge.NewOrigins("", []string{origin}); err == nil {
			t.Errorf("%q was accepted", origin)
		}
	}
}

func TestOtherSitesCannotUseAUsersCookie(t *testing.T) {
	t.Parallel()
	byCookie := func(r *http.Request) bool { return r.Header.Get("Authorization") == "" && r.Header.Get("Cookie") != "" }
	s := server(t, origins(t).Protect(byCookie, refuse)(fine))
	const evil = "https://evil.example"
	for name, c := range map[string]struct {
		method  string
		headers map[string]string
		allowed bool
	}{
		"a form of another site":             {"POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": evil}, false},
		"a form of a sister site":            {"POST", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "https://blog.example"}, false},
		"a form of a sandboxed page":         {"POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "null"}, false},
		"a form in an older browser":         {"POST", map[string]string{"Origin": evil}, false},
		"a form that a page navigates to":    {"POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": evil, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, false},
		"a deletion by another site":         {"DELETE", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": evil}, false},
		"an EventSource of another site":     {"GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Origin": evil, "Accept": "text/event-stream"}, false},
		"an EventSource of a sister site":    {"GET", map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Origin": "https://blog.example"}, false},
		"an EventSource in an older browser": {"GET", map[string]string{"Origin": evil, "Accept": "text/event-stream"}, false},
		"an image of another site":           {"GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, false},
		"a frame of another site":            {"GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, false},
		"a link of another site":             {"GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, true},
		"an address that the user typed":     {"GET", map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, true},
		"our own page":                       {"POST", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": publicURL}, true},
		"our own page in an older browser":   {"POST", map[string]string{"Origin": publicURL}, true},
		"our own page by another name":       {"GET", map[string]string{"Origin": s.URL}, true},
		"an allowed site":                    {"POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": ourSite}, true},
		"an EventSource of an allowed site":  {"GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": ourSite}, true},
		"a program":                          {"POST", nil, true},
	} {
		for cookie, allowed := range map[string]bool{"session=x": c.allowed, "": true} {
			headers := map[string]string{}
			maps.Copy(headers, c.headers)
			if cookie != "" {
				headers["Cookie"] = cookie
			}
			resp, text := ask(t, s, c.method, headers)
			if (resp.StatusCode == http.StatusOK) != allowed || !allowed && (resp.StatusCode != http.StatusForbidden || text != edge.ForbiddenOrigin) {
				t.Errorf("%s, with the cookie %q: %s %s", name, cookie, resp.Status, text)
			}
		}
	}
}
