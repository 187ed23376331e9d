package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// message is one Server-Sent Event as it came.
type message struct {
	event, id, retry string
	data             api.Event
}

// sse is an open stream.
type sse struct {
	t      testing.TB
	resp   *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

func (r *rig) stream(path string, headers ...string) *sse {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), maxTestWait)
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	s := &sse{t: r.t, resp: resp, lines: bufio.NewScanner(resp.Body), cancel: cancel}
	s.lines.Buffer(nil, 4<<20)
	r.t.Cleanup(s.close)
	return s
}

func (s *sse) close() {
	s.cancel()
	s.resp.Body.Close()
}

// next returns the next message that has more than comments; ok is false at
// the end of the stream.
func (s *sse) next() (m message, ok bool) {
	s.t.Helper()
	any := false
	for s.lines.Scan() {
		line := s.lines.Text()
		if line == "" {
			if any {
				return m, true
			}
			continue
		}
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "event":
			m.event = value
		case "id":
			m.id = value
		case "retry":
			m.retry = value
		case "data":
			if err := json.Unmarshal([]byte(value), &m.data); err != nil {
				if !s.lines.Scan() {
					return m, false // the connection was cut within the line
				}
				s.t.Fatalf("data: %v: %s", err, value)
			}
		case "":
			continue // a comment
		default:
			s.t.Fatalf("unexpected line %q", line)
		}
		any = true
	}
	return m, false
}

// event returns the next message that is an event and fails at the end.
func (s *sse) event() message {
	s.t.Helper()
	for {
		m, ok := s.next()
		if !ok {
			s.t.Fatalf("the stream ended: %v", s.lines.Err())
		}
		if m.event != "" {
			return m
		}
	}
}

func (r *rig) patch(id, body string) {
	r.t.Helper()
	want[api.Task](r, 200, "PATCH", "/v1/tasks/"+id, body)
}

func TestANewFollowerGetsASnapshotThenWhatFollowsThenTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	r.patch(id, `{"status":"planning"}`)
	s := r.stream("/v1/tasks/" + id + "/stream")
	if h := s.resp.Header; s.resp.StatusCode != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") || h.Get("Cache-Control") != "no-store" || h.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("%d %v", s.resp.StatusCode, h)
	}
	if m, _ := s.next(); m.retry != "2000" {
		t.Errorf("first comes %+v", m)
	}
	m := s.event()
	var snap api.Task
	if err := json.Unmarshal(m.data.Data, &snap); err != nil || m.event != "snapshot" || m.id != "2" || snap.ID != id || snap.Status != api.TaskPlanning {
		t.Errorf("snapshot is %+v (%v)", m, err)
	}
	r.patch(id, `{"status":"running"}`)
	r.patch(id, `{"progress":50,"message":"half"}`)
	r.patch(id, `{"status":"completed"}`)
	for i, want := range []string{"status", "progress", "status"} {
		if m := s.event(); m.event != want || m.id != strconv.Itoa(i+3) || m.data.Seq != int64(i+3) || m.data.TaskID != id {
			t.Errorf("event %d is %+v", i, m)
		}
	}
	if m, ok := s.next(); ok {
		t.Errorf("after the terminal event came %+v", m)
	}
	if s = r.stream("/v1/tasks/"+id+"/stream", "Last-Event-ID", "5"); s.resp.StatusCode != 204 {
		t.Errorf("a follower that has seen all gets %d", s.resp.StatusCode)
	}
	if s = r.stream("/v1/tasks/"+id+"/stream", "Last-Event-ID", "99"); s.resp.StatusCode != 204 {
		t.Errorf("a follower beyond the end gets %d", s.resp.StatusCode)
	}
	s = r.stream("/v1/tasks/" + id + "/stream")
	if m := s.event(); m.event != "snapshot" || m.id != "5" {
		t.Errorf("a new follower of a finished task gets %+v", m)
	}
	if m, ok := s.next(); ok {
		t.Errorf("after the snapshot of a finished task came %+v", m)
	}
}

