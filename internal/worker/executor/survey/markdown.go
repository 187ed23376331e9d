package survey

import (
	"fmt"
	"strings"
	"unicode"
)

// document is a Markdown text in the making. Everything that comes from the
// surveyed tree goes through code or plain, so that no name or remark in it can
// look like a part of the report.
type document struct{ strings.Builder }

func (d *document) heading(text string) {
	fmt.Fprintf(d, "\n## %s\n\n", text)
}

func (d *document) paragraph(format string, args ...any) {
	fmt.Fprintf(d, format+"\n\n", args...)
}

func (d *document) item(format string, args ...any) {
	fmt.Fprintf(d, "- "+format+"\n", args...)
}

// table writes rows of cells under a head. A head that ends with ":" is that of
// a column of numbers.
func (d *document) table(head []string, rows [][]string) {
	names, rules := make([]string, len(head)), make([]string, len(head))
	for i, h := range head {
		var number bool
		names[i], number = strings.CutSuffix(h, ":")
		rules[i] = map[bool]string{true: "--:", false: "---"}[number]
	}
	for _, row := range append([][]string{names, rules}, rows...) {
		d.WriteString("| " + strings.Join(row, " | ") + " |\n")
	}
	d.WriteString("\n")
}

// code returns s as a code span that also fits into a table.
func code(s string) string {
	s = visible(s, 200)
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if fence != "`" {
		s = " " + s + " " // lest its ends touch the fence
	}
	return fence + strings.ReplaceAll(s, "|", `\|`) + fence
}

// plain returns s as text without any markup, at most limit characters long.
func plain(s string, limit int) string {
	var b strings.Builder
	for _, r := range visible(s, limit) {
		if strings.ContainsRune("\\`*_{}[]<>()#+!|~$&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// visible replaces characters that have no shape or change the order of others,
// and cuts s to limit characters.
func visible(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > limit {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = '\uFFFD'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// quote writes s as a quotation of at most limit characters.
func (d *document) quote(s string, limit int) {
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + " …"
	}
	for line := range strings.Lines(s) {
		d.WriteString("> " + plain(strings.TrimRight(line, "\r\n"), limit) + "\n")
	}
	d.WriteString("\n")
}

// count writes n with its noun, in thousands.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

func number(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func percent(part, whole int) string {
	if whole == 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

func size(bytes int64) string {
	switch {
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%d B", bytes)
}
