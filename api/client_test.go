package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
)

func TestNewClientRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "127.0.0.1:7433", "localhost", "ftp://x", "http://", "http://u:secret@x", "http://x?a=b", "http://x#y", "http://x:y:z"} {
		_, err := api.NewClient(address)
		if err == nil {
			t.Errorf("%q was accepted", address)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v shows the password", address, err)
		}
	}
	if _, err := api.NewClient("http://x", api.WithToken("se\ncret")); err == nil || strings.Contains(err.Error(), "cret") {
		t.Errorf("a token of two lines gave %v", err)
	}
}

func TestClientSpeaksOverASocketFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "claw.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, api.Status{Mode: r.Host + r.URL.Path})
	})}
	defer srv.Close()
	go srv.Serve(l)
	st, err := newClient(t, "unix:"+path).Status(t.Context())
	if err != nil || st.Mode != "localhost/v1/status" {
		t.Fatalf("got %+v, %v", st, err)
	}
}

func TestClientSendsWhatTheContractSays(t *testing.T) {
	t.Parallel()
	var got string
	reply := map[string]string{
		"GET /root/v1/agents": `{"items":[{"id":"a"}]}`, "GET /root/v1/skills": `{"items":[{"id":"s"}]}`,
		"POST /root/v1/tasks/batch": `{"items":[{"id":"1"},{"id":"2"}]}`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = strings.Join([]string{r.Method, r.URL.RequestURI(), r.Header.Get("Lease-Token"), string(body)}, " ")
		if r.Header.Get("Authorization") != "Bearer t0ken" || r.Header.Get("User-Agent") != "test/1" {
			t.Errorf("headers: %v", r.Header)
		}
		if (r.Header.Get("Idempotency-Key") != "") != (r.Method == "POST" && !strings.HasSuffix(r.URL.Path, "/cancel")) {
			t.Errorf("%s %s has Idempotency-Key %q", r.Method, r.URL, r.Header.Get("Idempotency-Key"))
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		if text, ok := reply[r.Method+" "+r.URL.Path]; ok {
			fmt.Fprint(w, text)
		} else {
			fmt.Fprint(w, `{"id":"x","unknownToThisClient":1}`)
		}
	}))
	defer srv.Close()
	c := newClient(t, srv.URL+"/root/", api.WithToken("t0ken"), api.WithUserAgent("test/1"))
	ctx := t.Context()
	ten := 10
	for _, tc := range []struct {
		call func() (any, error)
		want string
	}{
		{func() (any, error) { return c.SubmitTask(ctx, api.NewTask{Description: "d", Input: "i"}) }, `POST /root/v1/tasks  {"description":"d","input":"i"}`},
		{func() (any, error) { return c.SubmitTasks(ctx, []api.NewTask{{Description: "d"}}) }, `POST /root/v1/tasks/batch  {"tasks":[{"description":"d","input":""}]}`},
		{func() (any, error) { return c.Task(ctx, "a/b c") }, `GET /root/v1/tasks/a%2Fb%20c  `},
		{func() (any, error) {
			return c.Tasks(ctx, api.TaskFilter{Status: []api.TaskStatus{"running", "waiting"}, AgentID: "a", SessionID: "s", ProjectID: "p", ParentTaskID: "t",
				Labels: map[string]string{"k": "v=1", "b": ""}, CreatedAfter: start, Query: "x y", Limit: 5, Cursor: "c+"})
		}, `GET /root/v1/tasks?agentId=a&createdAfter=2026-11-23T09%3A00%3A00Z&cursor=c%2B&label=b%3D&label=k%3Dv%3D1&limit=5&parentTaskId=t&projectId=p&q=x+y&sessionId=s&status=running&status=waiting  `},
		{func() (any, error) { return c.UpdateTask(ctx, "x", api.TaskPatch{Progress: &ten}) }, `PATCH /root/v1/tasks/x  {"progress":10}`},
		{func() (any, error) {
			return c.UpdateTask(ctx, "x", api.TaskPatch{Message: "m"}, api.WithLeaseToken("lease"))
		}, `PATCH /root/v1/tasks/x lease {"message":"m"}`},
		{func() (any, error) { return c.CancelTask(ctx, "x") }, `POST /root/v1/tasks/x/cancel  `},
		{func() (any, error) { return c.Agents(ctx) }, `GET /root/v1/agents  `},
		{func() (any, error) { return c.Agent(ctx, "x") }, `GET /root/v1/agents/x  `},
		{func() (any, error) {
			return c.PutAgent(ctx, "x", api.AgentDefinition{Description: "d", Executor: api.ExecutorBuiltin})
		}, `PUT /root/v1/agents/x  {"description":"d","executor":"builtin"}`},
		{func() (any, error) { return nil, c.DeleteAgent(ctx, "x") }, `DELETE /root/v1/agents/x  `},
		{func() (any, error) { return c.Skills(ctx) }, `GET /root/v1/skills  `},
		{func() (any, error) { return c.Skill(ctx, "x") }, `GET /root/v1/skills/x  `},
		{func() (any, error) { return nil, c.DeleteSkill(ctx, "x") }, `DELETE /root/v1/skills/x  `},
		{func() (any, error) { return c.Status(ctx) }, `GET /root/v1/status  `},
		{func() (any, error) { return c.Me(ctx) }, `GET /root/v1/me  `},
	} {
		if _, err := tc.call(); err != nil || got != tc.want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, tc.want)
		}
	}
}

