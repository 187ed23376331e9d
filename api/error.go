package api

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxProblem bounds what is read of an error answer's body.
const maxProblem = 64 << 10

// Error is an answer of the server that is not a success. Where the answer's
// body was no problem document (a proxy answered, for example), the Problem is
// made up from the HTTP status.
type Error struct {
	Problem
	// RetryAfter is how long the server asks to wait before the next attempt; 0
	// if it does not say.
	RetryAfter time.Duration
}

// Error returns the problem's detail and, as far as it leaves them out, its
// faulty fields on one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	if e.Detail == "" {
		b.WriteString(e.Title)
	}
	separator := ": "
	for _, f := range e.Errors {
		if strings.Contains(e.Detail, f.Location) && strings.Contains(e.Detail, f.Message) {
			continue
		}
		fmt.Fprintf(&b, "%s%s: %s", separator, f.Location, f.Message)
		separator = "; "
	}
	fmt.Fprintf(&b, " (%d", e.Status)
	if slug := e.Slug(); slug != "" {
		b.WriteString(" " + slug)
	}
	b.WriteByte(')')
	return b.String()
}

// Slug returns the stable name of the kind of problem, such as "not-found" or
// "invalid-transition"; "" when the answer did not come from a CoderClaw
// server.
func (e *Error) Slug() string {
	_, slug, _ := strings.Cut(e.Type, "/problems/")
	return slug
}

// temporary reports whether the same request may succeed later. These statuses
// say that the server, or a proxy before it, did not do the work.
func (e *Error) temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func errorFrom(res *http.Response) *Error {
	e := &Error{RetryAfter: retryAfter(res.Header.Get("Retry-After"))}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem)) // what arrived before a failure is better than nothing
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind != "application/problem+json" || json.Unmarshal(body, &e.Problem) != nil {
		e.Problem = Problem{Type: "about:blank", Title: http.StatusText(res.StatusCode)}
		switch {
		case res.StatusCode/100 == 3:
			e.Detail = "the server is elsewhere: " + res.Header.Get("Location")
		case kind == "text/plain":
			line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
			e.Detail = strings.ToValidUTF8(line[:min(len(line), 300)], "")
		}
	}
	if e.Title == "" {
		e.Title = "HTTP status " + strconv.Itoa(res.StatusCode)
	}
	e.Status = res.StatusCode
	return e
}

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 86400)) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(time.Until(at), 0)
}
