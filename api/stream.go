package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// silence is how long a connection may say nothing: the server sends a
	// comment every 15 s, so three are missing then.
	silence = 45 * time.Second
	// A stream reconnects after defaultRetry, or what the server asks for, and
	// doubles that up to longestBackoff while there is no connection.
	defaultRetry   = 2 * time.Second
	longestBackoff = 30 * time.Second
	// longestRetry bounds what the server can ask for.
	longestRetry = 5 * time.Minute
	// maxFaults is how often in a row the same place may arrive damaged before
	// the stream gives up.
	maxFaults = 3
)

var (
	errStreamEnd    = errors.New("stream: nothing more to come")
	errStreamClosed = errors.New("stream: the server ended the connection")
	errSilent       = errors.New("stream: the connection was silent for 45 s")
)

// faultyStream is what a server should never send: missing or unreadable
// events. Asking again from the last good place may help.
type faultyStream struct{ error }

func gap(ev Event, seq int64) error {
	return faultyStream{fmt.Errorf("stream: events are missing: after %d of task %s came %d", seq, ev.TaskID, ev.Seq)}
}

// WatchOptions says where a task's stream starts.
type WatchOptions struct {
	// After is the seq of the last event already known: those that follow are
	// yielded, all of the task's history after 0. With nil the stream starts
	// with an EventSnapshot of the task as it is now.
	After *int64
	// Reconnecting, if set, is called with the reason each time the connection
	// is lost and before the next attempt.
	Reconnecting func(error)
}

// WatchTask yields what happens to a task, each event once and in order, until
// the task has ended. Where the connection breaks, goes silent or the server
// restarts it reconnects, for as long as it takes, and goes on where it was.
//
// It ends after an error: ctx's when that is done, an [*Error] when the server
// refuses (no such task, a credential that has run out), or a connection that
// could not be made even once. An EventReset says that events have gone past
// retention; a snapshot follows it.
func (c *Client) WatchTask(ctx context.Context, id string, o WatchOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		path, err := item("/v1/tasks", id, "/stream")
		if err != nil {
			yield(Event{}, err)
			return
		}
		s := &stream{client: c, path: path, reconnecting: o.Reconnecting}
		seq, known := int64(0), o.After != nil // the last event's, and whether there is one
		if known {
			seq = *o.After
			s.lastID = strconv.FormatInt(seq, 10)
		}
		s.accept = func(_ string, ev Event) (more bool, err error) {
			switch {
			case ev.Type == EventReset:
				known, s.lastID = false, ""
				s.taken++
				return yield(ev, nil), nil
			case !known:
			case ev.Seq <= seq:
				return true, nil
			case ev.Seq > seq+1:
				return true, gap(ev, seq)
			}
			seq, known = ev.Seq, true
			s.lastID = strconv.FormatInt(seq, 10)
			s.taken++
			last := ev.Status.Terminal() && (ev.Type == EventStatus || ev.Type == EventSnapshot)
			return yield(ev, nil) && !last, nil
		}
		if err := s.run(ctx); err != nil {
			yield(Event{}, err)
		}
	}
}

// FeedOptions says where the stream of many tasks starts.
type FeedOptions struct {
	// After is the Cursor of the last event already known; "" starts now.
	After string
	// Reconnecting is as in WatchOptions.
	Reconnecting func(error)
}

// FeedEvent is an event with its place in the stream of many tasks.
type FeedEvent struct {
	Event
	Cursor string `json:"-"` // FeedOptions.After of a stream that goes on here
}

// Watch yields what happens to all tasks that f chooses (its Limit and Cursor
// have no meaning here), each event once, those of one task in order. It
// reconnects as WatchTask does and ends only after an error.
func (c *Client) Watch(ctx context.Context, f TaskFilter, o FeedOptions) iter.Seq2[FeedEvent, error] {
	return func(yield func(FeedEvent, error) bool) {
		f.Limit, f.Cursor = 0, ""
		s := &stream{client: c, path: "/v1/stream", query: f.query(), lastID: o.After, cursors: true, reconnecting: o.Reconnecting}
		last := map[string]int64{} // seq by task
		s.accept = func(id string, ev Event) (more bool, err error) {
			seq, known := last[ev.TaskID]
			switch {
			case ev.Type == EventReset:
				clear(last)
			case known && ev.Seq <= seq:
				return true, nil
			// A filter by status shows only a part of a task's events.
			case known && ev.Seq > seq+1 && ev.Type != EventSnapshot && len(f.Status) == 0:
				return true, gap(ev, seq)
			case ev.Status.Terminal():
				delete(last, ev.TaskID)
			default:
				last[ev.TaskID] = ev.Seq
			}
			s.lastID = id
			s.taken++
			return yield(FeedEvent{Event: ev, Cursor: id}, nil), nil
		}
		if err := s.run(ctx); err != nil {
			yield(FeedEvent{}, err)
		}
	}
}

