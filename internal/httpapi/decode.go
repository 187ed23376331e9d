package httpapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"unicode/utf8"
)

// The bounds of a body's structure: how deep arrays and objects may nest, and
// how many values there may be.
const (
	maxDepth  = 64
	maxValues = 100_000
)

// decodeJSON is json.Unmarshal for bodies from strangers: it refuses what
// encoding/json would silently mend (broken UTF-8) or choose from (members of one
// name) and what PostgreSQL cannot keep (U+0000, very deep nesting).
func decodeJSON(data []byte, v any) error {
	if err := scanJSON(data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%s must not be a %s", cmp.Or(mismatch.Field, "a value"), mismatch.Value)
		}
		return err
	}
	return nil
}

func encodeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// scanJSON finds what json.Unmarshal would let pass. It does not check the
// syntax, which json.Unmarshal does.
func scanJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("must be valid UTF-8")
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return errors.New("must not contain U+0000")
	}
	// What is open, and the names so far of the objects among that: RFC 8259,
	// section 4, leaves open what a name means that is there twice, and who checks
	// a body may take another one than who acts on it. Most bodies need no more
	// than is on the stack.
	open, names := make([]level, 0, 8), make([][]byte, 0, 32)
	values := 1
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			text, escaped, err := stringAt(data[i+1:])
			if err != nil {
				return err
			}
			i += len(text) + 1
			if len(open) == 0 || !open[len(open)-1].name {
				continue
			}
			if escaped {
				text = unescaped(text)
			}
			if !open[len(open)-1].add(names, text) {
				return fmt.Errorf("must not have the member %q twice", bytes.ToValidUTF8(text[:min(len(text), 100)], nil))
			}
			names = append(names, text)
		case '{', '[':
			if len(open) == maxDepth {
				return fmt.Errorf("must not nest deeper than %d", maxDepth)
			}
			object := data[i] == '{'
			open = append(open, level{object: object, name: object, from: len(names)})
		case '}', ']':
			if len(open) > 0 {
				names, open = names[:open[len(open)-1].from], open[:len(open)-1]
			}
		case ',':
			if values++; values > maxValues {
				return fmt.Errorf("must not hold more than %d values", maxValues)
			}
			if len(open) > 0 {
				open[len(open)-1].name = open[len(open)-1].object
			}
		}
	}
	return nil
}

// stringAt returns the string at the beginning of data, without its quotes, and
// whether it has escapes.
func stringAt(data []byte) (text []byte, escaped bool, err error) {
	text, _, found := bytes.Cut(data, []byte{'"'})
	if !found {
		return data, false, nil // cut off
	}
	first := bytes.IndexByte(text, '\\')
	if first < 0 {
		return text, false, nil
	}
	for i := first; i < len(data); i++ {
		switch data[i] {
		case '"':
			return data[:i], true, nil
		case '\\':
			if bytes.HasPrefix(data[i:], []byte(`\u0000`)) {
				return nil, false, errors.New("must not contain U+0000")
			}
			i++ // whatever is escaped does not end the string
		}
	}
	return data, true, nil
}

// manyNames is how many names of an object are compared one by one.
const manyNames = 16

// level is an array or an object that is open.
type level struct {
	object bool
	name   bool                // the next string is the name of a member
	from   int                 // its names begin there
	hashes map[uint64]struct{} // of its names, if they are many
}

// add notes a name of the object whose names so far end names. It returns false
// if it is among them.
func (l *level) add(names [][]byte, name []byte) bool {
	l.name = false
	before := names[l.from:]
	if len(before) > manyNames {
		if l.hashes == nil {
			l.hashes = make(map[uint64]struct{}, 2*len(before))
			for _, b := range before {
				l.hashes[maphash.Bytes(seed, b)] = struct{}{}
			}
		}
		hash := maphash.Bytes(seed, name)
		if _, known := l.hashes[hash]; !known {
			l.hashes[hash] = struct{}{}
			return true
		}
	}
	for _, b := range before {
		if bytes.Equal(b, name) {
			return false
		}
	}
	return true
}

// seed is nobody's to know, so that nobody can make names whose hashes are the
// same.
var seed = maphash.MakeSeed()

// unescaped is the text of a string that has escapes. One that is no string stays
// as it is, for json.Unmarshal to refuse.
func unescaped(text []byte) []byte {
	var s string
	if json.Unmarshal(slices.Concat([]byte{'"'}, text, []byte{'"'}), &s) != nil {
		return text
	}
	return []byte(s)
}
