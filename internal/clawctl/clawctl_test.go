package clawctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

const (
	taskID  = "019ac5b0-7c00-7000-8000-000000000001"
	otherID = "019ac5b0-7c00-7000-8000-000000000002"
)

var now = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// evil is what a task says that wants more than to be read: it moves the
// cursor, colours, sets the title, reorders text and hides some.
const evil = "\x1b[2J\x1b[31mred\x1b[0m \x1b]0;title\x07\u202edetrever\u202c \u009b31m\a\x1b]52;c;ZXZpbA"

// tame is what is left of it.
const tame = "red �detrever� �31m��]52;c;ZXZpbA"

// fakeServer speaks the contract on a socket. What it holds is set before the
// first request.
type fakeServer struct {
	url    string
	tasks  []api.Task // newest first
	events []api.Event
	agents []api.Agent
	skills []api.Skill
	status api.Status
	// stream answers stream requests; without it the events are sent.
	stream http.HandlerFunc

	mu        sync.Mutex
	calls     []string // method, path and query, body
	questions []api.Question
	answered  chan struct{} // holds an element for each answer
}

// put replaces the open questions.
func (s *fakeServer) put(questions ...api.Question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.questions = questions
}

func newServer(t *testing.T) *fakeServer {
	s := &fakeServer{answered: make(chan struct{}, 10)}
	mux := http.NewServeMux()
	answer := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, v) }
	}
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { answer(s.status)(w, r) })
	mux.HandleFunc("GET /v1/agents", func(w http.ResponseWriter, r *http.Request) { answer(api.AgentList{Items: s.agents})(w, r) })
	mux.HandleFunc("GET /v1/agents/{id}", func(w http.ResponseWriter, r *http.Request) { answer(s.agents[0])(w, r) })
	mux.HandleFunc("GET /v1/skills", func(w http.ResponseWriter, r *http.Request) { answer(api.SkillList{Items: s.skills})(w, r) })
	mux.HandleFunc("GET /v1/skills/{id}", func(w http.ResponseWriter, r *http.Request) { answer(s.skills[0])(w, r) })
	mux.HandleFunc("GET /v1/tasks", func(w http.ResponseWriter, r *http.Request) { answer(api.TaskList{Items: s.tasks})(w, r) })
	mux.HandleFunc("POST /v1/tasks", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusCreated, s.tasks[0]) })
	mux.HandleFunc("GET /v1/tasks/{id}/events", func(w http.ResponseWriter, r *http.Request) { answer(api.EventList{Items: s.events})(w, r) })
	mux.HandleFunc("GET /v1/tasks/{id}/stream", func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r) })
	mux.HandleFunc("GET /v1/stream", func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r) })
	mux.HandleFunc("GET /v1/tasks/{id}", func(w http.ResponseWriter, r *http.Request) {
		for _, task := range s.tasks {
			if task.ID == r.PathValue("id") {
				answer(task)(w, r)
				return
			}
		}
		problem(w, http.StatusNotFound, "not-found", "no task "+r.PathValue("id"))
	})
	mux.HandleFunc("GET /v1/approvals", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer(api.QuestionList{Items: s.questions})(w, r)
	})
	mux.HandleFunc("POST /v1/approvals/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		refused := strings.Contains(s.calls[len(s.calls)-1], `"raiseBy":"nothing"`)
		s.mu.Unlock()
		if refused {
			problem(w, http.StatusUnprocessableEntity, "invalid", "that is no figure")
			return
		}
		s.put()
		s.answered <- struct{}{}
		answer(api.Question{ID: r.PathValue("id"), Status: api.QuestionApproved})(w, r)
	})
	mux.HandleFunc("POST /v1/tasks/{id}/cancel", func(w http.ResponseWriter, r *http.Request) {
		for _, task := range s.tasks {
			if task.ID == r.PathValue("id") && task.Status.Terminal() {
				problem(w, http.StatusConflict, "invalid-transition", "task "+task.ID+" is "+string(task.Status)+", which is final")
				return
			} else if task.ID == r.PathValue("id") {
				task.Status = api.TaskCancelled
				answer(task)(w, r)
				return
			}
		}
		problem(w, http.StatusNotFound, "not-found", "no task "+r.PathValue("id"))
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.calls = append(s.calls, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		s.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *fakeServer) serveStream(w http.ResponseWriter, r *http.Request) {
	if s.stream != nil {
		s.stream(w, r)
		return
	}
	send(w, s.events...)
}

func send(w http.ResponseWriter, events ...api.Event) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, ev := range events {
		data, err := json.Marshal(ev)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, "event: %s\nid: %d\ndata: %s\n\n", ev.Type, ev.Seq, data)
	}
	http.NewResponseController(w).Flush()
}

