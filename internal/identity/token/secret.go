package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
)

const (
	apiKeyPrefix = "ccl_"
	// secretLength is the length of two rand.Text, which hold 260 bits in
	// base32: no separator of ours, and one word for a double click.
	secretLength = 52
	maxKeyID     = 64
)

// NewSecret returns a random text of at least 256 bits that begins with prefix,
// and the hash to store in its place.
func NewSecret(prefix string) (plain string, hash []byte) {
	plain = prefix + rand.Text() + rand.Text()
	return plain, Hash(plain)
}

// ParseSecret returns the hash to look for, or false if NewSecret cannot have
// made plain with this prefix.
func ParseSecret(prefix, plain string) (hash []byte, ok bool) {
	secret, ok := strings.CutPrefix(plain, prefix)
	if !ok || !isSecret(secret) {
		return nil, false
	}
	return Hash(plain), true
}

// NewAPIKey returns the API key ccl_<id>_<secret> and the hash to store beside
// the id. The id has 1 to 64 letters, digits and hyphens; another one panics,
// as no key could be found again by it.
func NewAPIKey(id string) (plain string, hash []byte) {
	if !isKeyID(id) {
		panic("token: the id of an API key has letters, digits and hyphens only")
	}
	return NewSecret(apiKeyPrefix + id + "_")
}

// ParseAPIKey returns the id of an API key and the hash that the stored one
// must Equal, or false if plain is no API key.
func ParseAPIKey(plain string) (id string, hash []byte, ok bool) {
	rest, ok := strings.CutPrefix(plain, apiKeyPrefix)
	if !ok {
		return "", nil, false
	}
	id, secret, ok := strings.Cut(rest, "_")
	if !ok || !isKeyID(id) || !isSecret(secret) {
		return "", nil, false
	}
	return id, Hash(plain), true
}

// Hash returns the SHA-256 of a secret. It is fast, so it is for texts that are
// random; HashPassword is for those that people choose.
func Hash(plain string) []byte {
	sum := sha256.Sum256([]byte(plain))
	return sum[:]
}

// Equal compares two hashes in a time that does not tell where they differ. An
// empty hash equals nothing.
func Equal(a, b []byte) bool {
	return len(a) > 0 && subtle.ConstantTimeCompare(a, b) == 1
}

func isSecret(s string) bool {
	return len(s) == secretLength && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

func isKeyID(s string) bool {
	if s == "" || len(s) > maxKeyID {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}
