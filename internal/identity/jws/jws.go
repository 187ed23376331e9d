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
	"io"
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
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("the text is not a JSON object")
	}
	var names []string
	for d.More() {
		name, value, err := member(d)
		if err != nil {
			return nil, err
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
	if _, err := d.Token(); err != nil {
		return nil, errors.New("the object does not end")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	return unknown, nil
}

func member(d *json.Decoder) (name string, value json.RawMessage, err error) {
	key, err := d.Token()
	if err != nil {
		return "", nil, errors.New("the text is not JSON")
	}
	if err := d.Decode(&value); err != nil {
		return "", nil, errors.New("the text is not JSON")
	}
	return key.(string), value, nil
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
