package edge

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/time/rate"
)

// ACME says how to get certificates from an authority that speaks RFC 8555,
// whose terms of service are agreed to.
type ACME struct {
	// Domains are those to have certificates for, in lower case and ASCII. The
	// authority must reach the server on port 443 of each (RFC 8737).
	Domains []string
	// Email, if any, is where the authority reports problems.
	Email string
	// DirectoryURL names the authority.
	DirectoryURL string
	// CacheDir keeps certificates and keys over restarts. It is made if there is
	// none, and must be for this user alone.
	CacheDir string
	// Client, if not nil, connects to the authority.
	Client *http.Client
	Log    *slog.Logger
}

// ACMETLS returns the configuration of a server that has a certificate for each
// domain when the first client asks for it, and renews it in time. Clients must
// name one of the domains (SNI); others get no handshake.
func ACMETLS(a ACME) (*tls.Config, error) {
	if err := makePrivate(a.CacheDir); err != nil {
		return nil, fmt.Errorf("keep TLS certificates: %w", err)
	}
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(a.CacheDir),
		HostPolicy: autocert.HostWhitelist(a.Domains...),
		Email:      a.Email,
		Client:     &acme.Client{DirectoryURL: a.DirectoryURL, HTTPClient: a.Client, UserAgent: "coderclaw"},
	}
	// Every handshake fails while there is no certificate; one line a minute
	// says so.
	report := rate.Sometimes{Interval: time.Minute}
	c := serverTLS()
	c.NextProtos = append(c.NextProtos, acme.ALPNProto)
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := manager.GetCertificate(hello)
		if err != nil && slices.Contains(a.Domains, hello.ServerName) {
			report.Do(func() {
				a.Log.ErrorContext(hello.Context(), "no TLS certificate for a domain", "domain", hello.ServerName, "error", err)
			})
		}
		return cert, err
	}
	return c, nil
}

// makePrivate sees to a directory that only this user can enter.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("the mode of %s is %#o, which lets others in; make it 0700", dir, mode)
	}
	return nil
}