func TestAFollowerResumesWhereItWas(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	r.patch(id, `{"status":"planning"}`)
	r.patch(id, `{"status":"running"}`)
	path := "/v1/tasks/" + id + "/stream"
	for name, s := range map[string]*sse{
		"header":      r.stream(path, "Last-Event-ID", "1"),
		"query":       r.stream(path + "?after=1"),
		"header wins": r.stream(path+"?after=2", "Last-Event-ID", "1"),
	} {
		for _, want := range []string{"2", "3"} {
			if m := s.event(); m.id != want {
				t.Errorf("%s: got %+v, want event %s", name, m, want)
			}
		}
	}
	if m := r.stream(path + "?after=0").event(); m.event != "status" || m.id != "1" {
		t.Errorf("a replay begins with %+v", m)
	}
	s := r.stream(path, "Last-Event-ID", "77")
	if m := s.event(); m.event != "reset" || m.id != "" {
		t.Errorf("an id from the future is answered with %+v", m)
	}
	if m := s.event(); m.event != "snapshot" || m.id != "3" {
		t.Errorf("after the reset comes %+v", m)
	}
	for _, bad := range []string{"-1", "x", "1.5", "99999999999999999999", "1-2"} {
		r.problem(422, "invalid", "GET", path, "", "Last-Event-ID", bad)
	}
	r.problem(404, "not-found", "GET", "/v1/tasks/"+uuid.NewString()+"/stream", "")
}

