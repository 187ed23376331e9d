package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coderclaw/runtime/internal/identity/jws"
)

// Key signs access tokens. No log line, %v or JSON of it shows the private
// part.
type Key struct {
	ID        string // the thumbprint of the public key (RFC 7638)
	Private   ed25519.PrivateKey
	CreatedAt time.Time
	RetiredAt *time.Time // since when it signs no more; nil while it does
}

// NewKey makes a key that is created at now.
func NewKey(now time.Time) (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make a signing key: %w", err)
	}
	k := keyOf(private)
	k.CreatedAt = now
	return k, nil
}

func keyOf(private ed25519.PrivateKey) Key {
	k := Key{Private: private}
	canonical := fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, jws.Encoding.EncodeToString(k.Public()))
	sum := sha256.Sum256([]byte(canonical))
	k.ID = jws.Encoding.EncodeToString(sum[:])
	return k
}

// Public returns the key that verifies what k signs.
func (k Key) Public() ed25519.PublicKey { return k.Private.Public().(ed25519.PublicKey) }

func (k Key) String() string { return "[signing key " + k.ID + "]" }

// GoString keeps %#v from printing the private part.
func (k Key) GoString() string { return k.String() }

// MarshalText keeps encoders from writing the private part.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

const (
	pemType     = "PRIVATE KEY"
	maxKeyBytes = 16 << 10
)

// Marshal returns the private key as PKCS#8 (RFC 5958) in PEM. The times are
// not part of it.
func (k Key) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		return nil, fmt.Errorf("encode signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParseKey reads what Marshal returns. It refuses any other kind of key and
// anything beside it.
func ParseKey(data []byte) (Key, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, errors.New("read signing key: not one PEM block of type " + pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, errors.New("read signing key: not PKCS#8") // the cause may quote the key
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("read signing key: is a %T, not Ed25519", parsed)
	}
	return keyOf(private), nil
}

// ReadKeyFile reads a key in the form of Marshal that is created when the file
// was last written. It refuses a file that group or others may use.
func ReadKeyFile(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("read signing key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("read signing key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Key{}, fmt.Errorf("read signing key: %s is not a file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Key{}, fmt.Errorf("read signing key: %s has mode %04o, it must be 0600 or less", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyBytes))
	if err != nil {
		return Key{}, fmt.Errorf("read signing key: %w", err)
	}
	k, err := ParseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	k.CreatedAt = info.ModTime().UTC()
	return k, nil
}

// JWKS returns the public parts of keys as a JWK set (RFC 7517, RFC 8037).
func JWKS(keys []Key) ([]byte, error) {
	type jwk struct {
		Kty string `json:"kty"`
		Crv string `json:"crv"`
		X   string `json:"x"`
		Kid string `json:"kid"`
		Alg string `json:"alg"`
		Use string `json:"use"`
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, jwk{
			Kty: "OKP", Crv: "Ed25519", X: jws.Encoding.EncodeToString(k.Public()),
			Kid: k.ID, Alg: "EdDSA", Use: "sig",
		})
	}
	data, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encode key set: %w", err)
	}
	return data, nil
}