func TestClientRefusesIdsThatNameAnotherResource(t *testing.T) {
	t.Parallel()
	c := newClient(t, "http://127.0.0.1:1")
	for _, id := range []string{"", ".", ".."} {
		_, getErr := c.Task(t.Context(), id)
		_, cancelErr := c.CancelTask(t.Context(), id)
		var watchErr error
		for _, watchErr = range c.WatchTask(t.Context(), id, all) {
		}
		if getErr == nil || cancelErr == nil || watchErr == nil {
			t.Errorf("%q: %v, %v, %v", id, getErr, cancelErr, watchErr)
		}
	}
}

func TestAllTasksAsksForPageAfterPage(t *testing.T) {
	t.Parallel()
	var asked []string
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
		asked = append(asked, r.URL.RawQuery)
		page := api.TaskList{Items: []api.Task{{ID: strconv.Itoa(2 * at)}, {ID: strconv.Itoa(2*at + 1)}}}
		if at < 2 {
			page.NextCursor = strconv.Itoa(at + 1)
		}
		writeJSON(w, http.StatusOK, page)
	}))
	var got []string
	for task, err := range c.AllTasks(t.Context(), api.TaskFilter{Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, task.ID)
	}
	if !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5"}) || !slices.Equal(asked, []string{"limit=2", "cursor=1&limit=2", "cursor=2&limit=2"}) {
		t.Fatalf("got %q, asked %q", got, asked)
	}
	for range c.AllTasks(t.Context(), api.TaskFilter{Limit: 2}) {
		break
	}
	if len(asked) != 4 {
		t.Fatalf("asked %q", asked)
	}
}

func TestListsEndWhenAPageNamesItselfAsTheNext(t *testing.T) {
	t.Parallel()
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, api.EventList{Items: history(1), NextCursor: "c"})
	}))
	n := 0
	var last error
	for _, err := range c.TaskEvents(t.Context(), taskID) {
		n, last = n+1, err
	}
	if n != 3 || last == nil {
		t.Fatalf("%d rounds, %v", n, last)
	}
}

// failing answers with each of the statuses and then with success.
type failing struct {
	statuses []int
	mu       sync.Mutex
	keys     []string
	bodies   []string
}

func (f *failing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	n := len(f.keys)
	f.keys = append(f.keys, r.Header.Get("Idempotency-Key"))
	f.bodies = append(f.bodies, string(body))
	f.mu.Unlock()
	switch {
	case n >= len(f.statuses):
		writeJSON(w, http.StatusCreated, api.Task{ID: taskID})
	case f.statuses[n] == 0:
		panic(http.ErrAbortHandler)
	case f.statuses[n] == 1: // the answer breaks off
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, `{"id":`)
		panic(http.ErrAbortHandler)
	default:
		problem(w, f.statuses[n], "unavailable")
	}
}

func TestSubmitIsRepeatedUnderOneKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &failing{statuses: []int{503, 0, 429, 1, 502, 504}}
		c := inMemory(t, f)
		task, err := c.SubmitTask(t.Context(), api.NewTask{Description: "d", Input: "i"})
		if err != nil || task.ID != taskID {
			t.Fatalf("got %v, %v", task, err)
		}
		if _, err := c.SubmitTask(t.Context(), api.NewTask{Description: "d", Input: "i"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.SubmitTask(t.Context(), api.NewTask{Description: "d", Input: "i"}, api.WithIdempotencyKey("mine")); err != nil {
			t.Fatal(err)
		}
		n := len(f.keys) - 3
		first, rest := f.keys[:n+1], f.keys[n+1:]
		if n < len(f.statuses) || len(slices.Compact(slices.Clone(first))) != 1 || len(first[0]) < 20 || rest[0] == first[0] || rest[1] != "mine" {
			t.Fatalf("keys: %q", f.keys)
		}
		if len(slices.Compact(f.bodies)) != 1 {
			t.Fatalf("bodies: %q", f.bodies)
		}
	})
}

func TestCallsAreRepeatedOnlyWhereThatIsSafe(t *testing.T) {
	t.Parallel()
	type calls = func(context.Context, *api.Client) error
	update := func(ctx context.Context, c *api.Client) error {
		_, err := c.UpdateTask(ctx, taskID, api.TaskPatch{})
		return err
	}
	cancel := func(ctx context.Context, c *api.Client) error { _, err := c.CancelTask(ctx, taskID); return err }
	get := func(ctx context.Context, c *api.Client) error { _, err := c.Task(ctx, taskID); return err }
	for name, tc := range map[string]struct {
		call     calls
		statuses []int
		want     int
	}{
		"a read after any failure":                {get, []int{503, 0, 1, 502}, 5},
		"no read after an answer":                 {get, []int{500}, 1},
		"no update that was answered":             {update, []int{503}, 1},
		"no update that may have arrived":         {update, []int{0}, 1},
		"no update whose answer broke off":        {update, []int{1}, 1},
		"no cancellation that may have arrived":   {cancel, []int{0}, 1},
		"no more than so often, then it gives up": {get, []int{503, 503, 503, 503, 503, 503, 503, 503}, 7},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &failing{statuses: tc.statuses}
			err := tc.call(t.Context(), inMemory(t, f))
			if len(f.keys) != tc.want || (err == nil) != (tc.want > len(tc.statuses)) {
				t.Errorf("%s: %d requests, %v", name, len(f.keys), err)
			}
		})
	}
}

func TestUpdateIsRepeatedWhenItSurelyDidNotLeave(t *testing.T) {
	t.Parallel()
	f := &failing{}
	srv := httptest.NewServer(f)
	defer srv.Close()
	var dials atomic.Int32
	dialer := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials.Add(1) < 3 {
			return nil, errors.New("connection refused")
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	c := newClient(t, srv.URL, api.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dialer}}))
	if _, err := c.UpdateTask(t.Context(), taskID, api.TaskPatch{}); err != nil || dials.Load() != 3 || len(f.keys) != 1 {
		t.Fatalf("%v after %d dials, %d requests", err, dials.Load(), len(f.keys))
	}
}

