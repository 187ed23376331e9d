package httpapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// The bounds of a body's structure: how deep arrays and objects may nest, and
// how many values there may be.
const (
	maxDepth  = 64
	maxValues = 100_000
)

// decodeJSON is json.Unmarshal for bodies from strangers: it refuses what
// encoding/json would silently mend (broken UTF-8) and what PostgreSQL cannot
// keep (U+0000, very deep nesting).
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

func scanJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("must be valid UTF-8")
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return errors.New("must not contain U+0000")
	}
	depth, values, inString := 0, 1, false
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case inString && c == '\\':
			if bytes.HasPrefix(data[i:], []byte(`\u0000`)) {
				return errors.New("must not contain U+0000")
			}
			i++ // whatever is escaped does not end the string
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("must not nest deeper than %d", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == ',':
			if values++; values > maxValues {
				return fmt.Errorf("must not hold more than %d values", maxValues)
			}
		}
	}
	return nil
}
