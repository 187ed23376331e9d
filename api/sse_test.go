package api

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// block is a frame with its data as text; "<none>" where there is none.
type block struct{ event, id, data string }

func readBlocks(r io.Reader) (blocks []block, s *sseReader, err error) {
	s = newSSEReader(r)
	for {
		f, err := s.next()
		if err != nil {
			return blocks, s, err
		}
		b := block{f.event, f.id, string(f.data)}
		if f.data == nil {
			b.data = "<none>"
		}
		blocks = append(blocks, b)
	}
}

func TestSSEReaderFollowsTheSpecification(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		stream string
		want   []block
	}{
		"lines end with LF":                       {"event: a\ndata: 1\n\n", []block{{"a", "", "1"}}},
		"lines end with CRLF":                     {"event: a\r\ndata: 1\r\n\r\n", []block{{"a", "", "1"}}},
		"lines end with CR":                       {"event: a\rdata: 1\r\r", []block{{"a", "", "1"}}},
		"line ends are mixed":                     {"event: a\rdata: 1\ndata: 2\r\n\rdata: 3\n\n", []block{{"a", "", "1\n2"}, {"", "", "3"}}},
		"one byte order mark is dropped":          {"\uFEFFdata: 1\n\n", []block{{"", "", "1"}}},
		"a second byte order mark is text":        {"\uFEFF\uFEFFdata: 1\n\ndata: 2\n\n", []block{{"", "", "2"}}},
		"comments are ignored":                    {": beat\n\n:\ndata: 1\n: more\n\n", []block{{"", "", "1"}}},
		"data lines are joined":                   {"data: 1\ndata\ndata:2\n\n", []block{{"", "", "1\n\n2"}}},
		"data may be empty":                       {"data\n\ndata:\n\n", []block{{"", "", ""}, {"", "", ""}}},
		"only one space is dropped":               {"data:  1 \n\n", []block{{"", "", " 1 "}}},
		"a value may hold colons":                 {"data: {\"a\":1}\n\n", []block{{"", "", `{"a":1}`}}},
		"unknown fields are ignored":              {"date: 1\n data: 2\nDATA: 3\ndata: 4\n\n", []block{{"", "", "4"}}},
		"an id stays":                             {"id: 7\ndata: 1\n\ndata: 2\n\n", []block{{"", "7", "1"}, {"", "7", "2"}}},
		"an empty id clears it":                   {"id: 7\ndata: 1\n\nid\ndata: 2\n\n", []block{{"", "7", "1"}, {"", "", "2"}}},
		"an id with NUL is ignored":               {"id: 7\ndata: 1\n\nid: 8\x00\ndata: 2\n\n", []block{{"", "7", "1"}, {"", "7", "2"}}},
		"an id without data is a place":           {"id: 7\n\n", []block{{"", "7", "<none>"}}},
		"a type without data is forgotten":        {"event: a\n\ndata: 1\n\n", []block{{"", "", "1"}}},
		"a block that the end cuts off is lost":   {"data: 1\n\nid: 8\ndata: 2\n", []block{{"", "", "1"}}},
		"a line that the end cuts off is lost":    {"data: 1\n\ndata: 2", []block{{"", "", "1"}}},
		"a block without its last LF is complete": {"data: 1\r\n\r", []block{{"", "", "1"}}},
	} {
		for how, r := range map[string]io.Reader{
			"at once":      strings.NewReader(tc.stream),
			"byte by byte": iotest.OneByteReader(strings.NewReader(tc.stream)),
		} {
			got, _, err := readBlocks(r)
			if !slices.Equal(got, tc.want) || err != io.EOF {
				t.Errorf("%s, %s: got %q, %v, want %q", name, how, got, err, tc.want)
			}
		}
	}
}

func TestSSEReaderTakesOnlyDigitsForRetry(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"2000": 2 * time.Second, "0": 0, "": -1, "-1": -1, "1s": -1, "1.5": -1, "٣": -1, "99999999999999999999": -1,
	} {
		_, s, _ := readBlocks(strings.NewReader("retry: " + value + "\n\n"))
		if s.retry != want {
			t.Errorf("retry: %q gave %v, want %v", value, s.retry, want)
		}
	}
}

// A CR ends a line at once: were the reader to wait for a LF, the event would
// come when the next one does.
func TestSSEReaderDoesNotWaitForTheByteAfterAnEvent(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"data: 1\n\n", "data: 1\r\n\r\n", "data: 1\r\r"} {
		pr, pw := io.Pipe()
		go io.WriteString(pw, stream)
		f, err := newSSEReader(pr).next()
		if string(f.data) != "1" || err != nil {
			t.Errorf("%q: got %q, %v", stream, f.data, err)
		}
		pr.Close()
	}
}

func TestSSEReaderBoundsLinesAndEvents(t *testing.T) {
	t.Parallel()
	endless := func(line string) io.Reader { return &repeat{text: []byte(line)} }
	for name, stream := range map[string]io.Reader{
		"a line without end":            endless("x"),
		"an event of lines without end": endless("data: 0123456789\n"),
		"a comment without end":         io.MultiReader(strings.NewReader(":"), endless("x")),
		"an event of empty data lines":  endless("data\n"),
	} {
		if _, _, err := readBlocks(stream); !errors.Is(err, errEventTooLong) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

type repeat struct{ text []byte }

func (r *repeat) Read(p []byte) (n int, err error) {
	for n < len(p) {
		n += copy(p[n:], r.text)
	}
	return n, nil
}

// FuzzSSE compares the reader with a slow one that sees the whole stream, and
// with itself when the bytes come one by one.
func FuzzSSE(f *testing.F) {
	for _, seed := range []string{
		"retry: 2000\n\nevent: status\nid: 1\ndata: {\"seq\":1}\n\n",
		"\uFEFF: c\r\ndata: 1\rdata\n\r\nid\n\n", "id: \x00\n\n", "data\n\nevent\n\n", "\r\r\n\n", "data:\xff\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		want := slowBlocks(string(stream))
		got, _, err := readBlocks(bytes.NewReader(stream))
		if !slices.Equal(got, want) || err != io.EOF {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		got, _, err = readBlocks(iotest.OneByteReader(bytes.NewReader(stream)))
		if !slices.Equal(got, want) || err != io.EOF {
			t.Fatalf("byte by byte: got %q, %v, want %q", got, err, want)
		}
	})
}

func slowBlocks(stream string) (blocks []block) {
	stream = strings.TrimPrefix(stream, "\uFEFF")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(stream, "\n")
	var event, id, data string
	var hasData, hasID bool
	for _, line := range lines[:len(lines)-1] { // the last one has no end
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if hasData {
				blocks = append(blocks, block{event, id, strings.TrimSuffix(data, "\n")})
			} else if hasID {
				blocks = append(blocks, block{event, id, "<none>"})
			}
			event, data, hasData, hasID = "", "", false, false
		case name == "event":
			event = value
		case name == "data":
			data, hasData = data+value+"\n", true
		case name == "id" && !strings.Contains(value, "\x00"):
			id, hasID = value, true
		}
	}
	return blocks
}
