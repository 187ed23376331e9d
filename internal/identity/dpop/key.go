// Package dpop proves that a caller holds the private key of a device: by a
// proof on a request (RFC 9449) or by signing a challenge. It has the side that
// signs and the side that verifies.
//
// It keeps nothing but the proofs that were seen lately: who owns a key and what
// it is trusted with is for the owner of devices to say.
package dpop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"filippo.io/edwards25519"
	"github.com/golang-jwt/jwt/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/jws"
)

// Key is the public key of a device: Ed25519 or P-256. The zero Key verifies
// nothing. Keys are the same if their thumbprints are.
type Key struct {
	_ [0]func() // == would panic on public

	method jwt.SigningMethod
	public any    // as method wants it
	jwk    string // canonical
}

const (
	maxJWK = 4 << 10
	// coordinate is the length of x and y, in bytes, on both curves.
	coordinate = 32
)

// ParseJWK reads a public key in the form of RFC 7517: OKP with Ed25519 (RFC
// 8037) or EC with P-256. Whatever else is fault.Invalid, with the reason: a
// private key, a point that is off the curve, of low order or not in its one
// encoding, and members that are not about a verification key.
func ParseJWK(data []byte) (Key, error) {
	k, err := parseJWK(data)
	if err != nil {
		return Key{}, fault.New(fault.Invalid, "the device key is refused: %v", err)
	}
	return k, nil
}

func parseJWK(data []byte) (Key, error) {
	if len(data) > maxJWK {
		return Key{}, fmt.Errorf("it is longer than %d bytes", maxJWK)
	}
	var kty, crv, x, y, alg, use string
	var operations []string
	var id, extractable json.RawMessage // of no meaning here
	unknown, err := jws.Read(data, jws.Fields{
		"kty": &kty, "crv": &crv, "x": &x, "y": &y, "alg": &alg, "use": &use,
		"key_ops": &operations, "kid": &id, "ext": &extractable,
		"d": jws.Refused{}, // the private part
	})
	switch {
	case err != nil:
		return Key{}, err
	case len(unknown) > 0:
		return Key{}, fmt.Errorf("%q is not accepted", unknown[0])
	case use != "" && use != "sig":
		return Key{}, errors.New("use is not sig")
	case len(operations) > 0 && !slices.Equal(operations, []string{"verify"}):
		return Key{}, errors.New("key_ops is not verify alone")
	}
	var k Key
	switch kty + " " + crv {
	case "OKP Ed25519":
		if y != "" {
			return Key{}, errors.New("an Ed25519 key has no y")
		}
		if alg == "Ed25519" { // RFC 9864 renamed it
			alg = "EdDSA"
		}
		k, err = ed25519Key(x)
	case "EC P-256":
		k, err = p256Key(x, y)
	default:
		return Key{}, errors.New("it is neither OKP with Ed25519 nor EC with P-256")
	}
	if err != nil {
		return Key{}, err
	}
	if alg != "" && alg != k.Algorithm() {
		return Key{}, errors.New("alg is not that of the key")
	}
	return k, nil
}

func ed25519Key(x string) (Key, error) {
	public, err := decodeCoordinate("x", x)
	if err != nil {
		return Key{}, err
	}
	point, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return Key{}, errors.New("the point is not on the curve")
	}
	if !bytes.Equal(point.Bytes(), public) {
		return Key{}, errors.New("the point is not in its canonical encoding")
	}
	// Under a key of low order one signature holds for every message.
	if new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return Key{}, errors.New("the point has a low order")
	}
	return Key{
		method: jwt.SigningMethodEdDSA,
		public: ed25519.PublicKey(public),
		jwk:    fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, x),
	}, nil
}

func p256Key(x, y string) (Key, error) {
	xs, err := decodeCoordinate("x", x)
	if err != nil {
		return Key{}, err
	}
	ys, err := decodeCoordinate("y", y)
	if err != nil {
		return Key{}, err
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, xs, ys))
	if err != nil {
		return Key{}, errors.New("the point is not on the curve")
	}
	return Key{
		method: jwt.SigningMethodES256,
		public: public,
		jwk:    fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, x, y),
	}, nil
}

func decodeCoordinate(name, text string) ([]byte, error) {
	data, err := jws.Bytes(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	if len(data) != coordinate {
		return nil, fmt.Errorf("%s has %d bytes, not %d", name, len(data), coordinate)
	}
	return data, nil
}

// Algorithm is the alg of what the key verifies: EdDSA or ES256, "" for the
// zero Key.
func (k Key) Algorithm() string {
	if k.method == nil {
		return ""
	}
	return k.method.Alg()
}

// JWK returns the key in the canonical form of RFC 7638: the required members,
// in order, without space.
func (k Key) JWK() []byte { return []byte(k.jwk) }

// Thumbprint returns the SHA-256 of JWK in base64url (RFC 7638), which is how
// tokens and sessions name the key; "" for the zero Key.
func (k Key) Thumbprint() string {
	if k.method == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(k.jwk))
	return jws.Encoding.EncodeToString(sum[:])
}

// Verify reports whether signature, of 64 bytes in the form of RFC 7518 or RFC
// 8037, is that of message. ECDSA has two signatures for each message that
// verify: never tell messages apart by them.
func (k Key) Verify(message, signature []byte) bool {
	return k.method != nil && k.method.Verify(string(message), signature, k.public) == nil
}
