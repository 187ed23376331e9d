package edge_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/coderclaw/runtime/internal/edge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// refuse answers with the slug alone.
func refuse(w http.ResponseWriter, _ *http.Request, status int, slug, _ string, header http.Header) {
	maps.Copy(w.Header(), header)
	w.WriteHeader(status)
	io.WriteString(w, slug)
}

// fine answers what is not turned away.
var fine = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fine") })

// server serves h on the loopback.
func server(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// ask sends a request with the given headers, of which Host is the host, and
// returns the answer and its text.
func ask(t *testing.T, s *httptest.Server, method string, headers map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	req.Host = headers["Host"]
	return do(t, s.Client(), req)
}

func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// onUnixSocket serves h on a Unix socket and returns a client that gets there,
// whatever host it names.
func onUnixSocket(t *testing.T, h http.Handler) *http.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// told answers with what is known of the peer.
var told = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	p := edge.PeerOf(r.Context())
	fmt.Fprintf(w, "%s proxied=%t local=%t", p, p.Proxied, p.Local)
})
