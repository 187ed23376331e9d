package httpapi

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
)

const (
	// beat is how often a quiet stream says that it lives, so that proxies
	// keep it open.
	beat = 15 * time.Second
	// writeTimeout is how long a follower may take to accept what it is sent.
	// One that does not is disconnected; its place is in its last event's id.
	writeTimeout = 10 * time.Second
	// maxWrite is about how much is sent at once to a follower that catches up.
	maxWrite = 64 << 10
	// reconnectAfter is what clients are told to wait before they come back.
	reconnectAfter = 2 * time.Second
)

// followArgs say what a stream sends.
type followArgs[E any] struct {
	hub   *stream.Hub[E]
	key   string
	after stream.Cursor // what the client has seen
	end   stream.Cursor // of the log, as seen just now
	head  []byte        // sent first
	ended bool          // nothing follows the head
	// caller is who follows; its rights may end before the stream does.
	caller *policy.Caller
	// release gives the caller's place among its streams back.
	release func()
	// place, if not nil, writes a cursor as the id that a client may resume
	// after without having seen an event there.
	place func(stream.Cursor) string
	// emit returns an entry's text, nil to leave it out, and whether it is the
	// last one.
	emit func(E) (text []byte, last bool)
}

// follow sends a stream until it is complete, the client leaves or is too slow,
// or the server stops.
//
// Thousands of goroutines wait in here. Whatever is needed only at times is in
// a method of its own, so that their stacks stay small.
func follow[E any](s *Server, r *http.Request, w http.ResponseWriter, a *followArgs[E]) {
	defer a.release()
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	s.streaming.Add(1)
	defer s.streaming.Add(-1)
	out := &sseWriter{w: w, c: http.NewResponseController(w), timeout: s.writeTimeout}
	if !out.begin(a.head) || a.ended {
		return
	}
	a.head = nil
	s.wave.opened()
	p := passage[E]{followArgs: a, out: out, follower: a.hub.Follow(a.key, a.end)}
	defer p.follower.Close()
	quiet := time.NewTicker(beat)
	defer quiet.Stop()
	changed := s.accessChanged.wait()
	for p.pass(r.Context(), s, quiet.C) {
		select {
		case <-p.follower.Wake():
			continue // what is sent now is sign of life enough, or the next beat is
		case <-quiet.C:
			// Sessions end by themselves too.
			if s.mayFollow(r.Context(), p.caller) && p.beat() {
				continue
			}
		case <-changed:
			changed = s.accessChanged.wait()
			if s.mayFollow(r.Context(), p.caller) {
				continue
			}
		case <-r.Context().Done():
		case <-s.stopping:
			out.farewell()
		}
		return
	}
}

// wave returns memory to the system after many streams were opened: what their
// handlers used, stacks foremost, is given back only when garbage is collected,
// and a server whose clients then only wait makes none.
type wave struct {
	n    atomic.Int64
	over atomic.Pointer[time.Timer]
}

// waveSize is how many streams make a wave, waveQuiet how long none may follow
// for it to be over.
const (
	waveSize  = 1000
	waveQuiet = time.Second
)

func (w *wave) opened() {
	if w.n.Add(1) < waveSize {
		return
	}
	next := time.AfterFunc(waveQuiet, func() {
		w.n.Store(0)
		debug.FreeOSMemory()
	})
	if last := w.over.Swap(next); last != nil {
		last.Stop()
	}
}

// passage is a stream on its way.
type passage[E any] struct {
	*followArgs[E]
	out      *sseWriter
	follower *stream.Follower[E]
}

// pass sends what there is. It reports whether more can follow.
func (p *passage[E]) pass(ctx context.Context, s *Server, quiet <-chan time.Time) bool {
	for {
		select { // there may be much to send, or to leave out
		case <-s.stopping:
			p.out.farewell()
			return false
		case <-quiet:
			if !p.beat() {
				return false
			}
		default:
		}
		items, err := p.follower.After(ctx, p.after)
		if err != nil {
			// The database is away: the client comes back with its place.
			s.log.WarnContext(ctx, "stream interrupted", "error", err)
			return false
		}
		if len(items) == 0 {
			return true
		}
		var text []byte
		for i, it := range items {
			t, last := p.emit(it.Entry)
			text, p.after = append(text, t...), it.Cursor
			if len(text) > maxWrite || len(text) > 0 && (last || i == len(items)-1) {
				if !p.out.send(text) || last {
					return false
				}
				text = text[:0]
			}
		}
	}
}

// beat is a sign of life. Where events may be left out it also says how far
// the client has come, or a reconnect would go over all of them again.
func (p *passage[E]) beat() bool {
	text := ": beat\n\n"
	if p.place != nil {
		text = ": beat\nid: " + p.place(p.after) + "\n\n"
	}
	return p.out.send([]byte(text))
}

// sseWriter writes a stream to one client.
type sseWriter struct {
	w       http.ResponseWriter
	c       *http.ResponseController
	timeout time.Duration
}

func (o *sseWriter) begin(head []byte) bool {
	// The request has been read; a deadline for it would end the stream.
	if err := o.c.SetReadDeadline(time.Time{}); err != nil {
		return false
	}
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	o.w.WriteHeader(http.StatusOK)
	return o.send(append(fmt.Appendf(nil, "retry: %d\n\n", reconnectAfter.Milliseconds()), head...))
}

// send writes and flushes the text. It reports whether the client took it in
// time.
func (o *sseWriter) send(text []byte) bool {
	if err := o.c.SetWriteDeadline(time.Now().Add(o.timeout)); err != nil {
		return false
	}
	_, err := o.w.Write(text)
	return err == nil && o.c.Flush() == nil
}

// farewell asks the client to come back: not all at once, or they would all
// come back at once.
func (o *sseWriter) farewell() {
	wait := reconnectAfter/2 + rand.N(reconnectAfter)
	o.send(fmt.Appendf(nil, "retry: %d\n: the server stops\n\n", wait.Milliseconds()))
}

// broadcast wakes any number of goroutines at once.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next wake.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
