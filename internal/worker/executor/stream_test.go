package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
)

// lines is a sink that keeps what it is told.
type lines []string

func (l *lines) Progress(percent int, message string) { l.add("%d%% %s", percent, message) }
func (l *lines) Output(text string)                   { l.add("output %s", text) }
func (l *lines) Log(_, line string)                   { l.add("line %s", line) }
func (l *lines) Note(message string, _ any)           { l.add("note %s", message) }
func (l *lines) add(format string, args ...any)       { *l = append(*l, fmt.Sprintf(format, args...)) }

// Whoever is told lines asks nobody.
func (*lines) Ask(context.Context, api.NewQuestion) (api.Question, error) {
	return api.Question{}, errors.ErrUnsupported
}

func (*lines) Resumable(func() string) {}

func (*lines) Artifact(context.Context, string, string, io.Reader) error {
	return errors.ErrUnsupported
}

func (l *lines) Used(_ string, total api.Usage) { l.add("used %+v", total) }

func (*lines) Hold(stop, goOn func()) func() { return func() {} }
func (*lines) Held() bool                    { return false }

func (*lines) Authorize(context.Context, string, api.ToolCall) (bool, string, error) {
	return false, "", errors.ErrUnsupported
}

func FuzzWhatAProgramSaysDoesNotDependOnHowItArrives(f *testing.F) {
	f.Add([]byte("one\r\ntwo\n\nthree"), 1)
	f.Add([]byte("::coderclaw {\"progress\":1}\n::coderclaw {\"output\":\"x\"}\nrest\n"), 3)
	f.Add([]byte(strings.Repeat("語", maxLine)+"\nshort\n"), 1000)
	f.Add([]byte(strings.Repeat("x", maxLine)+"\n"+strings.Repeat("y", maxLine+1)), maxLine)
	f.Fuzz(func(t *testing.T, content []byte, step int) {
		take := func(pieces ...[]byte) ([]string, string) {
			var got lines
			var reported said
			s := &stream{sink: &got, said: &reported, tail: tail{limit: 100_000}}
			for _, p := range pieces {
				s.write(p)
			}
			s.end()
			return got, s.tail.text()
		}
		all, allTail := take(content)
		parts, partsTail := take(slices.Collect(slices.Chunk(content, max(step, 1)))...)
		if !slices.Equal(all, parts) || allTail != partsTail {
			t.Errorf("at once: %q, in pieces: %q", all, parts)
		}
		for _, line := range all {
			if len(line) > len("line ")+maxLine+1 && strings.HasPrefix(line, "line ") {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
		if !bytes.Contains(content, []byte(marker)) && len(content) <= 100_000 && allTail != string(content) {
			t.Errorf("the output is %q, want all of it", allTail)
		}
	})
}
