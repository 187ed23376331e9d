package edge_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/internal/edge"
)

// certificate makes one that signs itself and names the given subject.
func certificate(t *testing.T, subject string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: subject},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// replace puts a file in place as a whole, as programs that renew certificates do.
func replace(t *testing.T, name string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name+".new", data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// pairFiles puts a certificate and its key into new files.
func pairFiles(t *testing.T, subject string) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, key := certificate(t, subject)
	replace(t, certFile, cert, 0o644)
	replace(t, keyFile, key, 0o600)
	return certFile, keyFile
}

// serveTLS serves until the test ends and returns the address.
func serveTLS(t *testing.T, c *tls.Config) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: fine, TLSConfig: c, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan error)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// presented returns the subject of the certificate that a new connection gets.
func presented(t *testing.T, address string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), message)
}

func TestServesModernTLSAndHTTP2(t *testing.T) {
	t.Parallel()
	certFile, keyFile := pairFiles(t, "first")
	c, err := edge.FileTLS(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, c)
	cert, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, text := do(t, &http.Client{Transport: transport}, req)
	if text != "fine" || resp.Proto != "HTTP/2.0" || resp.TLS.Version != tls.VersionTLS13 {
		t.Errorf("%q over %s and %s", text, resp.Proto, tls.VersionName(resp.TLS.Version))
	}
	for version, accepted := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		if err == nil {
			conn.Close()
		}
		if (err == nil) != accepted {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestNewCertificatesAreTakenOverWhileServing(t *testing.T) {
	t.Parallel()
	certFile, keyFile := pairFiles(t, "first")
	var log lines
	c, err := edge.FileTLSLookingEach(certFile, keyFile, 0, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, c)
	step := func(did, want string) {
		t.Helper()
		if got := presented(t, address); got != want {
			t.Errorf("%s: the certificate is the %s, want the %s", did, got, want)
		}
	}
	const kept = "the new TLS certificate cannot be used, the old one stays"

	step("at start", "first")
	second, secondKey := certificate(t, "second")
	replace(t, certFile, second, 0o644)
	step("with a key that is not yet that of the certificate", "first")
	replace(t, keyFile, secondKey, 0o600)
	step("with both", "second")
	if log.count(kept) != 1 || log.count("the TLS certificate has changed") != 1 {
		t.Errorf("the log says:\n%s", log.text.String())
	}

	third, thirdKey := certificate(t, "third")
	replace(t, keyFile, thirdKey, 0o644)
	replace(t, certFile, third, 0o644)
	step("with a key that others can read", "second")
	if err := os.Chmod(keyFile, 0o600); err != nil {
		t.Fatal(err)
	}
	step("with one that they cannot", "third")
	replace(t, certFile, []byte("nonsense"), 0o644)
	step("with nonsense", "third")
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		step("without a file", "third")
	}
	if n := log.count(kept); n > 2 {
		t.Errorf("%d lines about it within a minute", n)
	}
	replace(t, certFile, third, 0o644)
	step("with the file again", "third")
}

func TestCertificatesMayChangeByALink(t *testing.T) {
	t.Parallel()
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "current")
	for _, name := range []string{"first", "second"} {
		cert, key := certificate(t, name)
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		replace(t, filepath.Join(dir, name, "tls.crt"), cert, 0o600)
		replace(t, filepath.Join(dir, name, "tls.key"), key, 0o600)
	}
	point := func(name string) {
		if err := errors.Join(os.Symlink(filepath.Join(dir, name), link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	point("first")
	c, err := edge.FileTLSLookingEach(filepath.Join(link, "tls.crt"), filepath.Join(link, "tls.key"), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, c)
	point("second")
	if got := presented(t, address); got != "second" {
		t.Errorf("the certificate is the %s", got)
	}
}

func TestHandshakesShareALookAtTheFiles(t *testing.T) {
	t.Parallel()
	certFile, keyFile := pairFiles(t, "first")
	second, secondKey := certificate(t, "second")
	synctest.Test(t, func(t *testing.T) {
		c, err := edge.FileTLS(certFile, keyFile, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		subject := func() string {
			cert, err := c.GetCertificate(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			return cert.Leaf.Subject.CommonName
		}
		replace(t, keyFile, secondKey, 0o600)
		replace(t, certFile, second, 0o644)
		if got := subject(); got != "first" {
			t.Errorf("at once: the %s", got)
		}
		<-time.After(3 * time.Second)
		if got := subject(); got != "second" {
			t.Errorf("after a few seconds: the %s", got)
		}
	})
}

func TestAServerDoesNotStartWithACertificateThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	certFile, keyFile := pairFiles(t, "first")
	_, otherKey := pairFiles(t, "second")
	open := filepath.Join(t.TempDir(), "key.pem")
	_, key := certificate(t, "third")
	replace(t, open, key, 0o604)
	for name, c := range map[string]struct{ cert, key, want string }{
		"no certificate":             {"/no/cert.pem", keyFile, "read the TLS certificate: open /no/cert.pem: no such file or directory"},
		"no key":                     {certFile, "/no/key.pem", "read the key of the TLS certificate: open /no/key.pem: no such file or directory"},
		"another's key":              {certFile, otherKey, "use the TLS certificate in " + certFile + " and " + otherKey + ": tls: private key does not match public key"},
		"a key that others can read": {certFile, open, "read the key of the TLS certificate: the mode of " + open + " is 0604, which lets others in; make it 0600"},
	} {
		if _, err := edge.FileTLS(c.cert, c.key, slog.New(slog.DiscardHandler)); err == nil || err.Error() != c.want {
			t.Errorf("%s: got  %v\nwant %s", name, err, c.want)
		}
	}
}
