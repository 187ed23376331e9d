package token

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/coderclaw/runtime/internal/fault"
)

// The rules of NIST SP 800-63B-4, section 3.1.1.2, for a password that is the
// only factor: long, nothing about kinds of characters, no expiry.
const (
	MinPasswordLength = 15      // in characters
	MaxPasswordLength = 1 << 10 // in bytes
	// minDistinct keeps out one key held down and short words repeated.
	minDistinct = 5
)

// cost is how much work argon2id (RFC 9106) does.
type cost struct {
	memory  uint32 // in KiB
	time    uint32
	threads uint8
}

var (
	// current is the second choice of the OWASP password storage cheat sheet,
	// the one that a login storm takes the least memory for.
	current = cost{memory: 19 << 10, time: 2, threads: 1}
	// highest bounds what a stored text can make a server do.
	highest = cost{memory: 64 << 10, time: 4, threads: 4}

	// passwordEncoding is that of the PHC string format: standard alphabet, no padding.
	passwordEncoding = base64.RawStdEncoding.Strict()

	// hashing holds one place for each processor: more at a time would take
	// memory and gain nothing.
	hashing = make(chan struct{}, runtime.GOMAXPROCS(0))
)

const (
	saltLength = 16
	hashLength = 32
)

// HashPassword returns password in the PHC string format, hashed by argon2id
// with a random salt. A password that breaks the rules is fault.Invalid; if ctx
// ends while others are hashed it is fault.Unavailable.
func HashPassword(ctx context.Context, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt) // never fails
	hash, err := derive(ctx, password, salt, current, hashLength)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		current.memory, current.time, current.threads,
		passwordEncoding.EncodeToString(salt), passwordEncoding.EncodeToString(hash)), nil
}

// VerifyPassword reports whether encoded, a text of HashPassword, is that of
// password, and if so whether it should be hashed anew at today's cost. If ctx
// ends while others are hashed the error is fault.Unavailable; any other error
// is that encoded is damaged.
func VerifyPassword(ctx context.Context, encoded, password string) (ok, needsRehash bool, err error) {
	c, salt, want, err := parsePassword(encoded)
	if err != nil {
		return false, false, fmt.Errorf("read stored password: %w", err)
	}
	if len(password) > MaxPasswordLength {
		return false, false, nil
	}
	got, err := derive(ctx, password, salt, c, uint32(len(want)))
	if err != nil {
		return false, false, err
	}
	ok = subtle.ConstantTimeCompare(got, want) == 1
	return ok, ok && (c != current || len(salt) != saltLength || len(want) != hashLength), nil
}

// DummyVerify takes as long as VerifyPassword does, for users that do not
// exist: the time of an answer must not tell them from others.
func DummyVerify(ctx context.Context, password string) error {
	if len(password) > MaxPasswordLength {
		return nil
	}
	_, err := derive(ctx, password, make([]byte, saltLength), current, hashLength)
	return err
}

func checkPassword(password string) error {
	distinct := make(map[rune]bool)
	for _, r := range password {
		distinct[r] = true
	}
	switch {
	case len(password) > MaxPasswordLength:
		return fault.New(fault.Invalid, "the password has more than %d bytes", MaxPasswordLength)
	case !utf8.ValidString(password):
		return fault.New(fault.Invalid, "the password is not valid UTF-8")
	case utf8.RuneCountInString(password) < MinPasswordLength:
		return fault.New(fault.Invalid, "the password has fewer than %d characters", MinPasswordLength)
	case len(distinct) < minDistinct:
		return fault.New(fault.Invalid, "the password has fewer than %d different characters", minDistinct)
	}
	return nil
}

func derive(ctx context.Context, password string, salt []byte, c cost, length uint32) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, tooBusy(ctx)
	}
	select {
	case hashing <- struct{}{}:
		defer func() { <-hashing }()
	case <-ctx.Done():
		return nil, tooBusy(ctx)
	}
	// Keyboards differ in how they compose the same character.
	password = norm.NFKC.String(password)
	return argon2.IDKey([]byte(password), salt, c.time, c.memory, c.threads, length), nil
}

func tooBusy(ctx context.Context) error {
	return fault.Wrap(ctx.Err(), fault.Unavailable, "too many passwords are being checked, try again later")
}

func parsePassword(encoded string) (c cost, salt, hash []byte, err error) {
	parts := strings.Split(encoded, "$")
	if len(encoded) > 512 || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" ||
		parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return cost{}, nil, nil, errors.New("not argon2id in the PHC string format")
	}
	if c, err = parseCost(parts[3]); err != nil {
		return cost{}, nil, nil, err
	}
	if salt, err = decodeBetween(parts[4], 8, 64); err != nil {
		return cost{}, nil, nil, fmt.Errorf("salt: %w", err)
	}
	if hash, err = decodeBetween(parts[5], 16, 64); err != nil {
		return cost{}, nil, nil, fmt.Errorf("hash: %w", err)
	}
	return c, salt, hash, nil
}

func parseCost(text string) (cost, error) {
	var c cost
	if n, err := fmt.Sscanf(text, "m=%d,t=%d,p=%d", &c.memory, &c.time, &c.threads); n != 3 || err != nil ||
		text != fmt.Sprintf("m=%d,t=%d,p=%d", c.memory, c.time, c.threads) {
		return cost{}, errors.New("the cost is not m=,t=,p=")
	}
	if c.time < 1 || c.threads < 1 || c.memory < 8*uint32(c.threads) ||
		c.time > highest.time || c.threads > highest.threads || c.memory > highest.memory {
		return cost{}, fmt.Errorf("the cost %s is out of bounds", text)
	}
	return c, nil
}

func decodeBetween(text string, least, most int) ([]byte, error) {
	data, err := passwordEncoding.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") || len(data) < least || len(data) > most {
		return nil, fmt.Errorf("not base64 of %d to %d bytes", least, most)
	}
	return data, nil
}
