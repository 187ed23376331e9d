package clawctl

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// screen is where a command writes: a terminal, a file or a pipe.
type screen struct {
	w      io.Writer
	tty    bool
	cursor bool // the terminal can be written over
	colour bool
	fd     int
}

func newScreen(w io.Writer, getenv func(string) string) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.tty, s.fd = true, int(f.Fd())
		s.cursor = getenv("TERM") != "dumb" && understandsSequences(f)
		s.colour = s.cursor && getenv("NO_COLOR") == ""
	}
	return s
}

// width returns the terminal's width in columns.
func (s *screen) width() int {
	if w, _, err := term.GetSize(s.fd); err == nil && w > 0 {
		return w
	}
	return 80
}

// A failed write has nobody to be told to.
func (s *screen) printf(format string, args ...any) { fmt.Fprintf(s.w, format, args...) }

// text writes text from elsewhere: as it is to a file or a pipe, cleaned and
// with a line end to a terminal.
func (s *screen) text(text string) {
	if !s.tty || text == "" {
		io.WriteString(s.w, text)
		return
	}
	text = cleanText(text)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	io.WriteString(s.w, text)
}

// style is how text stands out on a terminal: the parameter of a Select Graphic
// Rendition sequence, "" for not at all.
type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

func (s *screen) style(st style, text string) string {
	if !s.colour || st == "" || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// table is rows of cells under headings.
type table struct {
	heads  []string
	rows   [][]string
	styles map[int]func(cell string) style // by column
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// table prints t. On a terminal the last column is cut where the line ends.
func (s *screen) table(t *table) {
	widths := make([]int, len(t.heads))
	for i, head := range t.heads {
		widths[i] = columns(head)
	}
	for _, row := range t.rows {
		for i := range row {
			row[i] = cleanLine(row[i])
			widths[i] = max(widths[i], columns(row[i]))
		}
	}
	last := len(widths) - 1
	if s.tty {
		left := s.width()
		for _, w := range widths[:last] {
			left -= w + 2
		}
		widths[last] = min(widths[last], max(left, 10))
	}
	line := func(cells []string, styled func(column int, text string) string) {
		var b strings.Builder
		for i, cell := range cells {
			cell = fit(cell, widths[i])
			b.WriteString(styled(i, cell))
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-columns(cell)+2))
			}
		}
		s.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
	line(t.heads, func(_ int, text string) string { return s.style(bold, text) })
	for _, row := range t.rows {
		line(row, func(i int, text string) string {
			if choose := t.styles[i]; choose != nil {
				return s.style(choose(text), text)
			}
			return text
		})
	}
}
