package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
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
	// atOnce is how long a follower may take without holding others up.
	atOnce = 5 * time.Millisecond
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
// Thousands of streams wait at the same time. Over HTTP/1 a stream's connection
// is taken from net/http, whose buffers and stack are many times what the stream
// needs: follow returns at once, and what stays is a goroutine that waits for the
// client to leave. What is to be sent has another, which ends when it is sent.
func follow[E any](s *Server, r *http.Request, w http.ResponseWriter, a *followArgs[E]) {
	out := newSSEWriter(w, r, s.writeTimeout)
	if !out.begin(a.head) || a.ended {
		out.end()
		a.release()
		return
	}
	a.head = nil
	s.wave.opened()
	f := &following[E]{followArgs: a, server: s, out: out, began: time.Now(), done: make(chan struct{}), running: true, due: toSend}
	f.ctx, f.cancel = context.WithCancel(context.WithValue(context.Background(), requestKey, &request{id: RequestID(r.Context())}))
	out.yield = f.yield
	s.metrics.streams.Inc()
	s.followings.add(f)
	f.follower = a.hub.Follow(a.key, a.end, func() { f.poke(toSend) })
	go f.run()
	if out.conn != nil {
		go f.watch(out.conn)
		return
	}
	select {
	case <-r.Context().Done():
		f.end()
		<-f.done // after it w is not ours any more
	case <-f.done:
	}
}

// due is what a stream has to do.
type due uint8

const (
	toSend  due = 1 << iota // what has been appended to the log
	toCheck                 // whether it may go on
	toBeat                  // a sign of life, and toCheck
	toStop
)

// following is a stream on its way.
type following[E any] struct {
	*followArgs[E]
	server   *Server
	out      *sseWriter
	began    time.Time
	follower *stream.Follower[E]
	ctx      context.Context // ends with the stream
	cancel   context.CancelFunc
	done     chan struct{} // closed when nothing will be sent any more
	hasSlot  bool          // of followings.slots

	mu      sync.Mutex
	due     due
	running bool
	ended   bool
}

// poke has the stream do something, now or after what it is doing. It does not
// block.
func (f *following[E]) poke(d due) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due |= d
	if !f.running && !f.ended {
		f.running = true
		go f.run()
	}
}

// run does what is due.
func (f *following[E]) run() {
	defer func() {
		if p := recover(); p != nil {
			f.server.log.ErrorContext(f.ctx, "stream panicked", "panic", p, "stack", string(debug.Stack()))
			f.end()
			f.next()
		}
	}()
	for d := f.next(); d != 0; d = f.next() {
		if !f.do(d) {
			f.end()
		}
	}
}

// next returns what is to be done now; 0: nothing, and whoever runs is to stop.
func (f *following[E]) next() due {
	f.mu.Lock()
	d := f.due
	f.due = 0
	if f.ended {
		d = 0
	}
	f.running = d != 0
	last := f.ended
	f.mu.Unlock()
	if last {
		f.close()
	}
	return d
}

// end has nothing more be sent. It may be called more than once.
func (f *following[E]) end() {
	f.mu.Lock()
	first := !f.ended
	f.ended = true
	last := first && !f.running
	f.mu.Unlock()
	if first {
		f.cancel()
	}
	if last {
		f.close()
	}
}

// close lets go of what the stream holds. It is called once, by whoever is the
// last to use it.
func (f *following[E]) close() {
	f.out.end()
	f.follower.Close()
	f.server.followings.remove(f)
	f.release()
	f.server.metrics.streams.Dec()
	f.server.log.LogAttrs(f.ctx, slog.LevelDebug, "stream ended", slog.Duration("took", time.Since(f.began)))
	close(f.done)
}

// watch ends the stream when its client leaves. What else a client may send is
// nothing that it was asked for.
func (f *following[E]) watch(conn net.Conn) {
	var b [64]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			f.end()
			return
		}
	}
}

// do reports whether more can follow.
func (f *following[E]) do(d due) bool {
	if d&toStop != 0 {
		f.out.farewell()
		return false
	}
	// Sessions end by themselves too.
	if d&(toCheck|toBeat) != 0 && !f.server.mayFollow(f.ctx, f.caller) {
		return false
	}
	if d&toBeat != 0 && !f.beat() {
		return false
	}
	return d&toSend == 0 || f.pass()
}

// pass sends what there is. It reports whether more can follow.
func (f *following[E]) pass() bool {
	f.server.followings.slots <- struct{}{}
	f.hasSlot = true
	defer f.yield()
	for {
		items, known := f.follower.Recent(f.after)
		var err error
		if !known {
			f.yield()
			items, err = f.follower.After(f.ctx, f.after)
		}
		if err != nil {
			if f.ctx.Err() == nil { // the database is away: the client comes back with its place
				f.server.log.WarnContext(f.ctx, "stream interrupted", "error", err)
			}
			return false
		}
		if len(items) == 0 {
			return true
		}
		var frames [][]byte
		size := 0
		for i, it := range items {
			text, last := f.emit(it.Entry)
			f.after = it.Cursor
			if len(text) > 0 {
				frames, size = append(frames, text), size+len(text)
			}
			if size > maxWrite || size > 0 && (last || i == len(items)-1) {
				if !f.out.send(frames...) || last {
					return false
				}
				frames, size = frames[:0], 0
			}
		}
		if f.interrupted() {
			f.poke(toSend)
			return true
		}
	}
}

// yield lets another stream send.
func (f *following[E]) yield() {
	if f.hasSlot {
		f.hasSlot = false
		runtime.Gosched() // whoever is given the slot runs at once, before all else
		<-f.server.followings.slots
	}
}

// interrupted reports whether something else is due while there is much to send,
// or to leave out.
func (f *following[E]) interrupted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended || f.due&^toSend != 0
}

