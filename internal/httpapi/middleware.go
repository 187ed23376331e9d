package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/coderclaw/runtime/internal/identity"
)

type contextKey int

const (
	requestKey contextKey = iota
	callerKey
)

// request is what goes along with each request.
type request struct {
	id string
	// origin is where it comes from, and peerKey what limits go by.
	origin  identity.Origin
	peerKey string
	// stream, if a handler sets it, sends the answer once the handler has
	// returned. Thousands of streams wait at the same time, and within a
	// handler each would keep its deep stack.
	stream func(http.ResponseWriter, *http.Request)
}

func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey).(*request)
	return r
}

// RequestID returns the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	if r := requestOf(ctx); r != nil {
		return r.id
	}
	return ""
}

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// admit gives each answer the headers that suit all, and keeps out what no route
// is to see.
func (s *Server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := unprintable(r); p != nil {
			writeProblem(w, r, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// named gives the request an id: the name that a proxy before us has given it
// if that is harmless.
func named(w http.ResponseWriter, r *http.Request) *http.Request {
	id := r.Header.Get("X-Request-Id")
	if !requestIDForm.MatchString(id) {
		id = newRequestID()
	}
	w.Header().Set("X-Request-Id", id)
	return r.WithContext(context.WithValue(r.Context(), requestKey, &request{id: id}))
}

func newRequestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

const (
	// readTimeout is how long a request may take to arrive.
	readTimeout = 30 * time.Second
	// answerTimeout is how long it may take until the client has its answer,
	// for which invokeAgent may wait a minute.
	answerTimeout = 90 * time.Second
)

// observe names, bounds, logs and measures each request and answers for handlers
// that panic.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		r = named(w, r)
		// Streams replace these by their own; recorders in tests have none.
		deadline := http.NewResponseController(w)
		_ = deadline.SetReadDeadline(start.Add(readTimeout))
		_ = deadline.SetWriteDeadline(start.Add(answerTimeout))
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				s.log.ErrorContext(r.Context(), "handler panicked", "panic", p, "stack", string(debug.Stack()))
				if ww.Status() == 0 {
					writeProblem(ww, r, newProblem(http.StatusInternalServerError, "",
						"something went wrong on our side; the log has the details under the request id"))
				}
			}
			route := chi.RouteContext(r.Context()).RoutePattern()
			s.metrics.request(r.Method, route, ww.Status(), time.Since(start), ww.Header().Get("Content-Type"))
			s.log.LogAttrs(r.Context(), slog.LevelDebug, "request",
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", ww.Status()),
				slog.Int("bytes", ww.BytesWritten()), slog.Duration("took", time.Since(start)), slog.String("from", r.RemoteAddr))
		}()
		next.ServeHTTP(ww, r)
		if stream := requestOf(r.Context()).stream; stream != nil {
			stream(ww, r)
		}
	})
}

// unprintable keeps NUL and broken UTF-8 from the database, which would refuse
// them with an error of its own.
func unprintable(r *http.Request) *Problem {
	query, err := url.QueryUnescape(r.URL.RawQuery)
	if err != nil || !printable(query) || !printable(r.URL.Path) {
		return newProblem(http.StatusBadRequest, "", "the URL must be valid UTF-8 without U+0000")
	}
	return nil
}

func printable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }
