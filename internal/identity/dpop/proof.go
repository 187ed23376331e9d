package dpop

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/jws"
)

const (
	// MaxAge is how far the time of a proof may lie from the time of the server,
	// either way.
	MaxAge    = time.Minute
	mediaType = "dpop+jwt"
	// maxProof bounds the text of a proof, in bytes.
	maxProof = 8 << 10
	// maxText bounds the jti and the nonce, in bytes.
	maxText = 128
)

// Proof is what a verified proof says.
type Proof struct {
	Thumbprint string // of Key
	Key        Key
	ID         string // jti: 1 to 128 printable ASCII characters, unique for the key
	IssuedAt   time.Time
	Nonce      string // as the server gave it out; "" if there is none
}

// Verify checks a DPoP proof (RFC 9449, section 4.3) for a request with this
// method to this absolute URL at now. With an accessToken the proof must be made
// for it, without one it must be made for none. Anything else is
// fault.Unauthenticated with the reason.
//
// Left to the caller: that the access token is bound to the thumbprint, that the
// nonce is the server's, and that the proof is not a replay (Replays).
func Verify(raw, method, url, accessToken string, now time.Time) (Proof, error) {
	p, err := verify(raw, method, url, accessToken, now)
	if err != nil {
		return Proof{}, fault.New(fault.Unauthenticated, "the device proof is refused: %v", err)
	}
	return p, nil
}

func verify(raw, method, url, accessToken string, now time.Time) (Proof, error) {
	t, err := jws.Split(raw, maxProof)
	if err != nil {
		return Proof{}, err
	}
	key, err := keyOf(t.Header)
	if err != nil {
		return Proof{}, err
	}
	if !key.Verify([]byte(t.Signed), t.Signature) {
		return Proof{}, errors.New("the signature is wrong")
	}
	var htm, htu string
	var ath *string
	var issued int64
	p := Proof{Key: key, Thumbprint: key.Thumbprint()}
	if _, err := jws.Read(t.Payload, jws.Fields{
		"jti": &p.ID, "htm": &htm, "htu": &htu, "iat": &issued, "ath": &ath, "nonce": &p.Nonce,
	}); err != nil {
		return Proof{}, err
	}
	p.IssuedAt = time.Unix(issued, 0).UTC()
	switch age := now.Sub(p.IssuedAt); {
	case p.ID == "" || !isText(p.ID):
		return Proof{}, fmt.Errorf("jti is not of 1 to %d printable ASCII characters", maxText)
	case !isText(p.Nonce):
		return Proof{}, fmt.Errorf("nonce is not of at most %d printable ASCII characters", maxText)
	case htm != method:
		return Proof{}, errors.New("htm is another method")
	case age > MaxAge:
		return Proof{}, errors.New("iat is too long ago")
	case age < -MaxAge:
		return Proof{}, errors.New("iat is in the future")
	case accessToken == "" && ath != nil:
		return Proof{}, errors.New("ath is of an access token that the request does not have")
	case accessToken != "" && (ath == nil || *ath != tokenHash(accessToken)):
		return Proof{}, errors.New("ath is not of the access token")
	}
	return p, sameTarget(htu, url)
}

// keyOf returns the key that the header of a proof brings along.
func keyOf(header []byte) (Key, error) {
	var typ, alg string
	var jwk json.RawMessage
	if _, err := jws.Read(header, jws.Fields{
		"typ": &typ, "alg": &alg, "jwk": &jwk,
		"crit": jws.Refused{}, // RFC 7515, section 4.1.11: no extension is understood here
	}); err != nil {
		return Key{}, err
	}
	switch {
	case typ != mediaType:
		return Key{}, errors.New("typ is not " + mediaType)
	case jwk == nil:
		return Key{}, errors.New("jwk is missing")
	}
	key, err := parseJWK(jwk)
	if err != nil {
		return Key{}, fmt.Errorf("in its jwk %w", err)
	}
	if alg != key.Algorithm() {
		return Key{}, errors.New("alg is not that of the key")
	}
	return key, nil
}

// tokenHash is the ath of an access token (RFC 9449, section 4.2).
func tokenHash(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return jws.Encoding.EncodeToString(sum[:])
}

// isText keeps what a database or a log cannot hold out of what callers store.
func isText(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= maxText
}
