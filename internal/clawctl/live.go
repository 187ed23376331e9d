package clawctl

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coderclaw/runtime/api"
)

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	noWrap     = "\x1b[?7l" // a line that is too long is cut, not continued below
	wrap       = "\x1b[?7h"
	clearLine  = "\r\x1b[K"
)

// frameTime is how often the live line is drawn.
const frameTime = 100 * time.Millisecond

// liveLine shows a task on the last line of a terminal and draws it again and
// again; what the agent says scrolls by above it.
type liveLine struct {
	cli   *cli
	began time.Time
	quit  chan struct{}
	done  chan struct{}

	mu      sync.Mutex
	status  api.TaskStatus
	percent int
	message string
	growing bool   // the message is a line of output: its end is what is new
	tail    string // that line, as it came
	lost    bool   // reconnecting
	held    bool   // the person is asked something
	above   string // what is to be printed after that
	frames  int
}

func newLiveLine(c *cli) *liveLine {
	l := &liveLine{cli: c, began: time.Now(), quit: make(chan struct{}), done: make(chan struct{})}
	c.err.printf(hideCursor)
	l.draw("")
	go l.run()
	return l
}

func (l *liveLine) run() {
	defer close(l.done)
	ticker := time.NewTicker(frameTime)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.mu.Lock()
			l.frames++
			l.draw("")
			l.mu.Unlock()
		case <-l.quit:
			return
		}
	}
}

func (l *liveLine) close() {
	close(l.quit)
	<-l.done
	l.cli.err.printf(clearLine + wrap + showCursor)
}

func (l *liveLine) event(ev api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = false
	if ev.Status != "" {
		l.status = ev.Status
	}
	if ev.Progress != nil {
		l.percent = *ev.Progress
	}
	switch ev.Type {
	case api.EventSnapshot:
		l.message, l.growing = waits(ev.Data), false
	case api.EventStatus, api.EventProgress:
		if ev.Message != "" || ev.Type == api.EventStatus {
			l.message, l.growing = ev.Message, false
		}
	case api.EventOutput:
		l.writes(ev.Message)
	case api.EventReset:
	default:
		if ev.Message != "" {
			l.say(ev)
		}
	}
}

// writes shows the line of output that the agent is at.
func (l *liveLine) writes(piece string) {
	text := l.tail + cleanText(piece)
	text = text[strings.LastIndexByte(strings.TrimRight(text, "\n"), '\n')+1:]
	if len(text) > 64<<10 {
		text = ""
	}
	l.tail, l.message, l.growing = text, text, true
}

// say prints what an agent says above the live line.
func (l *liveLine) say(ev api.Event) {
	text := strings.TrimRight(cleanText(ev.Message), "\n")
	st := dim
	if ev.Type != api.EventLog {
		text, st = cleanLine(string(ev.Type))+": "+text, bold
	}
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString(l.cli.err.style(st, line) + "\n")
	}
	l.draw(b.String())
}

func (l *liveLine) reconnecting(error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
}

// maxAbove bounds what waits to be printed while the line is held.
const maxAbove = 64 << 10

func (l *liveLine) hold(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = on
	if on {
		l.cli.err.printf(clearLine + wrap + showCursor)
		return
	}
	l.cli.err.printf(hideCursor)
	above := l.above
	l.above = ""
	l.draw(above)
}

// draw writes the line, below the lines of above. It is one write, so that the
// terminal never shows half of it.
func (l *liveLine) draw(above string) {
	if l.held {
		if len(l.above)+len(above) <= maxAbove {
			l.above += above
		}
		return
	}
	text := clearLine
	if above != "" {
		text += wrap + above
	}
	l.cli.err.printf("%s", text+noWrap+l.line(l.cli.err.width()-1))
}

var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// line is the live line in at most limit columns: a spinner, the status, a bar,
// the time, and as much of the message as fits.
func (l *liveLine) line(limit int) string {
	status, st, message := string(l.status), statusStyle(l.status), cleanLine(l.message)
	switch {
	case l.lost:
		message, st = "connection lost, reconnecting", yellow
	case status == "":
		status = "connecting"
	}
	var b strings.Builder
	left := limit
	add := func(st style, text string) {
		text = fit(text, left)
		left -= columns(text)
		b.WriteString(l.cli.err.style(st, text))
	}
	add(cyan, spinner[l.frames%len(spinner)]+" ")
	add(st, fmt.Sprintf("%-9s ", cleanLine(status)))
	if limit >= 50 {
		width := min(limit/5, 24)
		full := width * min(max(l.percent, 0), 100) / 100
		add(cyan, strings.Repeat("█", full))
		add(dim, strings.Repeat("░", width-full)+" ")
	}
	add("", fmt.Sprintf("%3d%%  %s  ", l.percent, time.Since(l.began).Truncate(time.Second)))
	if l.growing {
		message = fitEnd(message, left)
	}
	add("", message)
	return b.String()
}
