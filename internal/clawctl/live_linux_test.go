package clawctl

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coderclaw/runtime/api"
)

// terminal is a pseudo-terminal and what a person would see on it.
type terminal struct {
	*os.File          // the program's side
	keyboard *os.File // the person's

	mu       sync.Mutex
	rows     []string
	cursor   bool // is visible
	wrap     bool
	raw      strings.Builder
	widest   int
	changed  chan struct{} // holds one
	finished chan struct{}
}

func newTerminal(t *testing.T, width int) *terminal {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Skipf("no pseudo-terminal here: %v", err)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	check(err)
	fd := int(master.Fd())
	check(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	check(err)
	check(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(width)}))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(err)
	v := &terminal{File: slave, keyboard: master, rows: []string{""}, cursor: true, wrap: true, changed: make(chan struct{}, 1), finished: make(chan struct{})}
	go func() {
		defer close(v.finished)
		buf := make([]byte, 64<<10)
		pending := ""
		for {
			n, err := master.Read(buf)
			pending = v.feed(pending + string(buf[:n]))
			select {
			case v.changed <- struct{}{}:
			default:
			}
			if err != nil { // EIO: the program's side is closed
				return
			}
		}
	}()
	t.Cleanup(func() {
		slave.Close()
		<-v.finished
		master.Close()
	})
	return v
}

// types is what the person does.
func (v *terminal) types(t *testing.T, text string) {
	t.Helper()
	if _, err := v.keyboard.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// end closes the program's side and returns what is on the screen then.
func (v *terminal) end() string {
	v.File.Close()
	<-v.finished
	return v.screen()
}

func (v *terminal) screen() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.rows, "\n")
}

func (v *terminal) showsCursor() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cursor
}

// until waits for a screen that matches.
func (v *terminal) until(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	stuck := time.After(30 * time.Second)
	for !re.MatchString(v.screen()) {
		select {
		case <-v.changed:
		case <-stuck:
			t.Fatalf("the screen does not show %q:\n%s", pattern, v.screen())
		}
	}
}

var known = regexp.MustCompile(`^\x1b\[(\?7|\?25|[0-9]*)([hlKm])`)

// feed does what a terminal does with text and returns what is incomplete.
func (v *terminal) feed(text string) (rest string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.raw.WriteString(text)
	for len(text) > 0 {
		last := &v.rows[len(v.rows)-1]
		switch {
		case text[0] == '\x1b':
			m := known.FindStringSubmatch(text)
			if m == nil {
				if len(text) < 8 {
					return text
				}
				*last += "<UNKNOWN SEQUENCE>"
				text = text[1:]
				continue
			}
			switch m[1] + m[2] {
			case "K":
				*last = ""
			case "?25h", "?25l":
				v.cursor = m[2] == "h"
			case "?7h", "?7l":
				v.wrap = m[2] == "h"
			}
			text = text[len(m[0]):]
			continue
		case strings.HasPrefix(text, "\r\n"):
			v.rows = append(v.rows, "")
			text = text[2:]
			continue
		case text[0] == '\r': // ours are always followed by an erasure
			text = text[1:]
			continue
		}
		n := strings.IndexAny(text, "\x1b\r")
		if n < 0 {
			n = len(text)
		}
		*last += text[:n]
		v.widest = max(v.widest, columns(*last))
		text = text[n:]
	}
	return ""
}

// steps is a stream that sends an event each time one is asked for.
func steps(events []api.Event) (h http.HandlerFunc, next func()) {
	ask := make(chan struct{})
	h = func(w http.ResponseWriter, r *http.Request) {
		for _, ev := range events {
			select {
			case <-ask:
				send(w, ev)
			case <-r.Context().Done():
				return
			}
		}
	}
	return h, func() { ask <- struct{}{} }
}

