package clawctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// print writes v as the --output flag says: with the function for a table, or
// as a document.
func (c *cli) print(v any, asTable func()) error {
	if c.format.value == "table" {
		asTable()
		return nil
	}
	text, err := c.document(v, false)
	if err != nil {
		return err
	}
	c.out.printf("%s", text)
	return nil
}

// document writes v in YAML, or in JSON on one line or several. Both use the
// names of the wire.
func (c *cli) document(v any, oneLine bool) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if !oneLine {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("write %s: %w", c.format.value, err)
	}
	if c.format.value == "json" {
		return escapeUnsafe(b.String()), nil
	}
	text, err := toYAML(b.Bytes())
	if err != nil {
		return "", fmt.Errorf("write yaml: %w", err)
	}
	return "---\n" + text, nil // there may be several
}

// escapeUnsafe writes the characters that can act on a terminal as JSON
// escapes, which mean the same. JSON holds them in strings only.
func escapeUnsafe(text string) string {
	if !strings.ContainsFunc(text, isUnsafe) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !isUnsafe(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// toYAML turns one JSON document into block style YAML, in the same order.
func toYAML(document []byte) (string, error) {
	y := yamlWriter{in: json.NewDecoder(bytes.NewReader(document))}
	y.in.UseNumber()
	err := y.value(0, 0)
	return y.out.String() + "\n", err
}

type yamlWriter struct {
	in  *json.Decoder
	out strings.Builder
}

// value writes the next value. It stands after a ':', a '-' or, as the whole
// document, after nothing (0); the lines that follow are indented by depth.
func (y *yamlWriter) value(depth int, after byte) error {
	token, err := y.in.Token()
	if err != nil {
		return err
	}
	open, isBlock := token.(json.Delim)
	if isBlock && y.in.More() {
		return y.block(open, depth, after)
	}
	if after != 0 {
		y.out.WriteByte(' ')
	}
	switch token := token.(type) {
	case json.Delim:
		closing, err := y.in.Token()
		fmt.Fprintf(&y.out, "%v%v", open, closing)
		return err
	case string:
		y.out.WriteString(yamlString(token, depth))
	case nil:
		y.out.WriteString("null")
	default:
		fmt.Fprint(&y.out, token)
	}
	return nil
}

// block writes an object or a list that is not empty. Its first member stands
// on the line of the dash that it comes after.
func (y *yamlWriter) block(open json.Delim, depth int, after byte) error {
	newLine := "\n" + strings.Repeat("  ", depth)
	first := map[byte]string{0: "", '-': " ", ':': newLine}[after]
	for ; y.in.More(); first = newLine {
		y.out.WriteString(first)
		mark := byte('-')
		if open == '{' {
			key, err := y.in.Token()
			if err != nil {
				return err
			}
			name := key.(string) // the decoder accepts nothing else
			if !isPlain(name) {
				name = quoteYAML(name)
			}
			y.out.WriteString(name)
			mark = ':'
		}
		y.out.WriteByte(mark)
		if err := y.value(depth+1, mark); err != nil {
			return err
		}
	}
	_, err := y.in.Token()
	return err
}

func yamlString(s string, depth int) string {
	switch {
	case isPlain(s):
		return s
	case isLiteral(s):
		return literalYAML(s, strings.Repeat("  ", depth))
	}
	return quoteYAML(s)
}

var (
	plain    = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./@+-]*( [A-Za-z0-9_./@+-]+)*$`)
	blank    = regexp.MustCompile(`(?m)^[ \t]+$`)
	reserved = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null)$`)
)

// isPlain reports whether no reader of YAML takes s for anything but itself.
func isPlain(s string) bool { return plain.MatchString(s) && !reserved.MatchString(s) }

// isLiteral reports whether s can stand as a block of lines. Readers differ on
// lines of nothing but spaces.
func isLiteral(s string) bool {
	return strings.Contains(s, "\n") && strings.TrimLeft(s, " \t\n") == s && !strings.ContainsFunc(s, mustEscape) && !blank.MatchString(s)
}

func mustEscape(r rune) bool {
	return r != '\n' && r != '\t' && (isUnsafe(r) || !unicode.IsGraphic(r))
}

func literalYAML(s, indent string) string {
	var b strings.Builder
	body := strings.TrimSuffix(s, "\n")
	switch {
	case body == s:
		b.WriteString("|-")
	case strings.HasSuffix(body, "\n"):
		b.WriteString("|+")
	default:
		b.WriteString("|")
	}
	for line := range strings.SplitSeq(body, "\n") {
		b.WriteByte('\n')
		if line != "" {
			b.WriteString(indent + line)
		}
	}
	return b.String()
}

func quoteYAML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case mustEscape(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