func problem(w http.ResponseWriter, status int, slug, detail string, fields ...api.ProblemField) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(api.Problem{Type: "/problems/" + slug, Title: http.StatusText(status), Status: status, Detail: detail, Errors: fields, RequestID: "req-1"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// result is what a run of clawctl left behind.
type result struct {
	code           int
	stdout, stderr string
}

// invocation is a run of clawctl with an environment of its own.
type invocation struct {
	ctx     context.Context
	env     map[string]string
	home    string // "": the user has none
	stdin   string
	keyring keyring

	terminal io.Reader // nil: stdin is a pipe
	browse   func(context.Context, string) error
}

func (s *fakeServer) run(t *testing.T, args ...string) result {
	t.Helper()
	return invocation{env: map[string]string{"CODERCLAW_URL": s.url}}.run(t, args...)
}

// serve is an invocation that talks to h.
func serve(t *testing.T, h http.Handler) invocation {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return invocation{env: map[string]string{"CODERCLAW_URL": srv.URL}}
}

func (in invocation) run(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := in.start(t, &stdout, &stderr, args...)
	return result{code, stdout.String(), stderr.String()}
}

func (in invocation) start(t *testing.T, stdout, stderr io.Writer, args ...string) int {
	t.Helper()
	if in.ctx == nil {
		in.ctx = t.Context()
	}
	var stdin io.Reader = strings.NewReader(in.stdin)
	if in.terminal != nil {
		stdin = in.terminal
	}
	return run(in.ctx, args, environment{
		stdin: stdin, stdout: stdout, stderr: stderr,
		getenv: func(name string) string { return in.env[name] },
		home:   func() (string, error) { return in.home, nil },
		config: in.config,
		now:    func() time.Time { return now }, zone: time.UTC,
		keyring: in.keyring, browse: in.browse,
		sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
}

func (in invocation) config() (string, error) {
	if in.home == "" {
		return "", errors.New("$HOME is not defined")
	}
	return filepath.Join(in.home, ".config"), nil
}

// lines is a text as it is printed, without the indentation of the test.
func lines(text ...string) string { return strings.Join(text, "\n") + "\n" }

func TestWithoutArgumentsItHelps(t *testing.T) {
	t.Parallel()
	got := invocation{}.run(t)
	if got.code != exitOK || !strings.Contains(got.stdout, `clawctl submit "Analyze project architecture" --agent architecture-advisor --watch`) || got.stderr != "" {
		t.Fatalf("got %+v", got)
	}
}

func TestWrongUsageIsExplainedAndSendsNothing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"sumbit x", `unknown command "sumbit" for "clawctl": did you mean submit?` + "\nRun \"clawctl --help\" for help.\n"},
		{"tasks lsit", `unknown command "lsit" for "clawctl tasks": did you mean list?`},
		{"agents x", `unknown command "x" for "clawctl agents"`},
		{"tasks get", "this takes one argument, the id of the task; there are 0\nRun \"clawctl tasks get --help\" for help.\n"},
		{"tasks get a b", "there are 2"},
		{"tasks watch a b", "takes one task"},
		{"tasks watch a --agent b", "flags choose among all tasks"},
		{"tasks cancel", "needs the id of a task"},
		{"status now", `takes no argument; there is "now"`},
		{"status --nope", "unknown flag: --nope"},
		{"status -o xml", "want table, json, yaml"},
		{"tasks list --status done", `--status "done": want pending, planning`},
		{"tasks list --since yesterday", `--since: "yesterday" is neither a time`},
		{"tasks list --limit -1", "want a number, 0 for all"},
		{"submit", "a task needs a description"},
		{"submit review this", "put it in quotes"},
		{"submit x --label team", `--label "team": want key=value`},
		{"submit x --metadata [1]", "--metadata must be a JSON object"},
		{"submit x --metadata null", "--metadata must be a JSON object"},
		{"submit x --input a --input-file b", "exclude each other"},
		{"answer q1 --deny --remember task", "--remember goes with --approve"},
		{"answer q1 --deny --raise-by 5", "--raise-by goes with --approve"},
		{"answer q1 text --raise-by 5", "--raise-by goes with --approve"},
		{"submit x --thinking hard", "want off, minimal, low, medium, high"},
		{"submit x --run-after soon", `--run-after: "soon" is neither a time`},
		{"submit x --timeout -1s", "--timeout must not be negative"},
		{"status --url localhost:7433", "want http://host:port, https://host or unix:/path (from --url)"},
	} {
		s := newServer(t)
		got := s.run(t, strings.Fields(tc.args)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, tc.want) || got.stdout != "" || len(s.calls) != 0 {
			t.Errorf("%s: got %+v after %q, want %q", tc.args, got, s.calls, tc.want)
		}
	}
}

func TestTheAddressComesFromTheNearestPlace(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.status = api.Status{Healthy: true}
	home := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inHome, elsewhere := filepath.Join(home, ".coderclaw", "server.json"), filepath.Join(home, "elsewhere", "server.json")
	write(inHome, `{"url": "`+s.url+`", "pid": 123}`)
	write(elsewhere, `{"url": "`+s.url+`/elsewhere"}`)
	broken, nameless := filepath.Join(home, "broken", "server.json"), filepath.Join(home, "nameless", "server.json")
	write(broken, `{"url": `)
	write(nameless, `{"pid": 1}`)
	nowhere := "http://127.0.0.1:1"
	for name, tc := range map[string]struct {
		env  map[string]string
		home string
		args []string
		want string // in the error; "" for success
	}{
		"a flag wins":                           {map[string]string{"CODERCLAW_URL": nowhere}, t.TempDir(), []string{"--url", s.url}, ""},
		"the environment is next":               {map[string]string{"CODERCLAW_URL": s.url}, t.TempDir(), nil, ""},
		"then a server's file":                  {nil, home, nil, ""},
		"beside the configuration, if there":    {map[string]string{"CODERCLAW_CONFIG_DIR": filepath.Join(home, "elsewhere", ".coderClaw") + "/"}, "", nil, "(404)"},
		"a file that is no JSON":                {map[string]string{"CODERCLAW_CONFIG_DIR": filepath.Join(home, "broken", "c")}, home, nil, "read the address of the server: " + broken},
		"a file without an address":             {map[string]string{"CODERCLAW_CONFIG_DIR": filepath.Join(home, "nameless", "c")}, home, nil, nameless + ": it names no url"},
		"a server that is not there":            {nil, home, []string{"--url", nowhere}, "no server answers at " + nowhere + " (from --url): connect: connection refused\nStart one with \"coderclawd dev\", or name another with --url or CODERCLAW_URL.\n"},
		"a server that the file still names":    {map[string]string{"CODERCLAW_CONFIG_DIR": filepath.Join(home, "gone", "c")}, "", nil, "(from " + filepath.Join(home, "gone", "server.json") + ")"},
		"a socket that is not there":            {nil, home, []string{"--url", "unix:" + home + "/none"}, "connect: no such file or directory\nStart one with"},
		"a host that is not this one":           {nil, home, []string{"--url", "http://claw.invalid"}, "\nName another with --url or CODERCLAW_URL.\n"},
		"an address that is not of CoderClaw's": {nil, home, []string{"--url", s.url + "/elsewhere"}, "404 page not found (404)"},
	} {
		write(filepath.Join(home, "gone", "server.json"), `{"url": "`+nowhere+`"}`)
		got := invocation{env: tc.env, home: tc.home}.run(t, append([]string{"status"}, tc.args...)...)
		switch {
		case tc.want == "" && got.code != exitOK:
			t.Errorf("%s: got %+v", name, got)
		case tc.want != "" && (got.code != exitFailed || !strings.Contains(got.stderr, tc.want)):
			t.Errorf("%s: got %+v, want %q", name, got, tc.want)
		}
	}
}

func TestTheTokenIsSentAndAskedFor(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			problem(w, http.StatusUnauthorized, "unauthenticated", "a credential is needed")
			return
		}
		if !strings.HasPrefix(r.Header.Get("User-Agent"), "clawctl/") {
			t.Errorf("User-Agent is %q", r.Header.Get("User-Agent"))
		}
		writeJSON(w, http.StatusOK, api.Status{Healthy: true})
	}))
	defer srv.Close()
	none := invocation{env: map[string]string{"CODERCLAW_URL": srv.URL}}
	got := none.run(t, "status")
	if want := "clawctl: a credential is needed (401 unauthenticated)\nLog in with \"clawctl login\", or give a credential with CODERCLAW_TOKEN or --token.\n"; got.code != exitFailed || got.stderr != want {
		t.Errorf("got %+v", got)
	}
	if got := none.run(t, "status", "--token", "t0ken"); got.code != exitOK {
		t.Errorf("got %+v", got)
	}
	none.env["CODERCLAW_TOKEN"] = "t0ken\n"
	if got := none.run(t, "status"); got.code != exitOK {
		t.Errorf("got %+v", got)
	}
}

func TestErrorsOfTheServerAreToldInFull(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		422: "clawctl: it is " + tame + ": body.labels: too many (422 slug)\n",
		500: "clawctl: it is " + tame + ": body.labels: too many (500 slug)\nThe server's log says more under request id req-1.\n",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			problem(w, status, "slug", "it is "+evil, api.ProblemField{Location: "body.labels", Message: "too many"})
		}))
		got := invocation{env: map[string]string{"CODERCLAW_URL": srv.URL}}.run(t, "tasks", "get", taskID)
		srv.Close()
		if got.code != exitFailed || got.stderr != want || got.stdout != "" {
			t.Errorf("%d: got %+v", status, got)
		}
	}
}
