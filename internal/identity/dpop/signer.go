package dpop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/coderclaw/runtime/internal/identity/jws"
)

// Signer is the device's side: it holds the private key. No log line, %v or JSON
// of it shows that. It is safe for concurrent use.
type Signer struct {
	key     Key
	private crypto.Signer
}

// GenerateEd25519 makes a device key.
func GenerateEd25519() (*Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	return NewSigner(private)
}

// GenerateP256 makes a device key for where Ed25519 is not to be had.
func GenerateP256() (*Signer, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	return NewSigner(private)
}

// NewSigner returns the signer of a private key: ed25519.PrivateKey, or
// *ecdsa.PrivateKey on P-256.
func NewSigner(private crypto.Signer) (*Signer, error) {
	var key Key
	var err error
	switch private := private.(type) {
	case ed25519.PrivateKey:
		if len(private) != ed25519.PrivateKeySize {
			return nil, errors.New("device key: it has the wrong length")
		}
		key, err = ed25519Key(jws.Encoding.EncodeToString(private.Public().(ed25519.PublicKey)))
	case *ecdsa.PrivateKey:
		var point []byte
		if point, err = private.PublicKey.Bytes(); err == nil && private.Curve != elliptic.P256() {
			err = errors.New("its curve is not P-256")
		}
		if err == nil {
			key, err = p256Key(jws.Encoding.EncodeToString(point[1:1+coordinate]), jws.Encoding.EncodeToString(point[1+coordinate:]))
		}
	default:
		err = fmt.Errorf("%T is neither Ed25519 nor P-256", private)
	}
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	return &Signer{key: key, private: private}, nil
}

// Key returns the public key.
func (s *Signer) Key() Key { return s.key }

func (s *Signer) String() string { return "[device key " + s.key.Thumbprint() + "]" }

// GoString keeps %#v from printing the private key.
func (s *Signer) GoString() string { return s.String() }

// MarshalText keeps encoders from writing the private key.
func (s *Signer) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Proof returns the DPoP proof (RFC 9449, section 4.2) for one request with this
// method to this absolute URL. The accessToken is the one that the request
// carries, the nonce the one that the server asked for; "" is none.
func (s *Signer) Proof(method, url, accessToken, nonce string, now time.Time) (string, error) {
	htu, err := target(url)
	if err != nil {
		return "", fmt.Errorf("make device proof: the URL %w", err)
	}
	claims := jwt.MapClaims{"jti": rand.Text(), "htm": method, "htu": htu, "iat": now.Unix()}
	if accessToken != "" {
		claims["ath"] = tokenHash(accessToken)
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	t := jwt.NewWithClaims(s.key.method, claims)
	t.Header["typ"] = mediaType
	t.Header["jwk"] = json.RawMessage(s.key.jwk)
	signed, err := t.SignedString(s.private)
	if err != nil {
		return "", fmt.Errorf("make device proof: %w", err)
	}
	return signed, nil
}

// challengeContext keeps the signature of a challenge, which the other side
// chooses, from being one of a proof: no compact token has a space in it.
const challengeContext = "coderclaw device challenge 1\n"

// SignChallenge returns the signature of a challenge in base64url.
func (s *Signer) SignChallenge(challenge string) (string, error) {
	signature, err := s.key.method.Sign(challengeContext+challenge, s.private)
	if err != nil {
		return "", fmt.Errorf("sign challenge: %w", err)
	}
	return jws.Encoding.EncodeToString(signature), nil
}

// VerifyChallenge reports whether signature is what SignChallenge returns for
// the challenge. No signature is that of an empty challenge. The challenge
// should name the server, or another one could pass it on as its own.
func (k Key) VerifyChallenge(challenge, signature string) bool {
	decoded, err := jws.Bytes(signature)
	return err == nil && challenge != "" && k.Verify([]byte(challengeContext+challenge), decoded)
}

const pemType = "PRIVATE KEY"

// Marshal returns the private key as PKCS#8 (RFC 5958) in PEM.
func (s *Signer) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.private)
	if err != nil {
		return nil, fmt.Errorf("encode device key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParseSigner reads what Marshal returns.
func ParseSigner(data []byte) (*Signer, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("read device key: not one PEM block of type " + pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("read device key: not PKCS#8") // the cause may quote the key
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read device key: %T does not sign", parsed)
	}
	return NewSigner(private)
}