func TestRetryAfterIsHonouredWithinReason(t *testing.T) {
	t.Parallel()
	for value, tc := range map[string]struct {
		from, to time.Duration
		tries    int
	}{
		"3":                             {3 * time.Second, 5 * time.Second, 2},
		"90":                            {0, 0, 1},
		"Sat, 01 Jan 2000 00:00:10 GMT": {10 * time.Second, 16 * time.Second, 2}, // a bubble's clock starts at midnight
	} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			c := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tries++; tries > 1 {
					writeJSON(w, http.StatusOK, api.Status{})
					return
				}
				w.Header().Set("Retry-After", value)
				problem(w, http.StatusTooManyRequests, "too-many")
			}))
			began := time.Now()
			_, err := c.Status(t.Context())
			took := time.Since(began)
			var answer *api.Error
			if took < tc.from || took > tc.to || tries != tc.tries || (err != nil) != (tries == 1) {
				t.Errorf("Retry-After: %s: %d tries in %v, %v", value, tries, took, err)
			}
			if errors.As(err, &answer) && answer.RetryAfter != 90*time.Second {
				t.Errorf("Retry-After: %s read as %v", value, answer.RetryAfter)
			}
		})
	}
}

func TestCallsTellTheReasonRatherThanADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := inMemory(t, &failing{statuses: []int{503, 503, 503, 503, 503, 503, 503}}).Task(ctx, taskID)
		var answer *api.Error
		if !errors.As(err, &answer) || answer.Status != 503 || ctx.Err() != nil {
			t.Fatalf("got %v", err)
		}
	})
}

func TestErrorsKeepTheProblemOrMakeOneUp(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		contentType, body string
		status            int
		slug, text        string
	}{
		"a problem": {"application/problem+json", `{"type":"/problems/invalid","title":"Unprocessable Entity","status":422,"detail":"validation failed","errors":[{"location":"body.description","message":"too short"},{"location":"body.priority","message":"too high"}]}`, 422,
			"invalid", "validation failed: body.description: too short; body.priority: too high (422 invalid)"},
		"a problem whose detail names its field": {"application/problem+json", `{"type":"/problems/invalid","title":"Unprocessable Entity","status":422,"detail":"path.id must be a UUID","errors":[{"location":"path.id","message":"must be a UUID"}]}`, 422, "invalid", "path.id must be a UUID (422 invalid)"},
		"a problem without detail":               {"application/problem+json; charset=utf-8", `{"type":"https://claw.example/problems/not-found","title":"Not Found","status":404}`, 404, "not-found", "Not Found (404 not-found)"},
		"a page of a proxy":                      {"text/html", "<h1>413 Request Entity Too Large</h1>", 413, "", "Request Entity Too Large (413)"},
		"a line of text":                         {"text/plain", "no such host\nat all\n", 421, "", "no such host (421)"},
		"a broken problem":                       {"application/problem+json", `{"type":`, 400, "", "Bad Request (400)"},
		"a status without a name":                {"", "", 499, "", "HTTP status 499 (499)"},
		"a body without end":                     {"text/plain", strings.Repeat("x", 1<<20), 400, "", strings.Repeat("x", 300) + " (400)"},
	} {
		c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tc.contentType)
			w.WriteHeader(tc.status)
			io.WriteString(w, tc.body)
		}))
		_, err := c.Task(t.Context(), taskID)
		var answer *api.Error
		if !errors.As(err, &answer) || answer.Status != tc.status || answer.Slug() != tc.slug || err.Error() != tc.text {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestClientDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	c := onSocket(t, http.RedirectHandler("https://claw.example/v1/status", http.StatusMovedPermanently))
	_, err := c.Status(t.Context())
	if err == nil || err.Error() != "the server is elsewhere: https://claw.example/v1/status (301)" {
		t.Fatalf("got %v", err)
	}
}

func TestClientTellsAnotherServerApart(t *testing.T) {
	t.Parallel()
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>welcome") }))
	_, err := c.Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), `no CoderClaw server: it answered with "text/html"`) {
		t.Fatalf("got %v", err)
	}
}

func TestClientDoesNotInsistOnAnUntrustedCertificate(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	var conns atomic.Int32
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	c := newClient(t, srv.URL)
	_, err := c.Status(t.Context())
	_, watchErr := seqs(t.Context(), c, api.WatchOptions{})
	if err == nil || watchErr == nil || conns.Load() != 2 {
		t.Fatalf("%v, %v after %d connections", err, watchErr, conns.Load())
	}
}
