// Package jws takes signed compact tokens (RFC 7515) and the JSON in them apart
// more strictly than golang-jwt and encoding/json do: one text for one token,
// one meaning for one object.
//
// It owns the syntax that tokens and device proofs share. It checks no
// signature and knows no claim.
package jws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Encoding is base64url without padding (RFC 7515, section 2) that refuses bits
// which do not count. Like all decoders of encoding/base64 it skips line
// breaks, which Split and Bytes do not.
var Encoding = base64.RawURLEncoding.Strict()

// Token is a compact token taken apart. Nothing in it is verified.
type Token struct {
	Header    []byte
	Payload   []byte
	Signed    string // the text that the signature is over
	Signature []byte
}

// Split takes a compact token of at most limit bytes apart. It refuses whatever
// lets two texts stand for one token: padding, bits that do not count, line
// breaks.
func Split(raw string, limit int) (Token, error) {
	if len(raw) > limit {
		return Token{}, fmt.Errorf("it is longer than %d bytes", limit)
	}
	if strings.Count(raw, ".") != 2 {
		return Token{}, errors.New("it does not have three parts")
	}
	last := strings.LastIndexByte(raw, '.')
	header, payload, _ := strings.Cut(raw[:last], ".")
	t := Token{Signed: raw[:last]}
	for _, part := range []struct {
		name, text string
		into       *[]byte
	}{
		{"header", header, &t.Header},
		{"payload", payload, &t.Payload},
		{"signature", raw[last+1:], &t.Signature},
	} {
		data, err := Bytes(part.text)
		if err != nil {
			return Token{}, fmt.Errorf("its %s %w", part.name, err)
		}
		*part.into = data
	}
	return t, nil
}

// Bytes decodes base64url that is not empty and could not be written another
// way.
func Bytes(text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New("is empty")
	}
	data, err := Encoding.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("is not strict base64url")
	}
	return data, nil
}

// Fields are the members of an object that a reader knows, by name. A value is
// a pointer that json.Unmarshal can fill, the Fields of an object inside, or
// Refused.
type Fields map[string]any

// Refused marks a member that must not be there.
type Refused struct{}

// maxMembers bounds the comparisons of names in Read.
const maxMembers = 64

// Read reads one JSON object into fields and returns the names of the members
// that fields does not name. A member that is absent leaves its value alone.
//
// It refuses what parsers are known to disagree about: a name that comes twice,
// also in another case; a name that differs from a known one in case alone;
// null for a known member; text that is not UTF-8; anything after the object.
func Read(data []byte, fields Fields) (unknown []string, err error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the text is not UTF-8")
	}
	// What is valid is one value with nothing after it, so it can be cut without
	// a second look at its syntax.
	rest := skipSpace(data)
	if !json.Valid(data) || rest[0] != '{' {
		return nil, errors.New("the text is not a JSON object")
	}
	var names []string
	for rest = skipSpace(rest[1:]); rest[0] != '}'; {
		var key, value []byte
		key, rest = cut(rest)
		value, rest = cut(rest[1:]) // after the colon
		if rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
		var name string
		if err := json.Unmarshal(key, &name); err != nil {
			return nil, fmt.Errorf("read the name %s: %w", key, err)
		}
		for _, other := range names {
			if strings.EqualFold(name, other) {
				return nil, fmt.Errorf("%q comes twice", name)
			}
		}
		if names = append(names, name); len(names) > maxMembers {
			return nil, fmt.Errorf("the object has more than %d members", maxMembers)
		}
		known, err := fields.read(name, value)
		if err != nil {
			return nil, err
		}
		if !known {
			unknown = append(unknown, name)
		}
	}
	return unknown, nil
}

func skipSpace(data []byte) []byte { return bytes.TrimLeft(data, " \t\r\n") }

// cut splits valid JSON after its first value, and drops the space around that.
func cut(data []byte) (value, rest []byte) {
	data = skipSpace(data)
	end := valueEnd(data)
	return data[:end], skipSpace(data[end:])
}

// valueEnd returns the length of the value that data begins with.
func valueEnd(data []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
			if !quoted && depth == 0 {
				return i + 1
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth == 0 && strings.IndexByte(",:}] \t\r\n", c) >= 0:
			return i // after a number, true, false or null
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(data)
}

// read reports whether f names the member.
func (f Fields) read(name string, value json.RawMessage) (bool, error) {
	into, ok := f[name]
	if !ok {
		for known := range f {
			if strings.EqualFold(name, known) {
				return false, fmt.Errorf("%q is written %q", known, name)
			}
		}
		return false, nil
	}
	switch into := into.(type) {
	case Refused:
		return true, fmt.Errorf("%q is not accepted", name)
	case Fields:
		if _, err := Read(value, into); err != nil {
			return true, fmt.Errorf("in %q %w", name, err)
		}
	default:
		if bytes.Equal(value, []byte("null")) || json.Unmarshal(value, into) != nil {
			return true, fmt.Errorf("%q has a value of the wrong type", name)
		}
	}
	return true, nil
}