// beat is a sign of life. Where events may be left out it also says how far
// the client has come, or a reconnect would go over all of them again.
func (f *following[E]) beat() bool {
	text := ": beat\n\n"
	if f.place != nil {
		text = ": beat\nid: " + f.place(f.after) + "\n\n"
	}
	return f.out.send([]byte(text))
}

// poked is a following of whatever log.
type poked interface{ poke(due) }

// followings are the streams that are open. Each beats in the second of the
// interval in which it was opened, so that they do not all beat at once.
type followings struct {
	mu       sync.Mutex
	open     map[poked]int // the second
	second   int
	stopping bool
	empty    chan struct{} // closed when the last one has ended after stop
	// slots are how many streams send at once. Where a thousand want to, whatever
	// else the server does would have to wait for all of them.
	slots chan struct{}
}

func newFollowings() *followings {
	return &followings{open: map[poked]int{}, slots: make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
}

const beatSeconds = int(beat / time.Second)

func (l *followings) add(f poked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[f] = l.second
	if l.stopping {
		f.poke(toStop)
	}
}

func (l *followings) remove(f poked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, f)
	l.told()
}

func (l *followings) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// check has all streams see whether they may go on.
func (l *followings) check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.open {
		f.poke(toCheck)
	}
}

// stop has all streams end, also those to come, and returns a channel that is
// closed when they have.
func (l *followings) stop() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopping {
		l.stopping, l.empty = true, make(chan struct{})
		for f := range l.open {
			f.poke(toStop)
		}
		l.told()
	}
	return l.empty
}

// told closes empty once.
func (l *followings) told() {
	if l.stopping && len(l.open) == 0 {
		select {
		case <-l.empty:
		default:
			close(l.empty)
		}
	}
}

// run has streams beat until ctx ends.
func (l *followings) run(ctx context.Context) error {
	seconds := time.NewTicker(time.Second)
	defer seconds.Stop()
	for {
		select {
		case <-seconds.C:
			l.tick()
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *followings) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.second = (l.second + 1) % beatSeconds
	for f, second := range l.open {
		if second == l.second {
			f.poke(toBeat)
		}
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

// sseWriter writes a stream to one client: to a connection of its own, or, where
// net/http does not give it away (HTTP/2), through it.
type sseWriter struct {
	conn    net.Conn
	chunked bool // as RFC 9112, section 7.1, has it
	broken  bool // a write has failed
	// yield, if not nil, is called when a client does not take something at once.
	yield func()

	w       http.ResponseWriter
	c       *http.ResponseController
	timeout time.Duration
}

func newSSEWriter(w http.ResponseWriter, r *http.Request, timeout time.Duration) *sseWriter {
	return &sseWriter{w: w, c: http.NewResponseController(w), timeout: timeout, chunked: r.ProtoAtLeast(1, 1)}
}

func (o *sseWriter) begin(head []byte) bool {
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	head = append(fmt.Appendf(nil, "retry: %d\n\n", reconnectAfter.Milliseconds()), head...)
	conn, _, err := o.c.Hijack()
	switch {
	case errors.Is(err, http.ErrNotSupported):
		// The request has been read; a deadline for it would end the stream.
		if err := o.c.SetReadDeadline(time.Time{}); err != nil {
			return false
		}
		o.w.WriteHeader(http.StatusOK)
		return o.send(head)
	case err != nil || conn.SetDeadline(time.Time{}) != nil:
		o.broken = true
		return false
	}
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Connection", "close")
	if o.chunked {
		h.Set("Transfer-Encoding", "chunked")
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&b) // a buffer takes all
	b.WriteString("\r\n")
	o.conn, o.w, o.c = conn, nil, nil
	return o.write(b.Bytes()) && o.send(head)
}

// send writes the frames. It reports whether the client took them in time.
func (o *sseWriter) send(frames ...[]byte) bool {
	if o.conn == nil {
		err := o.c.SetWriteDeadline(time.Now().Add(o.timeout))
		for i := 0; err == nil && i < len(frames); i++ {
			_, err = o.w.Write(frames[i])
		}
		return err == nil && o.c.Flush() == nil
	}
	if !o.chunked {
		return o.write(frames...)
	}
	size := 0
	for _, f := range frames {
		size += len(f)
	}
	chunk := append(make([][]byte, 0, len(frames)+2), fmt.Appendf(nil, "%x\r\n", size))
	return o.write(append(append(chunk, frames...), []byte("\r\n"))...)
}

// write sends pieces in one system call, and over TLS in one record if they fit.
func (o *sseWriter) write(pieces ...[]byte) bool {
	_, secret := o.conn.(*tls.Conn) // which a write that is cut off breaks
	if secret {
		pieces = [][]byte{bytes.Join(pieces, nil)}
	}
	buffers := (*net.Buffers)(&pieces)
	patience := atOnce
	if secret || o.yield == nil {
		patience = o.timeout
	}
	err := o.writeWithin(patience, buffers)
	if patience == atOnce && errors.Is(err, os.ErrDeadlineExceeded) {
		o.yield()
		err = o.writeWithin(o.timeout, buffers)
	}
	o.broken = o.broken || err != nil
	return err == nil
}

// writeWithin takes from the buffers what it has written.
func (o *sseWriter) writeWithin(d time.Duration, buffers *net.Buffers) error {
	if err := o.conn.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	_, err := buffers.WriteTo(o.conn)
	return err
}

// end says that the stream is complete, as far as that can be said, and lets go
// of the connection.
func (o *sseWriter) end() {
	if o.conn == nil {
		return
	}
	if o.chunked && !o.broken {
		o.write([]byte("0\r\n\r\n"))
	}
	_ = o.conn.Close() // there is nothing more to say
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
