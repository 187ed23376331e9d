package httpapi

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

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
	after stream.Cursor
	head  []byte // sent first
	ended bool   // nothing follows the head
	// emit returns an entry's text, nil to leave it out, and whether it is the
	// last one.
	emit func(E) (text []byte, last bool)
}

// follow sends a stream until it is complete, the client leaves or is too slow,
// or the server stops.
func follow[E any](s *Server, r *http.Request, w http.ResponseWriter, a followArgs[E]) {
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	f := a.hub.Follow(a.key, a.after)
	defer f.Close()

	out := http.NewResponseController(w)
	send := func(text []byte) bool {
		if err := out.SetWriteDeadline(time.Now().Add(s.writeTimeout)); err != nil {
			return false
		}
		if _, err := w.Write(text); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	w.WriteHeader(http.StatusOK)
	if !send(append(fmt.Appendf(nil, "retry: %d\n\n", reconnectAfter.Milliseconds()), a.head...)) || a.ended {
		return
	}
	quiet := time.NewTicker(beat)
	defer quiet.Stop()
	cursor := a.after
	for {
		items, err := f.After(r.Context(), cursor)
		if err != nil {
			// The database is away: the client comes back with its place.
			s.log.WarnContext(r.Context(), "stream interrupted", "error", err)
			return
		}
		var text []byte
		for i, it := range items {
			t, last := a.emit(it.Entry)
			text, cursor = append(text, t...), it.Cursor
			if len(text) > maxWrite || len(text) > 0 && (last || i == len(items)-1) {
				if !send(text) || last {
					return
				}
				text = text[:0]
				quiet.Reset(beat)
			}
		}
		if len(items) > 0 {
			continue
		}
		select {
		case <-f.Wake():
		case <-quiet.C:
			if !send([]byte(": beat\n\n")) {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.stopping:
			// Not all at once, or they would all come back at once.
			wait := reconnectAfter/2 + rand.N(reconnectAfter)
			send(fmt.Appendf(nil, "retry: %d\n: the server stops\n\n", wait.Milliseconds()))
			return
		}
	}
}
