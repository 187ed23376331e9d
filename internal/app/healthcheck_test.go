package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

func TestTheHealthCheckFindsItsServerWhereverItListens(t *testing.T) {
	t.Parallel()
	url := "CODERCLAW_DATABASE_URL=" + pgtest.EmptyURL(t)
	secret := []string{"CODERCLAW_REQUIRE_AUTH=true", "CODERCLAW_TOKEN=" + operatorToken}
	for name, settings := range map[string]func(in *installation) []string{
		"on loopback":       func(*installation) []string { return nil },
		"on every address":  func(in *installation) []string { return append(secret, "CODERCLAW_LISTEN=0.0.0.0:"+in.port()) },
		"on a socket":       func(in *installation) []string { return []string{"CODERCLAW_LISTEN=unix:" + in.home + "/s"} },
		"under other names": func(in *installation) []string { return append(secret, "CODERCLAW_ALLOWED_HOSTS=claw.example") },
		"with a certificate for another name": func(in *installation) []string {
			cert, key := certificate(t, in.home, "claw.example")
			return append(secret, "CODERCLAW_LISTEN=:"+in.port(), "CODERCLAW_TLS_CERT_FILE="+cert, "CODERCLAW_TLS_KEY_FILE="+key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t, url)
			in.env = append(in.env, settings(in)...)
			if out, code := in.run("healthcheck"); code != 1 {
				t.Errorf("without a server: %d %s", code, out)
			}
			p := in.start("serve")
			var out string
			for deadline, code := time.Now().Add(patience), 1; code != 0; out, code = in.run("healthcheck") {
				select {
				case <-p.exited:
					t.Fatalf("the server ended: %v", p.err)
				default:
				}
				if time.Now().After(deadline) {
					t.Fatalf("with a server: %s", out)
				}
			}
		})
	}
}

func TestTheHealthCheckNamesADomainOfTheServersCertificates(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, "CODERCLAW_ACME_DOMAINS=claw.example,www.claw.example")
	named := make(chan string, 1)
	cert, key := certificate(t, in.home, "claw.example")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", in.address, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		named <- hello.ServerName
		return &pair, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	out, code := in.run("healthcheck")
	if name := <-named; name != "claw.example" || code != 1 || !strings.Contains(out, "404") {
		t.Errorf("the server is called %q; exit code %d, %s", name, code, out)
	}
}

func (in *installation) port() string {
	_, port, _ := strings.Cut(in.address, ":")
	return port
}

// certificate puts one that signs itself, and its key, into files.
func certificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