func TestNoFollowerMissesOrRepeatsAnEventHoweverWritersAndReconnectsInterleave(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	const followers, writers, writes = 6, 4, 50
	var reading sync.WaitGroup
	for f := range followers {
		reading.Go(func() {
			var seen int64
			for ended := false; !ended; {
				s := r.stream("/v1/tasks/"+id+"/stream", "Last-Event-ID", fmt.Sprint(seen))
				if seen == 0 {
					s = r.stream("/v1/tasks/" + id + "/stream?after=0")
				}
				for range 20 + 5*f { // then reconnect
					m, ok := s.next()
					if !ok {
						ended = true
						break
					}
					if m.event == "" {
						continue
					}
					if seen++; m.data.Seq != seen {
						t.Errorf("follower %d got event %d where %d was due", f, m.data.Seq, seen)
						return
					}
				}
				s.close()
			}
			if seen != writers*writes+4 {
				t.Errorf("follower %d saw %d events", f, seen)
			}
		})
	}
	r.patch(id, `{"status":"planning"}`)
	r.patch(id, `{"status":"running"}`)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := range writes {
				_, err := r.tasks.Update(context.Background(), anonymous.Anonymous, uuid.MustParse(id), task.Patch{Message: fmt.Sprint(w, ".", n)})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	r.patch(id, `{"status":"completed"}`)
	reading.Wait()
}

func TestAFarBehindFollowerIsCaughtUpFromTheDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	live := r.stream("/v1/tasks/" + id + "/stream") // keeps a tail of recent events
	live.event()
	for n := range 15 {
		for range 100 {
			if _, err := r.tasks.Update(t.Context(), anonymous.Anonymous, uuid.MustParse(id), task.Patch{Message: fmt.Sprint(n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := r.stream("/v1/tasks/" + id + "/stream?after=0")
	for want := int64(1); want <= 1501; want++ {
		if m := s.event(); m.data.Seq != want {
			t.Fatalf("got event %d, want %d", m.data.Seq, want)
		}
	}
}

func TestTheFirehoseSendsWhatTheFilterSelectsAndResumes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.stream("/v1/stream?label=a%3D1")
	first, ok := s.next()
	for ok && first.id == "" {
		first, ok = s.next()
	}
	if !ok || first.event != "" {
		t.Fatalf("a new follower is told its place first, got %+v", first)
	}
	other := r.manual()
	mine := r.submit(`{"description":"d","input":"i","dispatch":"manual","labels":{"a":"1"}}`)
	r.patch(other.ID, `{"status":"planning"}`)
	r.patch(mine.ID, `{"status":"planning"}`)
	one, two := s.event(), s.event()
	if one.data.TaskID != mine.ID || one.data.Seq != 1 || two.data.TaskID != mine.ID || two.data.Seq != 2 {
		t.Errorf("got %+v %+v", one, two)
	}
	if m := r.stream("/v1/stream?label=a%3D1", "Last-Event-ID", one.id).event(); m.id != two.id || m.data.Seq != 2 {
		t.Errorf("resumed with %+v", m)
	}
	if m := r.stream("/v1/stream", "Last-Event-ID", first.id).event(); m.data.TaskID != other.ID {
		t.Errorf("resumed from the first place with %+v", m)
	}
	all := r.stream("/v1/stream?after=0")
	for i, want := range []string{other.ID, mine.ID, other.ID, mine.ID} {
		if m := all.event(); m.data.TaskID != want {
			t.Errorf("event %d of the replay is %+v", i, m)
		}
	}
	if m := r.stream("/v1/stream", "Last-Event-ID", "zzzzzzzzz-0").event(); m.event != "reset" {
		t.Errorf("a place in the future is answered with %+v", m)
	}
	for _, bad := range []string{"x", "-1", "1", "1-", "-", "1-2-3", "1--1", "ZZ-1", "01-1"} {
		r.problem(422, "invalid", "GET", "/v1/stream", "", "Last-Event-ID", bad)
	}
}

func TestTheFirehoseSaysThatEventsArePastRetention(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.stream("/v1/stream")
	r.manual()
	gone := s.event()
	forgotten, _, err := r.tasks.Ends(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept := r.manual()
	last := s.event()
	if _, err := r.pool.Exec(t.Context(), `UPDATE task_log SET forgotten = ($1::text)::xid8`, strconv.FormatUint(forgotten.Tx-1, 10)); err != nil {
		t.Fatal(err)
	}
	again := r.stream("/v1/stream", "Last-Event-ID", gone.id)
	if m := again.event(); m.event != "reset" || m.id != "" {
		t.Errorf("a place past retention is answered with %+v", m)
	}
	place, ok := again.next()
	if !ok || place.id == "" || place.event != "" {
		t.Errorf("after the reset comes %+v, want a place", place)
	}
	later := r.manual()
	if m := again.event(); m.data.TaskID != later.ID {
		t.Errorf("then comes %+v", m)
	}
	if m := r.stream("/v1/stream", "Last-Event-ID", place.id).event(); m.event == "reset" || m.data.TaskID != later.ID {
		t.Errorf("resumed at the new place with %+v", m)
	}
	if m := r.stream("/v1/stream", "Last-Event-ID", last.id).event(); m.event == "reset" || m.data.TaskID != later.ID {
		t.Errorf("resumed at a place that was seen, with %+v", m)
	}
	if m := r.stream("/v1/stream?after=0").event(); m.event == "reset" {
		t.Errorf("a replay of all that is left, of %s among others, begins with %+v", kept.ID, m)
	}
}

func TestTwoServersSendTheSameStream(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	rigs := make([]*rig, 2)
	for i := range rigs {
		bus := stream.NewPostgres(pool, discard)
		running.Go(func() { _ = bus.Run(ctx) })
		rigs[i] = newRigWith(t, options{access: anonymous, pool: pool, bus: bus})
	}
	id := rigs[0].manual().ID
	s := rigs[1].stream("/v1/tasks/" + id + "/stream")
	s.event()
	all := rigs[1].stream("/v1/stream?after=0")
	all.event()
	for _, st := range []string{"planning", "running", "completed"} {
		rigs[0].patch(id, `{"status":"`+st+`"}`)
		if m := s.event(); string(m.data.Status) != st {
			t.Errorf("the other server's stream says %+v, want %s", m, st)
		}
		if m := all.event(); string(m.data.Status) != st {
			t.Errorf("the other server's firehose says %+v, want %s", m, st)
		}
	}
}

func TestATaskHasOneStreamHoweverItsIDIsSpelt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	upper := r.stream("/v1/tasks/" + strings.ToUpper(id) + "/stream?after=0")
	lower := r.stream("/v1/tasks/" + id + "/stream?after=0")
	r.patch(id, `{"status":"planning"}`)
	for want := int64(1); want <= 2; want++ {
		for _, s := range []*sse{upper, lower} {
			if m := s.event(); m.data.Seq != want || m.data.TaskID != id {
				t.Errorf("got %+v, want event %d", m, want)
			}
		}
	}
}

func TestWhoReplaysAllHoldsNobodyElseUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.pool.Exec(t.Context(), `
		WITH t AS (
			INSERT INTO tasks (id, status, description, input, agent_id, user_id, dispatch, claimable, created_at, updated_at, last_seq, last_txid)
			VALUES (gen_random_uuid(), 'pending', 'd', 'i', 'a', 'local', 'manual', false, now(), now(), 50000, pg_current_xact_id()) RETURNING *)
		INSERT INTO task_events (task_id, seq, txid, created_at, type, status)
		SELECT id, n, last_txid, created_at, 'log', 'pending' FROM t, generate_series(1, 50000) n`)
	if err != nil {
		t.Fatal(err)
	}
	r.stream("/v1/stream?after=0").event()
	live := r.stream("/v1/stream")
	if m, ok := live.next(); !ok || m.event != "" {
		t.Fatalf("a new follower is told its place first, got %+v", m)
	}
	id := r.manual().ID
	for {
		m := live.event()
		if m.data.TaskID == id {
			break
		}
		t.Fatalf("the live follower was sent history: %+v", m)
	}
}

func TestStreamsEndWhenTheServerStops(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.stream("/v1/tasks/" + r.manual().ID + "/stream")
	s.event()
	r.http.EndStreams()
	m, ok := s.next()
	if wait, err := strconv.Atoi(m.retry); !ok || err != nil || wait < 1000 || wait > 3000 {
		t.Errorf("the last words are %+v", m)
	}
	if m, ok := s.next(); ok {
		t.Errorf("after the last words came %+v", m)
	}
	r.problem(503, "stopping", "GET", "/readyz", "")
}

// openStreams waits until as many streams are open.
func (r *rig) openStreams(n int) {
	r.t.Helper()
	for deadline := time.Now().Add(maxTestWait); ; {
		_, text := r.do("GET", "/metrics", "")
		if strings.Contains(text, fmt.Sprintf("\ncoderclaw_open_streams %d\n", n)) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("there never were %d open streams", n)
		}
	}
}

func TestAFollowerThatLeavesLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	for range 20 {
		s := r.stream("/v1/tasks/" + id + "/stream")
		s.event()
		s.close()
	}
	r.openStreams(0)
}

func TestStreamsNeedThePermissionToRead(t *testing.T) {
	t.Parallel()
	access := anonymous
	access.Anonymous.Roles = []policy.Role{}
	r := newRigWith(t, options{access: access})
	r.problem(403, "forbidden", "GET", "/v1/stream", "")
	r.problem(403, "forbidden", "GET", "/v1/tasks/"+uuid.NewString()+"/stream", "")
}

func TestAFollowerThatDoesNotReadHoldsNobodyUpAndIsDisconnected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.http.SetWriteTimeout(200 * time.Millisecond)
	id := r.manual().ID
	stuck := r.stream("/v1/tasks/" + id + "/stream")
	stuck.event()                         // and then reads no more
	for range 4 * runtime.GOMAXPROCS(0) { // more than may send at once
		r.stream("/v1/tasks/" + id + "/stream").event()
	}
	attentive := r.stream("/v1/tasks/" + id + "/stream")
	attentive.event()
	line := strings.Repeat("x", task.MaxMessageBytes)
	const lines = 1000 // far more than the sockets' buffers hold
	var writing sync.WaitGroup
	writing.Go(func() {
		for range lines {
			if _, err := r.tasks.Update(context.Background(), anonymous.Anonymous, uuid.MustParse(id), task.Patch{Message: line}); err != nil {
				t.Error(err)
			}
		}
	})
	for want := int64(2); want <= lines+1; want++ {
		if m := attentive.event(); m.data.Seq != want {
			t.Fatalf("got event %d, want %d", m.data.Seq, want)
		}
	}
	writing.Wait()
	r.openStreams(1) // the stuck one is gone
	seen := int64(1)
	for m, ok := stuck.next(); ok; m, ok = stuck.next() {
		if seen++; m.data.Seq != seen {
			t.Fatalf("the stuck follower got event %d where %d was due", m.data.Seq, seen)
		}
	}
	if seen >= lines {
		t.Error("the follower was not stuck at all")
	}
	stuck.close()
	if m := r.stream("/v1/tasks/"+id+"/stream", "Last-Event-ID", fmt.Sprint(seen)).event(); m.data.Seq != seen+1 {
		t.Errorf("resumed with event %d, want %d", m.data.Seq, seen+1)
	}
}
