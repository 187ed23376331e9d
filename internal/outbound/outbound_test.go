package outbound_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/coderclaw/runtime/internal/outbound"
)

func TestAURLIsCheckedByWhatItNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ public, private bool }{
		"https://example.com/":          {true, true},
		"https://93.184.216.34/":        {true, true},
		"http://example.com/":           {true, true},
		"https://example.com:8443/":     {false, true},
		"https://10.0.0.1/":             {false, true},
		"https://127.0.0.1/":            {false, true},
		"https://[::1]/":                {false, true},
		"https://[::ffff:10.0.0.1]/":    {false, true},
		"https://[fd12::1]/":            {false, true},
		"https://169.254.169.254/":      {false, false},
		"https://[::ffff:a9fe:a9fe]/":   {false, false},
		"https://[fd00:ec2::254]/":      {false, false},
		"https://[fe80::1%25eth0]/":     {false, false},
		"https://100.100.100.200/":      {false, false},
		"https://[64:ff9b::a9fe:a9fe]/": {false, false},
		"https://0.0.0.0/":              {false, false},
		"https://example.com:0/":        {false, false},
		"https://example.com:70000/":    {false, false},
		"gopher://example.com/":         {false, false},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for name, reach := range map[string]struct {
			outbound.Reach
			want bool
		}{"public": {outbound.Public, want.public}, "private": {outbound.Private, want.private}} {
			if err := reach.Check(u); (err == nil) != reach.want || err != nil && !errors.Is(err, outbound.ErrRefused) {
				t.Errorf("%s, %s: %v", text, name, err)
			}
		}
	}
}

func TestAClientConnectsOnlyToWhatItMayAndIsLedNowhereElse(t *testing.T) {
	t.Parallel()
	var asked int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	defer server.Close()
	get := func(reach outbound.Reach) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		return outbound.Client(reach).Do(req)
	}
	if res, err := get(outbound.Public); !errors.Is(err, outbound.ErrRefused) || asked != 0 {
		t.Errorf("got %v, %v after %d requests", res, err, asked)
	}
	for _, reach := range []outbound.Reach{outbound.Private, outbound.Any} {
		res, err := get(reach)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusFound {
			t.Errorf("answered %s", res.Status)
		}
	}
	if asked != 2 {
		t.Errorf("%d requests came", asked)
	}
}
