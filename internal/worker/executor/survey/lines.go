package survey

import (
	"bytes"
	"regexp"
	"strings"
)

const (
	maxTodos = 100
	// longLine is where a line is cut before anything is looked for in it.
	longLine = 1000
)

// todo is a remark that something remains to be done.
type todo struct {
	path string
	line int
	word string
	text string
}

var todoWord = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b(?:\([^)]{0,60}\))?:?\s*(.*)`)

// countLines sorts the lines of f into code, comment and blank ones and finds
// what is left to do. A comment after code on the same line counts as code.
func (t *tree) countLines(f *file, content []byte) {
	c := commentScanner{lang: f.lang}
	number := 0
	for line := range bytes.Lines(content) {
		number++
		text := bytes.TrimSpace(line[:min(len(line), longLine)])
		remark := c.next(text)
		switch {
		case len(text) == 0:
			f.blank++
		case remark == 0:
			f.comment++
		default:
			f.code++
		}
		if remark >= 0 && f.lang.kind == program && !f.generated {
			t.findTodo(f.path, number, text[remark:])
		}
	}
}

func (t *tree) findTodo(path string, line int, comment []byte) {
	m := todoWord.FindSubmatch(comment)
	if m == nil {
		return
	}
	t.todoCount[string(m[1])]++
	if len(t.todos) < maxTodos {
		text := bytes.TrimSpace(m[2])
		for _, end := range cClose {
			text = bytes.TrimSuffix(text, []byte(end))
		}
		t.todos = append(t.todos, todo{path, line, string(m[1]), string(bytes.TrimSpace(text))})
	}
}

// commentScanner follows comments from line to line.
type commentScanner struct {
	lang *language
	end  string // what ends the comment that the line begins in
}

// next returns where in the trimmed line a comment begins: 0 if the whole line
// is one, -1 if there is none. Only comments that begin a line can go on in the
// next: elsewhere what looks like one is too often part of a string.
func (c *commentScanner) next(line []byte) int {
	if c.end != "" {
		if bytes.Contains(line, []byte(c.end)) {
			c.end = ""
		}
		return 0
	}
	for i, open := range c.lang.open {
		if rest, ok := bytes.CutPrefix(line, []byte(open)); ok {
			if !bytes.Contains(rest, []byte(c.lang.close[i])) {
				c.end = c.lang.close[i]
			}
			return 0
		}
	}
	for _, mark := range c.lang.line {
		if bytes.HasPrefix(line, []byte(mark)) {
			return 0
		}
	}
	for _, mark := range c.lang.line {
		if at := bytes.Index(line, []byte(" "+mark+" ")); at > 0 && !quoted(line[:at]) {
			return at
		}
	}
	return -1
}

// quoted reports whether a string seems to be open at the end of code.
func quoted(code []byte) bool {
	return strings.Count(string(code), `"`)%2 == 1 || strings.Count(string(code), "`")%2 == 1
}