// stream is one reader's view of an endless stream over many connections.
type stream struct {
	client       *Client
	path         string
	query        url.Values
	lastID       string // where the next connection goes on; "": as a new reader
	cursors      bool   // ids name places, also where no event stands
	reconnecting func(error)
	// accept hands an event, with the stream's last id, to the consumer, unless
	// it is there already. It reports whether the consumer wants more, or that
	// events are missing before this one.
	accept func(id string, ev Event) (more bool, err error)

	taken     int           // events that accept let through
	connected bool          // at least once
	retry     time.Duration // what the server asked for
}

// run connects until the stream ends, the server refuses or ctx is done.
func (s *stream) run(ctx context.Context) error {
	s.retry = defaultRetry
	for failures, faults := 0, 0; ; {
		taken := s.taken
		up, err := s.connect(ctx)
		if s.taken > taken {
			faults = 0
		}
		if up {
			failures, s.connected = 0, true
		} else {
			failures++
		}
		var answer *Error
		var faulty faultyStream
		switch {
		case errors.Is(err, errStreamEnd):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &faulty):
			if faults++; faults > maxFaults {
				return err
			}
		case errors.As(err, &answer) && answer.Status < 500 && answer.Status != http.StatusTooManyRequests,
			permanent(err), !s.connected && failures > s.client.retries:
			return err
		}
		if s.reconnecting != nil {
			s.reconnecting(err)
		}
		wait := max(s.retry, firstWait)
		wait = max(wait, min(wait<<min(max(failures-1, 0), 10), longestBackoff))
		if answer != nil {
			wait = max(wait, min(answer.RetryAfter, longestRetry))
		}
		if err := pause(ctx, jitter(wait)); err != nil {
			return err
		}
	}
}

// connect opens one connection and reads it to its end. It reports whether the
// server opened the stream.
func (s *stream) connect(ctx context.Context) (up bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer alarm.Stop()
	defer func() {
		if !errors.Is(err, errStreamEnd) && errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
	}()

	h := http.Header{
		"Accept":          {"text/event-stream"},
		"Accept-Encoding": {"identity"}, // a compressor may hold events back
		"Cache-Control":   {"no-store"},
	}
	if s.lastID != "" {
		h.Set("Last-Event-ID", s.lastID)
	}
	res, err := s.client.send(ctx, call{method: http.MethodGet, path: s.path, query: s.query, header: h}, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		return true, errStreamEnd
	default:
		return false, errorFrom(res)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "text/event-stream" {
		return false, s.client.foreign(kind)
	}
	return true, s.read(&alarmed{res.Body, alarm})
}

// read takes what comes until the stream ends.
func (s *stream) read(body io.Reader) error {
	in := newSSEReader(body)
	for {
		f, err := in.next()
		if in.retry >= 0 {
			s.retry = min(in.retry, longestRetry)
		}
		if errors.Is(err, io.EOF) {
			return errStreamClosed
		}
		if err != nil {
			return err
		}
		if f.data == nil {
			if s.cursors {
				s.lastID = f.id
			}
			continue
		}
		var ev Event
		err = json.Unmarshal(f.data, &ev)
		if f.event != "" {
			ev.Type = EventType(f.event)
		}
		switch {
		case !f.named && ev.Type != EventReset: // a control frame that we do not know
			continue
		case err != nil:
			return faultyStream{fmt.Errorf("stream: decode event %q: %w", f.id, err)}
		}
		if more, err := s.accept(f.id, ev); err != nil {
			return err
		} else if !more {
			return errStreamEnd
		}
	}
}

// alarmed lets the alarm go off when a Read takes too long; the time that the
// consumer takes between two does not count.
type alarmed struct {
	r     io.Reader
	alarm *time.Timer
}

func (a *alarmed) Read(p []byte) (int, error) {
	a.alarm.Reset(silence)
	defer a.alarm.Stop()
	return a.r.Read(p)
}
