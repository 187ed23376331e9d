package edge_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/coderclaw/runtime/internal/edge"
)

// authority is a certificate authority that speaks as much of RFC 8555 as one
// domain of one client takes. It checks signatures and nonces, and that the
// domain's server answers the challenge (RFC 8737).
type authority struct {
	*httptest.Server
	t      *testing.T
	key    *ecdsa.PrivateKey
	root   *x509.Certificate
	server string // what the domain leads to

	mu      sync.Mutex
	nonces  map[string]bool
	account *ecdsa.PublicKey
	domain  string
	valid   bool
	issued  []byte
	orders  int
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, nonces: map[string]bool{}}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	nonce := rand.Text()
	a.nonces[nonce] = true
	w.Header().Set("Replay-Nonce", nonce)
	var answer any
	var err error
	switch {
	case r.Method == http.MethodHead:
		return
	case r.Method == http.MethodGet:
		answer = map[string]string{"newNonce": a.URL + "/nonce", "newAccount": a.URL + "/account", "newOrder": a.URL + "/order"}
	default:
		answer, err = a.post(w, r)
	}
	if err != nil {
		a.t.Errorf("%s: %v", r.URL.Path, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if text, ok := answer.([]byte); ok {
		w.Write(text)
		return
	}
	json.NewEncoder(w).Encode(answer)
}

// post answers a signed request.
func (a *authority) post(w http.ResponseWriter, r *http.Request) (any, error) {
	payload, err := a.open(r)
	if err != nil {
		return nil, err
	}
	status := map[bool]string{false: acme.StatusPending, true: acme.StatusValid}[a.valid]
	order := map[string]any{
		"status": acme.StatusPending, "identifiers": []any{map[string]string{"type": "dns", "value": a.domain}},
		"authorizations": []string{a.URL + "/authorization"}, "finalize": a.URL + "/finalize",
	}
	challenge := map[string]string{"type": "tls-alpn-01", "url": a.URL + "/challenge", "token": "the-token", "status": status}
	switch r.URL.Path {
	case "/account":
		w.Header().Set("Location", a.URL+"/accounts/1")
		w.WriteHeader(http.StatusCreated)
		return map[string]string{"status": acme.StatusValid}, nil
	case "/order":
		var wanted struct{ Identifiers []struct{ Value string } }
		if err := json.Unmarshal(payload, &wanted); err != nil {
			return nil, err
		}
		a.domain = wanted.Identifiers[0].Value
		a.orders++
		w.Header().Set("Location", a.URL+"/orders/1")
		w.WriteHeader(http.StatusCreated)
		return order, nil
	case "/authorization":
		return map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": a.domain}, "challenges": []any{challenge}}, nil
	case "/challenge":
		if err := a.challenge("the-token"); err != nil {
			return nil, err
		}
		a.valid = true
		return challenge, nil
	case "/orders/1":
		if a.valid {
			order["status"] = acme.StatusReady
		}
		return order, nil
	case "/finalize":
		if err := a.issue(payload); err != nil {
			return nil, err
		}
		order["status"], order["certificate"] = acme.StatusValid, a.URL+"/certificate"
		w.Header().Set("Location", a.URL+"/orders/1")
		return order, nil
	case "/certificate":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		return a.issued, nil
	}
	return nil, errors.New("not a part of the protocol that is spoken here")
}

// open checks a request's signature and nonce (RFC 8555, section 6), and returns
// what it says.
func (a *authority) open(r *http.Request) ([]byte, error) {
	var jws struct{ Protected, Payload, Signature string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&jws); err != nil {
		return nil, err
	}
	var header struct {
		Alg, Nonce, URL string
		JWK             *struct{ X, Y string }
	}
	protected, err := base64.RawURLEncoding.DecodeString(jws.Protected)
	if err == nil {
		err = json.Unmarshal(protected, &header)
	}
	if err != nil {
		return nil, err
	}
	if !a.nonces[header.Nonce] || header.Alg != "ES256" || header.URL != a.URL+r.URL.Path {
		return nil, fmt.Errorf("protected header %s", protected)
	}
	delete(a.nonces, header.Nonce)
	if header.JWK != nil {
		x, errX := base64.RawURLEncoding.DecodeString(header.JWK.X)
		y, errY := base64.RawURLEncoding.DecodeString(header.JWK.Y)
		if err := errors.Join(errX, errY); err != nil {
			return nil, err
		}
		if a.account, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...)); err != nil {
			return nil, err
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(jws.Signature)
	if err != nil || len(signature) != 64 {
		return nil, fmt.Errorf("signature %q", jws.Signature)
	}
	digest := sha256.Sum256([]byte(jws.Protected + "." + jws.Payload))
	if !ecdsa.Verify(a.account, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return nil, errors.New("the signature is wrong")
	}
	return base64.RawURLEncoding.DecodeString(jws.Payload)
}

// challenge connects to the domain's server as RFC 8737, section 3 has it.
func (a *authority) challenge(token string) error {
	conn, err := tls.Dial("tcp", a.server, &tls.Config{ServerName: a.domain, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	thumbprint, err := acme.JWKThumbprint(crypto.PublicKey(a.account))
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(token + "." + thumbprint))
	want, err := asn1.Marshal(digest[:])
	if err != nil {
		return err
	}
	leaf := conn.ConnectionState().PeerCertificates[0]
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" && bytes.Equal(e.Value, want) && e.Critical {
			return leaf.VerifyHostname(a.domain)
		}
	}
	return errors.New("the certificate does not answer the challenge")
}

