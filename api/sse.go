package api

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"
)

// maxEvent bounds one line and the data of one event. A snapshot holds a whole
// task, whose 1.4 MiB of text JSON may write with six bytes for each.
const maxEvent = 16 << 20

var errEventTooLong = errors.New("stream: an event is longer than 16 MiB")

// frame is one block of a stream: what stands between two empty lines.
type frame struct {
	event string // "" where the block names none
	id    string // the last id the stream named, in this block or before
	named bool   // the id is this block's
	data  []byte // nil: the block has no data and is no event
}

// sseReader reads a stream as the WHATWG specification says
// (html.spec.whatwg.org, "Interpreting an event stream"). Lines end with LF, CR
// or CRLF; a block is there as soon as its empty line is, and lost when the
// stream ends before.
type sseReader struct {
	r     *bufio.Reader
	retry time.Duration // what the server last asked for; negative until it does

	buf    []byte // the line being read
	afterR bool   // a CR ended the last line: a LF that follows belongs to it
	inside bool   // past the first line, which may start with a byte order mark
	id     string
}

func newSSEReader(r io.Reader) *sseReader {
	return &sseReader{r: bufio.NewReaderSize(r, 8<<10), retry: -1}
}

// next returns the next block that names an id or holds data. It returns io.EOF
// or the reader's error when the stream ends, errEventTooLong for a line or an
// event past maxEvent.
func (s *sseReader) next() (frame, error) {
	var f frame
	for {
		line, err := s.line()
		if err != nil {
			return frame{}, err
		}
		if len(line) == 0 {
			if f.data == nil && !f.named {
				f.event = "" // a type without data is forgotten
				continue
			}
			f.id = s.id
			f.data = bytes.TrimSuffix(f.data, []byte("\n"))
			return f, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) { // "" is a comment
		case "event":
			f.event = string(value)
		case "data":
			if len(f.data)+len(value) >= maxEvent {
				return frame{}, errEventTooLong
			}
			f.data = append(append(f.data, value...), '\n')
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				s.id, f.named = string(value), true
			}
		case "retry":
			s.setRetry(value)
		}
	}
}

func (s *sseReader) setRetry(value []byte) {
	if bytes.ContainsFunc(value, func(r rune) bool { return r < '0' || r > '9' }) {
		return
	}
	// What does not fit, or is empty, is ignored too.
	if ms, err := strconv.ParseInt(string(value), 10, 32); err == nil {
		s.retry = time.Duration(ms) * time.Millisecond
	}
}

// line returns the next line without its end; it is valid until the next call.
func (s *sseReader) line() ([]byte, error) {
	s.buf = s.buf[:0]
	for {
		if _, err := s.r.Peek(1); err != nil {
			return nil, err
		}
		chunk, _ := s.r.Peek(s.r.Buffered())
		if s.afterR {
			s.afterR = false
			if chunk[0] == '\n' {
				s.r.Discard(1)
				continue
			}
		}
		end := bytes.IndexAny(chunk, "\r\n")
		if end < 0 {
			s.buf = append(s.buf, chunk...)
			s.r.Discard(len(chunk))
		} else {
			s.buf = append(s.buf, chunk[:end]...)
			// Waiting for the LF of a CRLF would hold back an event that is complete.
			s.afterR = chunk[end] == '\r'
			s.r.Discard(end + 1)
		}
		if len(s.buf) > maxEvent {
			return nil, errEventTooLong
		}
		if end < 0 {
			continue
		}
		line := s.buf
		if !s.inside {
			s.inside = true
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		return line, nil
	}
}
