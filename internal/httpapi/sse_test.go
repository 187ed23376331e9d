package httpapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A stream that waits holds little: its connection is not net/http's any more,
// whose buffers and goroutines it does not need.
func TestAStreamThatWaitsIsSmall(t *testing.T) { // not parallel: it looks at the whole process
	r := newRig(t)
	id := r.manual().ID
	const streams = 300
	inUse := func() int64 {
		runtime.GC()
		runtime.GC() // stacks shrink in the one and are free after the other
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	r.dialStream(id, "1.1") // what the first one needs the others share
	before, goroutines := inUse(), runtime.NumGoroutine()
	for range streams {
		r.dialStream(id, "1.1")
	}
	r.openStreams(streams + 1)
	const most = 20 << 10
	for deadline := time.Now().Add(maxTestWait); ; {
		// The goroutines that served the requests end in their own time.
		each := (inUse() - before) / streams
		if each < most && runtime.NumGoroutine()-goroutines < streams*3/2 {
			t.Logf("%d bytes each, with the client's end", each)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a stream that waits takes %d bytes and %.1f goroutines", each, float64(runtime.NumGoroutine()-goroutines)/streams)
		}
	}
}

// dialStream opens a stream of a task, on a connection of its own until the test
// ends, and reads up to the snapshot.
func (r *rig) dialStream(id, version string) *http.Response {
	r.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(r.t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "GET /v1/tasks/%s/stream HTTP/%s\r\nHost: localhost\r\n\r\n", id, version); err != nil {
		r.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for text := []byte{}; !bytes.Contains(text, []byte("event: snapshot")); {
		var b [4096]byte
		n, err := res.Body.Read(b[:])
		if text = append(text, b[:n]...); err != nil {
			r.t.Fatalf("%s: %q, %v", res.Status, text, err)
		}
	}
	return res
}

// Whoever understands no chunks gets the stream as it is, up to the end of the
// connection (RFC 9112, section 6.3).
func TestAStreamSuitsTheVersionOfHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for version, chunked := range map[string]bool{"1.0": false, "1.1": true} {
		id := r.manual().ID
		res := r.dialStream(id, version)
		if got := len(res.TransferEncoding) > 0; got != chunked || !res.Close || res.Header.Get("X-Request-Id") == "" || res.Header.Get("Date") == "" {
			t.Errorf("HTTP/%s: %v %v", version, res.TransferEncoding, res.Header)
		}
		r.patch(id, `{"status":"failed"}`)
		rest, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(rest), `"status":"failed"`) {
			t.Errorf("HTTP/%s: the stream ends with %v after %q", version, err, rest)
		}
	}
	secure := httptest.NewUnstartedServer(r.http)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := secure.Client().Transport.(*http.Transport).Clone()
	plain.ForceAttemptHTTP2, plain.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
	t.Cleanup(plain.CloseIdleConnections)
	for version, client := range map[int]*http.Client{2: secure.Client(), 1: {Transport: plain}} {
		id := r.manual().ID
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, secure.URL+"/v1/tasks/"+id+"/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.patch(id, `{"status":"planning"}`)
		r.patch(id, `{"status":"failed"}`)
		all, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.ProtoMajor != version || !strings.Contains(string(all), "snapshot") || !strings.Contains(string(all), `"status":"failed"`) {
			t.Errorf("HTTP/%d over TLS: %v, %q", res.ProtoMajor, err, all)
		}
	}
	r.openStreams(0)
}
