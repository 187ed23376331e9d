package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

type contextKey int

const (
	requestIDKey contextKey = iota
	callerKey
)

// RequestID returns the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// withRequestID names each request, by the name that a proxy before us has
// given it if that is harmless.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !requestIDForm.MatchString(id) {
			var b [8]byte
			_, _ = rand.Read(b[:]) // never fails
			id = hex.EncodeToString(b[:])
		}
		w.Header().Set("X-Request-Id", id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey, id)))
	})
}

// observe logs and measures each request and answers for handlers that panic.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
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
	})
}

// securityHeaders are those that suit every answer of an API.
func securityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// refuseUnprintableURLs keeps NUL and broken UTF-8 from the database, which
// would refuse them with an error of its own.
func refuseUnprintableURLs(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := url.QueryUnescape(r.URL.RawQuery)
		if err != nil || !printable(query) || !printable(r.URL.Path) {
			writeProblem(w, r, newProblem(http.StatusBadRequest, "", "the URL must be valid UTF-8 without U+0000"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func printable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// guardLoopback is for servers that ask for no credential: only requests that
// are meant for this machine's own address are served, and none that another
// site's page sends (DNS rebinding, cross-site requests).
func guardLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackHost(r.Host) {
			writeProblem(w, r, newProblem(http.StatusForbidden, "forbidden-host",
				"this server asks for no credential and so answers to loopback names only"))
			return
		}
		origin := r.Header.Get("Origin")
		site := r.Header.Get("Sec-Fetch-Site")
		// A link that the user follows is a cross-site navigation without an
		// Origin; it can read, in a window of its own, but not change anything.
		navigation := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Method == http.MethodGet && origin == ""
		if origin != "" && origin != "http://"+r.Host || (site == "cross-site" || site == "same-site") && !navigation {
			writeProblem(w, r, newProblem(http.StatusForbidden, "forbidden-origin",
				"this server asks for no credential and so serves no page of another origin"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
