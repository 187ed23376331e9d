package strictyaml

import (
	"bytes"
	"unicode/utf8"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// The parser's time grows with the square of the nesting: 20 KB of brackets
// take it seconds. What people write stays far below this.
const maxDepth = 32

var byteOrderMark = []byte("\ufeff")

// scan splits the text into tokens and refuses what the parser must not see or
// would pass over. It returns nil if there is nothing to go on with.
func (d *Document) scan(data []byte, maxBytes int) token.Tokens {
	if len(data) > maxBytes {
		d.refuseAt(place{1, 1}, "the file is larger than %d bytes", maxBytes)
		return nil
	}
	data = bytes.TrimPrefix(data, byteOrderMark)
	if at, ok := firstUnreadable(data); ok {
		d.refuseAt(at, "a character is not UTF-8 text")
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if d.tooDeep(tokens) || d.manyDocuments(tokens) {
		return nil
	}
	return tokens
}

// firstUnreadable finds the first byte that YAML does not allow in a file:
// broken UTF-8 or a control character.
func firstUnreadable(data []byte) (place, bool) {
	at := place{1, 1}
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return at, true
		case r == '\n':
			at = place{at.line + 1, 1}
		default:
			at.column++
		}
		data = data[size:]
	}
	return place{}, false
}

// tooDeep measures the nesting from the tokens alone: open brackets, and
// outside of them the columns at which the enclosing entries begin.
func (d *Document) tooDeep(tokens token.Tokens) bool {
	var brackets int
	var columns []int
	line, opened := 0, false
	for _, t := range tokens {
		switch t.Type {
		case token.CommentType:
			continue
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		}
		if at := t.Position; brackets == 0 && (at.Line > line || opened) {
			for len(columns) > 0 && columns[len(columns)-1] >= at.Column {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, at.Column)
		}
		if brackets+len(columns) > maxDepth {
			d.refuseAt(placeOf(t), "nested deeper than %d levels", maxDepth)
			return true
		}
		line = t.Position.Line
		opened = t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType
	}
	return false
}

// manyDocuments counts documents by their marks, for the parser drops an empty
// one.
func (d *Document) manyDocuments(tokens token.Tokens) bool {
	var begun, ended bool
	for _, t := range tokens {
		switch {
		case t.Type == token.CommentType:
		case t.Type == token.DirectiveType:
			d.refuseAt(placeOf(t), "directives are not accepted")
			return true
		case ended, begun && t.Type == token.DocumentHeaderType:
			d.refuseAt(placeOf(t), "a second document begins here; only one is accepted")
			return true
		case t.Type == token.DocumentEndType:
			ended = true
		default:
			begun = true
		}
	}
	return false
}

func placeOf(t *token.Token) place {
	return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}