func TestTheLiveLineShowsWhereTheTaskIs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		width   int
		env     string
		running string
	}{
		{100, "", `(?m)^\S running   █{7}░{12}  40%  \d+s  reading red �detrever� �31m��\]52;c;ZXZpbA$`},
		{100, "NO_COLOR", `(?m)^\S running   █{7}░{12}  40%  \d+s  reading`},
		{40, "", `(?m)^\S running    40%  \d+s  reading red .*…$`},
		{12, "", `(?m)^\S running …$`},
	} {
		t.Run(fmt.Sprint(tc.width, tc.env), func(t *testing.T) {
			t.Parallel()
			s := runningTask(t, api.TaskCompleted)
			var next func()
			s.stream, next = steps(s.events)
			screen := newTerminal(t, tc.width)
			code := make(chan int)
			go func() {
				env := map[string]string{"CODERCLAW_URL": s.url, "TERM": "xterm", tc.env: "1"}
				code <- invocation{env: env}.start(t, screen.File, screen.File, "tasks", "watch", taskID)
			}()
			screen.until(t, `^\S connect`)
			next()
			screen.until(t, `^\S pending`)
			next()
			screen.until(t, tc.running)
			next()
			if tc.width == 100 {
				screen.until(t, `running .* # Rep$`)
			}
			next()
			screen.until(t, `(?m)^two\nlines\n\S running`)
			if screen.showsCursor() {
				t.Error("the cursor is visible while the line is drawn")
			}
			next()
			if got := <-code; got != exitOK {
				t.Errorf("exit code %d", got)
			}
			if got, want := screen.end(), "two\nlines\nCompleted after 1m5s\n# Report\n\nDone "+tame+"\n"; got != want {
				t.Errorf("the screen shows\n%s\nwant\n%s", got, want)
			}
			if !screen.cursor || !screen.wrap {
				t.Errorf("left behind: cursor %v, wrap %v", screen.cursor, screen.wrap)
			}
			if colours := strings.Contains(screen.raw.String(), "m"+"two"); colours != (tc.env == "") {
				t.Errorf("colours: %v", colours)
			}
		})
	}
}

func TestCtrlCRestoresTheTerminal(t *testing.T) {
	t.Parallel()
	s := runningTask(t, api.TaskCompleted)
	var next func()
	s.stream, next = steps(s.events)
	ctx, interrupt := context.WithCancel(t.Context())
	screen := newTerminal(t, 80)
	code := make(chan int)
	go func() {
		code <- invocation{ctx: ctx, env: map[string]string{"CODERCLAW_URL": s.url}}.start(t, screen.File, screen.File, "tasks", "watch", taskID)
	}()
	next()
	screen.until(t, `pending`)
	interrupt()
	if got := <-code; got != exitInterrupted {
		t.Errorf("exit code %d", got)
	}
	if got := screen.end(); !strings.HasPrefix(got, "Stopped watching; the task goes on.") || !screen.cursor || !screen.wrap {
		t.Errorf("cursor %v, wrap %v, the screen shows\n%s", screen.cursor, screen.wrap, got)
	}
}

func TestADumbTerminalGetsPlainLines(t *testing.T) {
	t.Parallel()
	s := runningTask(t, api.TaskCompleted)
	screen := newTerminal(t, 80)
	invocation{env: map[string]string{"CODERCLAW_URL": s.url, "TERM": "dumb"}}.start(t, screen.File, screen.File, "tasks", "watch", taskID)
	if got := screen.end(); !strings.HasPrefix(got, "09:00:00 pending submitted\n09:00:01 running 40% reading "+tame) || strings.Contains(screen.raw.String(), "\x1b") {
		t.Errorf("got %q", got)
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	s := stockedServer(t)
	screen := newTerminal(t, 108)
	invocation{env: map[string]string{"CODERCLAW_URL": s.url}}.start(t, screen.File, screen.File, "tasks", "list")
	rows := strings.Split(screen.end(), "\n")
	want := []string{
		"ID                                    STATUS     PROGRESS  AGENT                 AGE  DESCRIPTION",
		otherID + "  waiting    40%       code-creator          3h   Add a login red �detr…",
		taskID + "  completed  100%      architecture-advisor  1m   Analyze project archi…",
		"",
	}
	if !slices.Equal(rows, want) || screen.widest != 108 {
		t.Errorf("%d wide:\n%s", screen.widest, strings.Join(rows, "\n"))
	}
}

func TestTheTerminalGetsNoSequenceOfATask(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"tasks", "get", taskID}, {"tasks", "events", taskID}, {"tasks", "list"}, {"tasks", "get", taskID, "-o", "yaml"}, {"tasks", "list", "-o", "json"}, {"tasks", "watch", taskID}} {
		s := stockedServer(t)
		screen := newTerminal(t, 80)
		invocation{env: map[string]string{"CODERCLAW_URL": s.url, "NO_COLOR": "1"}}.start(t, screen.File, screen.File, args...)
		screen.end()
		left := strings.NewReplacer(hideCursor, "", showCursor, "", noWrap, "", wrap, "", "\x1b[K", "", "\r", "").Replace(screen.raw.String())
		if strings.ContainsFunc(left, isUnsafe) {
			t.Errorf("%q printed %q", args, left)
		}
	}
}
