package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxToken   = 16 << 10
	maxName    = 255 // of subjects, key ids, token ids
	maxNesting = 16
)

// token is a JWT that is well-formed and means one thing only. Nothing in it is
// to be believed before its issuer has verified it.
type token struct {
	raw           string
	alg, kid, typ string
	issuer        string
	claims        claims
}

// The names that libraries look for without regard to case.
var (
	headerNames = foldAll("alg", "kid", "typ", "cty", "crit", "b64", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "nonce")
	claimNames  = foldAll("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "nonce", "at_hash", "_claim_names", "_claim_sources")
)

// parseToken reads a JWS in compact form (RFC 7515, section 7.1) that two
// readers cannot take for two different things: canonical base64, valid UTF-8,
// no name twice or in another case, no extensions that must be understood.
func parseToken(raw string) (token, error) {
	if len(raw) > maxToken {
		return token{}, refuse(classMalformed, "%d bytes are too many", len(raw))
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return token{}, refuse(classMalformed, "%d parts instead of three", len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = decodeBase64(part); err != nil {
			return token{}, refuse(classMalformed, "part %d: %w", i+1, err)
		}
	}
	header, err := readObject(decoded[0], headerNames)
	if err != nil {
		return token{}, refuse(classMalformed, "header: %w", err)
	}
	// RFC 7515, section 4.1.11: who does not understand an extension must not
	// accept the token. b64 (RFC 7797) is one, and some forget to list it.
	for _, name := range []string{"crit", "b64"} {
		if _, ok := header[name]; ok {
			return token{}, refuse(classMalformed, "header %s is not supported", name)
		}
	}
	payload, err := readObject(decoded[1], claimNames)
	if err != nil {
		return token{}, refuse(classMalformed, "claims: %w", err)
	}
	t := token{raw: raw, claims: payload}
	for _, field := range []struct {
		from     claims
		name     string
		to       *string
		required bool
	}{
		{header, "alg", &t.alg, true},
		{header, "kid", &t.kid, true},
		{header, "typ", &t.typ, false},
		{payload, "iss", &t.issuer, true},
	} {
		if *field.to, err = field.from.name(field.name, field.required); err != nil {
			return token{}, refuse(classMalformed, "%w", err)
		}
	}
	return t, nil
}

var base64url = base64.RawURLEncoding.Strict()

// decodeBase64 accepts the one encoding that RFC 7515, section 2, has for some
// bytes. The standard library would skip line breaks.
func decodeBase64(text string) ([]byte, error) {
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("is empty or has line breaks")
	}
	return base64url.DecodeString(text)
}

// readObject reads one JSON object whose names stand for one value each. At the
// top, names that differ in case alone count as one, and a reserved name must
// be written as it is: encoding/json, like many a reader, takes "SUB" for "sub".
func readObject(data []byte, reserved map[string]string) (claims, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	value, err := readValue(d, 0)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("is not an object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something after the object")
	}
	seen := make(map[string]bool, len(object))
	for name := range object {
		folded := fold(name)
		if seen[folded] {
			return nil, fmt.Errorf("%.60q is there in more than one case", name)
		}
		seen[folded] = true
		if exact, ok := reserved[folded]; ok && name != exact {
			return nil, fmt.Errorf("%.60q is not %s", name, exact)
		}
	}
	return object, nil
}

func readValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == maxNesting {
		return nil, errors.New("is nested too deeply")
	}
	object, list := map[string]any{}, []any{}
	for d.More() {
		var name string
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, _ = t.(string) // the decoder lets nothing else be a name
			if _, twice := object[name]; twice {
				return nil, fmt.Errorf("%.60q is there twice", name)
			}
		}
		value, err := readValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		if open == '{' {
			object[name] = value
		} else {
			list = append(list, value)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if open == '{' {
		return object, nil
	}
	return list, nil
}

func foldAll(names ...string) map[string]string {
	folded := make(map[string]string, len(names))
	for _, name := range names {
		folded[fold(name)] = name
	}
	return folded
}

// fold maps names that are equal but for case to one, as strings.EqualFold and
// encoding/json compare: also the long s to s and the Kelvin sign to k.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}

// printable reports whether text can be shown and compared without surprises.
func printable(text string) bool {
	return !slices.ContainsFunc([]rune(text), func(r rune) bool { return !unicode.IsPrint(r) })
}

// display makes a text of strangers fit to be shown: printable characters only,
// no direction marks, and not too many.
func display(text string) string {
	const most = 200
	var shown []rune
	for _, r := range strings.TrimSpace(text) {
		if unicode.IsPrint(r) && r != utf8.RuneError && len(shown) < most {
			shown = append(shown, r)
		}
	}
	return string(shown)
}