// issue signs the certificate that a finalize request asks for.
func (a *authority) issue(payload []byte) error {
	var wanted struct{ CSR string }
	if err := json.Unmarshal(payload, &wanted); err != nil {
		return err
	}
	der, err := base64.RawURLEncoding.DecodeString(wanted.CSR)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || !a.valid {
		return fmt.Errorf("no certificate: valid %t, %w", a.valid, err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: csr.DNSNames, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, a.root, csr.PublicKey, a.key)
	if err != nil {
		return err
	}
	a.issued = nil
	for _, der := range [][]byte{leaf, a.root.Raw} {
		a.issued = append(a.issued, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return nil
}

// verified connects to a server as a client that trusts the authority.
func (a *authority) verified(domain, address string) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.root)
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: domain, RootCAs: roots})
	if err == nil {
		conn.Close()
	}
	return err
}

func TestCertificatesComeFromAnAuthority(t *testing.T) {
	t.Parallel()
	const domain = "claw.example"
	a := newAuthority(t)
	dir := filepath.Join(t.TempDir(), "made", "acme")
	var log lines
	options := edge.ACME{
		Domains: []string{domain}, Email: "ops@claw.example", DirectoryURL: a.URL + "/directory",
		CacheDir: dir, Client: a.Client(), Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	c, err := edge.ACMETLS(options)
	if err != nil {
		t.Fatal(err)
	}
	a.server = serveTLS(t, c)
	for _, other := range []string{"evil.example", "www." + domain, ""} {
		if err := a.verified(other, a.server); err == nil {
			t.Errorf("a handshake for %q", other)
		}
	}
	if a.orders != 0 || log.count("\n") != 0 {
		t.Errorf("strangers made %d orders and this log:\n%s", a.orders, log.text.String())
	}
	for range 2 {
		if err := a.verified(domain, a.server); err != nil {
			t.Fatal(err)
		}
	}
	if a.orders != 1 {
		t.Errorf("%d orders for one domain", a.orders)
	}

	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("certificates are kept in a directory with mode %v, %v", info.Mode(), err)
	}
	a.Close()
	restarted, err := edge.ACMETLS(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.verified(domain, serveTLS(t, restarted)); err != nil {
		t.Errorf("after a restart, without the authority: %v", err)
	}
}

func TestAnAuthorityOutOfReachIsLoggedOnce(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.Close()
	var log lines
	c, err := edge.ACMETLS(edge.ACME{
		Domains: []string{"claw.example"}, DirectoryURL: a.URL, CacheDir: t.TempDir() + "/acme",
		Client: a.Client(), Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, c)
	for range 3 {
		if err := a.verified("claw.example", address); err == nil {
			t.Error("a handshake without a certificate")
		}
	}
	if n := log.count("no TLS certificate for a domain"); n != 1 {
		t.Errorf("%d lines about it:\n%s", n, log.text.String())
	}
}

func TestCertificatesAreNotKeptWhereOthersCanRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	_, err := edge.ACMETLS(edge.ACME{Domains: []string{"claw.example"}, CacheDir: dir})
	want := "keep TLS certificates: the mode of " + dir + " is 0750, which lets others in; make it 0700"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
