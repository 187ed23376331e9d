package clawctl

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// sequences are what terminals take as commands: ESC [ … (colours, cursor),
// ESC ] … and its kin up to BEL or ESC \ (titles, links, the clipboard), and
// the short ones.
var sequences = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[\\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-OQ-WYZ\\\\`-~]")

// cleanText makes text from elsewhere fit for a terminal: it keeps line ends
// and tabs, drops terminal sequences and shows U+FFFD for whatever else could
// act on the terminal or change the order in which text appears.
func cleanText(s string) string {
	if !strings.ContainsFunc(s, isUnsafe) && utf8.ValidString(s) {
		return s
	}
	s = sequences.ReplaceAllLiteralString(strings.ReplaceAll(s, "\r\n", "\n"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return '\n'
		case isUnsafe(r):
			return utf8.RuneError
		}
		return r
	}, s)
}

// cleanLine is cleanText for one line: what separates words is one space.
func cleanLine(s string) string { return strings.Join(strings.Fields(cleanText(s)), " ") }

// isUnsafe reports whether r can do something to a terminal or to a reader:
// control characters but LF and TAB, marks that reorder text, separators of
// lines, and characters that nobody sees.
func isUnsafe(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case unicode.IsControl(r), r == '\u2028', r == '\u2029':
		return true
	case r == '\u200c' || r == '\u200d': // join letters and emoji
		return false
	}
	return unicode.Is(unicode.Cf, r)
}

// columns is how wide a terminal shows s, which holds no control characters.
func columns(s string) (n int) {
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// fit shortens s to at most limit columns, with an ellipsis where something is
// missing.
func fit(s string, limit int) string {
	if columns(s) <= limit {
		return s
	}
	if limit < 1 {
		return ""
	}
	used := 0
	for i, r := range s {
		if used += runeColumns(r); used > limit-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// fitEnd is fit for text whose end matters.
func fitEnd(s string, limit int) string {
	excess := columns(s) - limit
	if excess <= 0 || limit < 1 {
		return fit(s, limit)
	}
	for i, r := range s {
		if excess < 0 { // one column more than needed, for the ellipsis
			return "…" + s[i:]
		}
		excess -= runeColumns(r)
	}
	return "…"
}
