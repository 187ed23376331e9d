package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

const taskID = "019ac5b0-7c00-7000-8000-000000000001"

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// onSocket returns a client of h behind a real socket.
func onSocket(t *testing.T, h http.Handler, opts ...api.Option) *api.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return newClient(t, srv.URL, opts...)
}

// inMemory returns a client of h over pipes, for tests in a synctest bubble:
// there, waiting takes no time.
func inMemory(t *testing.T, h http.Handler, opts ...api.Option) *api.Client {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	transport := &http.Transport{DialContext: l.dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
	})
	return newClient(t, "http://pipe", append(opts, api.WithHTTPClient(&http.Client{Transport: transport}))...)
}

func newClient(t *testing.T, url string, opts ...api.Option) *api.Client {
	t.Helper()
	c, err := api.NewClient(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// history is what happens to a task that completes, n events in all.
func history(n int) []api.Event {
	events := make([]api.Event, n)
	for i := range events {
		percent := 100 * i / n
		events[i] = api.Event{Type: api.EventProgress, TaskID: taskID, Seq: int64(i + 1), Status: api.TaskRunning,
			Timestamp: start.Add(time.Duration(i) * time.Second), Progress: &percent, Message: "step " + strconv.Itoa(i+1)}
	}
	events[n-1].Type, events[n-1].Status = api.EventStatus, api.TaskCompleted
	return events
}

// frames writes events as the stream contract says.
func frames(events ...api.Event) string {
	var b strings.Builder
	for _, ev := range events {
		data, err := json.Marshal(ev)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&b, "event: %s\nid: %d\ndata: %s\n\n", ev.Type, ev.Seq, data)
	}
	return b.String()
}

// snapshot is the first event of a new subscriber when ev was the last.
func snapshot(ev api.Event) api.Event {
	ev.Type, ev.Message, ev.Progress = api.EventSnapshot, "", nil
	ev.Data = json.RawMessage(`{"id":"` + ev.TaskID + `","status":"` + string(ev.Status) + `"}`)
	return ev
}

// streams answers one stream request after the other, the last function again
// and again, and keeps what each asked for.
type streams struct {
	answers []func(w http.ResponseWriter, r *http.Request, lastID string)

	mu    sync.Mutex
	asked []string // Last-Event-ID, "-" if there was none
}

func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	lastID := "-"
	if v := r.Header.Values("Last-Event-ID"); v != nil {
		lastID = v[0]
	}
	s.mu.Lock()
	answer := s.answers[min(len(s.asked), len(s.answers)-1)]
	s.asked = append(s.asked, lastID)
	s.mu.Unlock()
	answer(w, r, lastID)
}

func (s *streams) lastIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.asked...)
}

// say opens a stream, sends text and lets the server end it.
func say(text string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, _ string) { send(w, text) }
}

// hang opens a stream, sends text and then nothing until the client leaves.
func hang(text string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, r *http.Request, _ string) {
		send(w, text)
		<-r.Context().Done()
	}
}

func refuse(status int, slug string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, _ string) { problem(w, status, slug) }
}

func send(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, text)
	http.NewResponseController(w).Flush()
}

func problem(w http.ResponseWriter, status int, slug string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(api.Problem{Type: "/problems/" + slug, Title: http.StatusText(status), Status: status, Detail: "because"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// seqs follows a task's stream to its end.
func seqs(ctx context.Context, c *api.Client, o api.WatchOptions) (got []int64, err error) {
	for ev, err := range c.WatchTask(ctx, taskID, o) {
		if err != nil {
			return got, err
		}
		got = append(got, ev.Seq)
	}
	return got, nil
}
