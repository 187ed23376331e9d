package worker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// speak runs an agent that speaks and returns what the server has in the end.
func speak(t *testing.T, slow time.Duration, say func(executor.Sink)) row {
	t.Helper()
	s := newServer(task("a"))
	s.slow = slow
	stop := start(t, s, agents{"a": func(_ context.Context, _ executor.Job, out executor.Sink) (string, error) {
		say(out)
		return "", nil
	}})
	for s.row("task-of-a").Status != api.TaskCompleted {
		time.Sleep(time.Second)
	}
	stop()
	return s.row("task-of-a")
}

func TestFirstWordsAfterASilenceAreReportedAtOnceAndOthersTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var first, second time.Time
		got := speak(t, 0, func(out executor.Sink) {
			time.Sleep(time.Minute)
			first = time.Now()
			out.Log("", "one")
			synctest.Wait()
			for range 50 {
				out.Log("", "more")
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Minute)
			second = time.Now()
			out.Log("", "two")
			synctest.Wait()
		})
		var at []time.Time
		var sizes []int
		for _, r := range got.reports {
			if len(r.Events) > 0 {
				at, sizes = append(at, r.at), append(sizes, len(r.Events))
			}
		}
		if len(at) != 3 || sizes[0] != 1 || sizes[1] != 50 || sizes[2] != 1 {
			t.Fatalf("reports of %v events, want 1, 50, 1", sizes)
		}
		if !at[0].Equal(first) || at[1].Sub(first) != 100*time.Millisecond || !at[2].Equal(second) {
			t.Errorf("reported after %v, %v and %v", at[0].Sub(first), at[1].Sub(first), at[2].Sub(second))
		}
	})
}

func TestOutputArrivesWholeInAtMostTenEventsASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var want strings.Builder
		got := speak(t, 0, func(out executor.Sink) {
			for i := range 5000 {
				token := fmt.Sprintf("%d ", i)
				want.WriteString(token)
				out.Output(token)
				time.Sleep(time.Millisecond)
			}
		})
		var text strings.Builder
		for _, e := range got.events {
			if e.Type != api.EventOutput {
				t.Errorf("a %s event among the output", e.Type)
			}
			text.WriteString(e.Message)
		}
		if text.String() != want.String() {
			t.Error("the pieces do not make up the output")
		}
		if n := len(got.events); n > 51 {
			t.Errorf("%d events in 5 s", n)
		}
	})
}

func TestOnlyTheLastOfProgressInARowIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := speak(t, 0, func(out executor.Sink) {
			out.Progress(0, "start")
			synctest.Wait()
			for i := range 40 {
				out.Progress(i, "")
			}
			out.Log("", "half way")
			for i := range 300 {
				out.Progress(i, "")
			}
		})
		var line []string
		for _, e := range got.events {
			if e.Progress != nil {
				line = append(line, fmt.Sprint(*e.Progress))
			} else {
				line = append(line, e.Message)
			}
		}
		if said := strings.Join(line, " "); said != "0 39 half way 100" {
			t.Errorf("reported %s", said)
		}
	})
}

func TestAnAgentThatSaysMoreThanTheServerTakesIsSlowedDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const lines = 2000
		line := strings.Repeat("x", 4<<10)
		got := speak(t, time.Second, func(out executor.Sink) {
			for i := range lines {
				out.Log("stdout", fmt.Sprintf("%d %s", i, line))
			}
		})
		n := 0
		for _, r := range got.reports {
			size := 0
			for _, e := range r.Events {
				size += len(e.Message)
				if !strings.HasPrefix(e.Message, fmt.Sprintf("%d ", n)) {
					t.Fatalf("line %d is %.10s…", n, e.Message)
				}
				n++
			}
			if len(r.Events) > 256 || size > (256+16)<<10 {
				t.Errorf("a report of %d events, %d bytes", len(r.Events), size)
			}
		}
		if n != lines {
			t.Errorf("%d lines arrived, want %d", n, lines)
		}
	})
}

func TestLinesAreBoundedAndMadeFitForAnyReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct{ line, want string }{
			"no UTF-8": {"a\xff\xfeb", "a�b"},
			"U+0000":   {"a\x00b", "a�b"},
			"as it is": {"größer\t→ 1", "größer\t→ 1"},
		} {
			got := speak(t, 0, func(out executor.Sink) { out.Log("", c.line) })
			if m := got.events[0].Message; m != c.want {
				t.Errorf("%s: %q, want %q", name, m, c.want)
			}
		}
		for _, shift := range []string{"", "x", "xx"} { // so that the cut falls on each byte of a character
			got := speak(t, 0, func(out executor.Sink) { out.Log("", shift+strings.Repeat("語", 20000)) })
			m := got.events[0].Message
			if len(m) > 16<<10 || len(m) < 16<<10-3 || !utf8.ValidString(m) || !strings.HasSuffix(m, "語 … [cut]") {
				t.Errorf("a long line became %d bytes that end in %q", len(m), m[len(m)-40:])
			}
		}
	})
}

func TestAnAttemptStreamsABoundedNumberOfLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := speak(t, 0, func(out executor.Sink) {
			for range 25_000 {
				out.Log("stdout", "line")
			}
			out.Progress(50, "still heard")
		})
		if n := len(got.events); n != 10_002 {
			t.Fatalf("%d events", n)
		}
		if m := got.events[10_000].Message; m != "the agent has written 10000 lines: further ones go to the artifact log.txt" {
			t.Errorf("the last line is %q", m)
		}
	})
}

func TestOutputIsBoundedWhereItIsStreamedAndWhereItIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		s := newServer(task("a"))
		all := strings.Repeat("語", limit)
		start(t, s, agents{"a": func(_ context.Context, _ executor.Job, out executor.Sink) (string, error) {
			for rest := all; rest != ""; rest = rest[3<<10:] {
				out.Output(rest[:3<<10])
			}
			return all, nil
		}})
		time.Sleep(time.Minute)
		got := s.row("task-of-a")
		streamed, notes := 0, 0
		for _, e := range got.events {
			if e.Type == api.EventOutput {
				streamed += len(e.Message)
			} else if e.Message == "further output is not streamed: it goes to the artifact output.txt" {
				notes++
			}
			if len(e.Message) > 16<<10 || !utf8.ValidString(e.Message) {
				t.Errorf("an event of %d bytes, or not UTF-8", len(e.Message))
			}
		}
		if streamed > limit || streamed < limit-3 || notes != 1 {
			t.Errorf("%d bytes streamed, %d notes", streamed, notes)
		}
		if n := len(got.Output); n > limit || n < limit-3 || !strings.HasSuffix(got.Output, "語 … [cut]") {
			t.Errorf("%d bytes kept, ending in %q", n, got.Output[n-40:])
		}
	})
}

func TestAnErrorIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(task("a"))
		start(t, s, agents{"a": fails(&executor.Failure{Message: strings.Repeat("no ", 100_000)})})
		time.Sleep(time.Second)
		if n := len(s.row("task-of-a").Error); n != 64<<10 {
			t.Errorf("the error has %d bytes", n)
		}
	})
}
