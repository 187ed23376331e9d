package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/coderclaw/runtime/api"
)

const (
	// flushInterval is the least time from one report to the next.
	flushInterval = 100 * time.Millisecond
	// maxBuffered events, or so many bytes of text, slow the agent down until
	// they are reported.
	maxBuffered      = 256
	maxBufferedBytes = 256 << 10
	// maxLogLines and maxStreamedOutput bound what one attempt adds to the
	// task's history.
	maxLogLines       = 10_000
	maxStreamedOutput = maxOutput
	// maxMessage is the most that one event can say.
	maxMessage = 16 << 10
)

// sink gathers what an executor says and reports it in order, the first words
// after a silence at once, later ones together.
type sink struct {
	reporter
	send func([]api.ReportEvent) error
	// files takes what is more than events are to hold, and artifacts.
	files *files
	// heard ends when nobody waits for the executor any more: from then on what
	// does not fit is left out instead of waited for.
	heard    context.Context
	quiet    *silence
	spending *spending

	mu      sync.Mutex
	events  []api.ReportEvent
	bytes   int           // of text in events
	room    chan struct{} // closed, and replaced, when events has been emptied
	ready   chan struct{} // holds one element if there are events
	deaf    bool          // the server takes no more events
	lines   int
	output  int // bytes of output so far
	skipped int // events that were left out

	asks   sync.Mutex // not held while waiting for people
	asking int        // calls that wait for people
	hold
}

func newSink(heard context.Context, r reporter, files *files, quiet *silence, send func([]api.ReportEvent) error) *sink {
	return &sink{reporter: r, files: files, send: send, heard: heard, quiet: quiet, spending: newSpending(), room: make(chan struct{}), ready: make(chan struct{}, 1)}
}

// flush reports events until ctx ends or the server takes no more.
func (s *sink) flush(ctx context.Context) {
	for {
		select {
		case <-s.ready:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		if err := s.send(s.take()); err != nil {
			s.mu.Lock()
			s.deaf = true
			s.mu.Unlock()
			s.take()
			return
		}
		pause(ctx, time.Until(began.Add(flushInterval)))
	}
}

// take empties the buffer and lets waiting writers go on.
func (s *sink) take() []api.ReportEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.events
	s.events, s.bytes = nil, 0
	select {
	case <-s.ready:
	default:
	}
	close(s.room)
	s.room = make(chan struct{})
	return taken
}

// rest returns what has not been reported.
func (s *sink) rest() []api.ReportEvent {
	s.mu.Lock()
	skipped := s.skipped
	s.mu.Unlock()
	events := s.take()
	if skipped > 0 {
		events = append(events, api.ReportEvent{Type: api.EventLog, Message: fmt.Sprintf("%d events are missing here: the attempt was being stopped", skipped)})
	}
	return events
}

func (s *sink) Progress(percent int, message string) {
	percent = min(max(percent, 0), 100)
	s.add(api.ReportEvent{Type: api.EventProgress, Message: bounded(message, maxMessage), Progress: &percent})
}

func (s *sink) Output(text string) {
	text = clean(text)
	s.mu.Lock()
	before := s.output
	s.output += len(text)
	s.mu.Unlock()
	if room := maxStreamedOutput - before; room < len(text) {
		piece := prefix(text, max(room, 0))
		s.pieces(piece)
		if room >= 0 {
			s.Note("further output is not streamed: it goes to the artifact "+outputFile, nil)
		}
		s.quiet.broken()
		s.files.add(outputFile, text[len(piece):])
		return
	}
	s.pieces(text)
}

// pieces adds output, each event of it within the limit.
func (s *sink) pieces(text string) {
	for text != "" {
		piece := prefix(text, maxMessage)
		s.add(api.ReportEvent{Type: api.EventOutput, Message: piece})
		text = text[len(piece):]
	}
}

var streamData = map[string]json.RawMessage{
	"stdout": json.RawMessage(`{"stream":"stdout"}`),
	"stderr": json.RawMessage(`{"stream":"stderr"}`),
}

func (s *sink) Log(stream, line string) {
	s.mu.Lock()
	s.lines++
	n := s.lines
	s.mu.Unlock()
	switch {
	case n <= maxLogLines:
		s.add(api.ReportEvent{Type: api.EventLog, Message: bounded(line, maxMessage), Data: streamData[stream]})
		return
	case n == maxLogLines+1:
		s.Note(fmt.Sprintf("the agent has written %d lines: further ones go to the artifact %s", maxLogLines, logFile), nil)
	}
	s.quiet.broken()
	s.files.add(logFile, clean(line)+"\n")
}

func (s *sink) Artifact(ctx context.Context, name, contentType string, content io.Reader) error {
	return s.files.keep(ctx, name, contentType, content)
}

func (s *sink) Note(message string, details any) {
	e := api.ReportEvent{Type: api.EventLog, Message: bounded(message, maxMessage)}
	if details != nil {
		// A value that cannot be encoded is a mistake of the executor's, and no
		// reason to lose the message.
		e.Data, _ = json.Marshal(details)
	}
	s.add(e)
}

// add buffers e. It waits while the buffer is full, and while the agent is held.
func (s *sink) add(e api.ReportEvent) {
	s.quiet.broken()
	s.busy()
	if held := s.spending.waiting(); held != nil {
		select {
		case <-held:
		case <-s.heard.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.deaf && s.full() {
		if s.heard.Err() != nil {
			s.skipped++
			return
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.heard.Done():
		}
		s.mu.Lock()
	}
	if s.deaf || s.joined(e) {
		return
	}
	s.events = append(s.events, e)
	s.bytes += len(e.Message) + len(e.Data)
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *sink) full() bool { return len(s.events) >= maxBuffered || s.bytes >= maxBufferedBytes }

// joined adds e to the last event if together they say the same: progress
// replaces progress, output goes on.
func (s *sink) joined(e api.ReportEvent) bool {
	if len(s.events) == 0 {
		return false
	}
	last := &s.events[len(s.events)-1]
	switch {
	case e.Type != last.Type:
		return false
	case e.Type == api.EventProgress:
		s.bytes += len(e.Message) - len(last.Message)
		*last = e
		return true
	case e.Type == api.EventOutput && len(last.Message)+len(e.Message) <= maxMessage:
		s.bytes += len(e.Message)
		last.Message += e.Message
		return true
	}
	return false
}
