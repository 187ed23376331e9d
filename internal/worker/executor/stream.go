package executor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/coderclaw/runtime/api"
)

const (
	// maxLine is the most of a line that is passed on or looked at, in bytes.
	maxLine = 16 << 10
	// marker begins a line by which a program reports.
	marker = "::coderclaw "
)

// stream takes what a program writes to one of its streams: it passes on the
// lines, acts on those that report, and keeps the end of the rest.
type stream struct {
	name string
	sink Sink
	said *said // nil: lines do not report
	tail tail

	line []byte // the present line, as far as it was read
	long bool   // it is longer than maxLine; line is its beginning
}

func (s *stream) write(p []byte) {
	for len(p) > 0 {
		part, rest, whole := bytes.Cut(p, []byte{'\n'})
		p = rest
		s.grow(part)
		if whole {
			s.finish("\n")
		}
	}
}

// end passes on a last line that has no end of its own.
func (s *stream) end() {
	if len(s.line) > 0 {
		s.finish("")
	}
}

func (s *stream) grow(part []byte) {
	if s.long {
		s.tail.write(part)
		return
	}
	s.line = append(s.line, part...)
	if len(s.line) > maxLine {
		s.long = true
		s.tail.write(s.line)
		s.line = s.line[:maxLine+1] // one more than fits tells the sink that it was longer
	}
}

func (s *stream) finish(end string) {
	line := bytes.TrimSuffix(s.line, []byte{'\r'})
	if s.long || s.said == nil || !s.report(line) {
		if !s.long {
			s.tail.write(s.line)
		}
		s.tail.write([]byte(end))
		s.sink.Log(s.name, string(line))
	}
	s.line, s.long = s.line[:0], false
}

// report acts on a line by which the program reports, and tells whether it is
// one.
func (s *stream) report(line []byte) bool {
	object, ok := bytes.CutPrefix(line, []byte(marker))
	if !ok {
		return false
	}
	var r struct {
		Progress *float64 `json:"progress"`
		Message  string   `json:"message"`
		Output   *string  `json:"output"`
		Usage    *spent   `json:"usage"`

		Ask    *api.NewQuestion `json:"ask"`
		Resume string           `json:"resume"`
	}
	if json.Unmarshal(object, &r) != nil {
		return false
	}
	if r.Ask != nil && s.said.mayAsk {
		s.said.ask(&inquiry{question: *r.Ask, state: r.Resume})
	} else if r.Progress == nil && r.Message == "" && r.Output == nil && r.Usage == nil {
		return false
	}
	if r.Usage != nil {
		used, ok := r.Usage.usage()
		if !ok {
			return false
		}
		s.sink.Used("", used)
	}
	switch {
	case r.Progress != nil:
		s.sink.Progress(int(min(max(*r.Progress, 0), 100)), r.Message)
	case r.Message != "":
		s.sink.Note(r.Message, nil)
	}
	if r.Output != nil {
		s.said.set(*r.Output)
		s.sink.Output(*r.Output)
	}
	return true
}

// said is the last output that a program reported, on whichever stream, and the
// last that it asked.
type said struct {
	mayAsk bool

	mu   sync.Mutex
	text *string
	asks *inquiry
}

func (s *said) ask(i *inquiry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks = i
}

func (s *said) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = &text
}

// last returns the last output, if there is one, and what is asked, or nil.
func (s *said) last() (output string, ok bool, asks *inquiry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == nil {
		return "", false, s.asks
	}
	return *s.text, true, s.asks
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int // in bytes
	buf   []byte
	total int64
}

func (t *tail) write(p []byte) {
	t.total += int64(len(p))
	p = p[max(len(p)-t.limit, 0):]
	if len(t.buf)+len(p) > 2*t.limit { // seldom, so that it costs little
		t.buf = t.buf[:copy(t.buf, t.buf[len(t.buf)-t.limit:])]
	}
	t.buf = append(t.buf, p...)
}

// text returns the end in at most limit bytes. If something is missing before
// it, a first line says so.
func (t *tail) text() string {
	if t.total <= int64(t.limit) {
		return string(t.buf)
	}
	mark := fmt.Sprintf("[the end of %d bytes] …", t.total)
	return mark + t.last(t.limit-len(mark))
}

// last returns the end in at most n bytes, from the beginning of a character if
// something is missing before it.
func (t *tail) last(n int) string {
	end := t.buf[max(len(t.buf)-n, 0):]
	if t.total > int64(len(end)) {
		for len(end) > 0 && !utf8.RuneStart(end[0]) {
			end = end[1:]
		}
	}
	return string(end)
}
