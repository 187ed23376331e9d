package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// checkInterval is how often handshakes look for new certificate files.
	checkInterval = 2 * time.Second
	// maxPEM bounds what is read of a file: chains have a few kilobytes.
	maxPEM = 1 << 20
)

// FileTLS returns the configuration of a server with the certificate in
// certFile and the key in keyFile, both in PEM. The key must not be readable by
// other users. When the files change, handshakes from then on have the new
// certificate; one that cannot be used is logged and the old one stays.
func FileTLS(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	return fileTLS(certFile, keyFile, checkInterval, log)
}

func fileTLS(certFile, keyFile string, every time.Duration, log *slog.Logger) (*tls.Config, error) {
	p := &pair{certFile: certFile, keyFile: keyFile, every: every, log: log, report: rate.Sometimes{Interval: time.Minute}}
	if err := p.load(); err != nil {
		return nil, err
	}
	p.next.Store(time.Now().Add(every).UnixNano())
	c := serverTLS()
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		p.refresh(hello.Context())
		return p.current.Load(), nil
	}
	return c, nil
}

func serverTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}

// pair is a certificate and key in files.
type pair struct {
	certFile, keyFile string
	every             time.Duration // between looks at the files
	log               *slog.Logger

	current atomic.Pointer[tls.Certificate]
	next    atomic.Int64 // when to look at the files again, in Unix nanoseconds

	loading   sync.Mutex
	report    rate.Sometimes // what cannot be used is tried again at every look
	cert, key os.FileInfo    // what the files were like that are in use
}

// refresh takes over new files, if it is time to look for them. One handshake
// does that at a time; the others do not wait for it.
func (p *pair) refresh(ctx context.Context) {
	if time.Now().UnixNano() < p.next.Load() || !p.loading.TryLock() {
		return
	}
	defer p.loading.Unlock()
	defer func() { p.next.Store(time.Now().Add(p.every).UnixNano()) }()
	if cert, err := os.Stat(p.certFile); err == nil && same(cert, p.cert) {
		if key, err := os.Stat(p.keyFile); err == nil && same(key, p.key) {
			return
		}
	}
	if err := p.load(); err != nil {
		p.report.Do(func() {
			p.log.ErrorContext(ctx, "the new TLS certificate cannot be used, the old one stays", "error", err)
		})
		return
	}
	p.log.InfoContext(ctx, "the TLS certificate has changed", "expires", p.current.Load().Leaf.NotAfter.UTC())
}

// load reads the files and takes them over if they are in order.
func (p *pair) load() error {
	cert, certPEM, err := readPEM(p.certFile)
	if err != nil {
		return fmt.Errorf("read the TLS certificate: %w", err)
	}
	key, keyPEM, err := readPEM(p.keyFile)
	if err != nil {
		return fmt.Errorf("read the key of the TLS certificate: %w", err)
	}
	if mode := key.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("read the key of the TLS certificate: the mode of %s is %#o, which lets others in; make it 0600", p.keyFile, mode)
	}
	loaded, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("use the TLS certificate in %s and %s: %w", p.certFile, p.keyFile, err)
	}
	p.current.Store(&loaded)
	p.cert, p.key = cert, key
	return nil
}

// readPEM returns what is in a file, and what the file was like before: if it is
// written at this moment, it will be found to differ.
func readPEM(filename string) (os.FileInfo, []byte, error) {
	f, err := os.Open(filename)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(data) > maxPEM {
		err = errors.New("the file is too large for a certificate")
	}
	return info, data, err
}

// same reports whether a file is still what it was. The mode counts too, for a
// file may be refused because of it.
func same(now, before os.FileInfo) bool {
	return before != nil && os.SameFile(now, before) && now.ModTime().Equal(before.ModTime()) &&
		now.Size() == before.Size() && now.Mode() == before.Mode()
}
