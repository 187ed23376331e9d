package clawctl

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

// runningTask is a server with one task that ends with a status; its stream
// tells how it got there.
func runningTask(t *testing.T, end api.TaskStatus) *fakeServer {
	s := newServer(t)
	ended, forty := now.Add(65*time.Second), 40
	s.tasks = []api.Task{{ID: taskID, Status: end, Output: "# Report\n\nDone " + evil, StartedAt: &now, CompletedAt: &ended}}
	if end == api.TaskFailed {
		s.tasks[0].Error = "exit status 3\n" + evil
	}
	s.events = []api.Event{
		{Type: api.EventStatus, TaskID: taskID, Seq: 1, Status: api.TaskPending, Timestamp: now, Message: "submitted"},
		{Type: api.EventProgress, TaskID: taskID, Seq: 2, Status: api.TaskRunning, Timestamp: now.Add(time.Second), Progress: &forty, Message: "reading " + evil},
		{Type: api.EventOutput, TaskID: taskID, Seq: 3, Status: api.TaskRunning, Timestamp: now.Add(time.Second), Message: "# Rep"},
		{Type: api.EventLog, TaskID: taskID, Seq: 4, Status: api.TaskRunning, Timestamp: now.Add(2 * time.Second), Message: "two\nlines"},
		{Type: api.EventStatus, TaskID: taskID, Seq: 5, Status: end, Timestamp: ended},
	}
	return s
}

func TestSubmitSendsWhatTheFlagsSay(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "input.md")
	if err := os.WriteFile(file, []byte("\n# Title \x1b[1m\n\nbody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := "2026-11-23T10:00:00Z"
	for name, tc := range map[string]struct {
		args  []string
		stdin string
		want  string
	}{
		"the description is the input":  {[]string{" Analyze it "}, "", `{"description":"Analyze it","input":"Analyze it"}`},
		"an input of its own":           {[]string{"d", "--input", "i"}, "", `{"description":"d","input":"i"}`},
		"an input from standard input":  {[]string{"d", "--input-file", "-"}, "from stdin\n", `{"description":"d","input":"from stdin\n"}`},
		"a description from the input":  {[]string{"--input-file", file}, "", `{"description":"# Title","input":"\n# Title \u001b[1m\n\nbody\n"}`},
		"a duration to run after":       {[]string{"d", "--run-after", "1h"}, "", `{"description":"d","input":"d","runAfter":"` + at + `"}`},
		"a time-out of part of seconds": {[]string{"d", "--timeout", "1500ms"}, "", `{"description":"d","input":"d","timeoutSeconds":2}`},
		"all at once": {[]string{"d", "--agent", "a", "--skill", "s", "--model", "m", "--thinking", "high", "--session", "se", "--project", "p", "--parent", otherID,
			"--depends-on", "x,y", "--depends-on", "z", "--label", "k=v=w,x", "--label", "e=", "--metadata", `{"path": "."}`, "--priority", "-5", "--timeout", "30m", "--max-attempts", "3",
			"--run-after", "2026-11-23T11:00:00+01:00", "--manual"}, "",
			`{"description":"d","input":"d","agentId":"a","skillId":"s","model":"m","thinking":"high","sessionId":"se","projectId":"p","parentTaskId":"` + otherID + `","dependsOn":["x","y","z"],` +
				`"dispatch":"manual","priority":-5,"runAfter":"` + at + `","timeoutSeconds":1800,"maxAttempts":3,"labels":{"e":"","k":"v=w,x"},"metadata":{"path":"."}}`},
	} {
		s := runningTask(t, api.TaskCompleted)
		got := invocation{env: map[string]string{"CODERCLAW_URL": s.url}, stdin: tc.stdin}.run(t, append([]string{"submit"}, tc.args...)...)
		if got != (result{exitOK, taskID + "\n", ""}) || len(s.calls) != 1 || s.calls[0] != "POST /v1/tasks "+tc.want {
			t.Errorf("%s: got %+v after\n%q, want\n%q", name, got, s.calls, tc.want)
		}
	}
}

func TestSubmitRefusesInputThatIsNoText(t *testing.T) {
	t.Parallel()
	for stdin, want := range map[string]string{
		"\xff\xfe":                 "clawctl: read input: - is not UTF-8 text\n",
		strings.Repeat("x", 2<<20): "clawctl: read input: there is more than 1024 KiB\n",
	} {
		s := newServer(t)
		got := invocation{env: map[string]string{"CODERCLAW_URL": s.url}, stdin: stdin}.run(t, "submit", "d", "--input-file", "-")
		if got != (result{exitFailed, "", want}) || len(s.calls) != 0 {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
}

func TestSubmitSendsTheKeyItIsGiven(t *testing.T) {
	t.Parallel()
	keys := make(chan string, 1)
	s := runningTask(t, api.TaskCompleted)
	srv := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys <- r.Header.Get("Idempotency-Key")
		writeJSON(w, http.StatusCreated, s.tasks[0])
	})
	if got := serve(t, srv).run(t, "submit", "d", "--idempotency-key", "build-17"); got.code != exitOK || <-keys != "build-17" {
		t.Errorf("got %+v", got)
	}
}

func TestWatchKeepsTheOutputApartFromTheProgress(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"submit", "Analyze it", "--watch"}, {"tasks", "watch", taskID}} {
		s := runningTask(t, api.TaskCompleted)
		got := s.run(t, args...)
		want := lines(
			"09:00:00 pending submitted",
			"09:00:01 running 40% reading "+tame,
			"09:00:02 log two lines",
			"09:01:05 completed",
			"Completed after 1m5s")
		if args[0] == "submit" {
			want = "Submitted " + taskID + "\n" + want
		}
		if got.code != exitOK || got.stderr != want {
			t.Errorf("%q: %d\n%s\nwant\n%s", args, got.code, got.stderr, want)
		}
		// A file gets the output as the agent wrote it, byte for byte.
		if got.stdout != "# Report\n\nDone "+evil {
			t.Errorf("%q printed %q", args, got.stdout)
		}
	}
}

func TestWatchExitsAsTheTaskEnded(t *testing.T) {
	t.Parallel()
	for end, want := range map[api.TaskStatus]string{
		api.TaskFailed:    "Failed after 1m5s: exit status 3\n" + tame + "\n",
		api.TaskCancelled: "Cancelled after 1m5s\n",
	} {
		got := runningTask(t, end).run(t, "tasks", "watch", taskID)
		if got.code != exitFailed || !strings.HasSuffix(got.stderr, want) {
			t.Errorf("%s: got %+v", end, got)
		}
	}
	got := runningTask(t, api.TaskFailed).run(t, "tasks", "watch", taskID, "-o", "json")
	if got.code != exitFailed || got.stderr != "" {
		t.Errorf("in JSON: got %+v", got)
	}
}

func TestWatchInJSONIsALineForEachEventAndThenTheTask(t *testing.T) {
	t.Parallel()
	s := runningTask(t, api.TaskCompleted)
	got := s.run(t, "submit", "Analyze it", "--watch", "--output", "json")
	if got.code != exitOK || got.stderr != "" || strings.ContainsFunc(got.stdout, isUnsafe) {
		t.Fatalf("got %+v", got)
	}
	printed := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	if len(printed) != len(s.events)+1 {
		t.Fatalf("got %d lines: %q", len(printed), printed)
	}
	for i, ev := range s.events {
		var got api.Event
		if err := json.Unmarshal([]byte(printed[i]), &got); err != nil || got.Seq != ev.Seq || got.Message != ev.Message {
			t.Errorf("line %d: %s, %v", i, printed[i], err)
		}
	}
	var task api.Task
	if err := json.Unmarshal([]byte(printed[len(s.events)]), &task); err != nil || task.Output != s.tasks[0].Output {
		t.Errorf("the last line: %s, %v", printed[len(s.events)], err)
	}
	if got := s.run(t, "tasks", "watch", taskID, "-o", "yaml"); got.code != exitOK || strings.Count("\n"+got.stdout, "\n---\n") != len(s.events)+1 {
		t.Errorf("in YAML: got %+v", got)
	}
}

func TestWatchSaysWhenThereIsNoSuchTask(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.stream = func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusNotFound, "not-found", "no task "+taskID)
	}
	if got := s.run(t, "tasks", "watch", taskID); got != (result{exitFailed, "", "clawctl: no task " + taskID + " (404 not-found)\n"}) {
		t.Fatalf("got %+v", got)
	}
}

func TestCtrlCStopsWatchingAndSaysHowToComeBack(t *testing.T) {
	t.Parallel()
	s := runningTask(t, api.TaskCompleted)
	ctx, interrupt := context.WithCancel(t.Context())
	s.stream = func(w http.ResponseWriter, r *http.Request) {
		send(w, s.events[:2]...)
		interrupt()
		<-r.Context().Done()
	}
	got := invocation{ctx: ctx, env: map[string]string{"CODERCLAW_URL": s.url}}.run(t, "tasks", "watch", taskID)
	want := lines("Stopped watching; the task goes on. Watch it again, or cancel it:", "  clawctl tasks watch "+taskID, "  clawctl tasks cancel "+taskID)
	if got.code != exitInterrupted || got.stdout != "" || !strings.HasSuffix(got.stderr, want) {
		t.Fatalf("got %+v", got)
	}
}

func TestWatchOutlastsARestartOfTheServer(t *testing.T) {
	t.Parallel()
	s := runningTask(t, api.TaskCompleted)
	streams, gets := 0, 0
	got := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stream") {
			if streams++; streams == 1 {
				w.Header().Set("Content-Type", "text/event-stream")
				w.Write([]byte("retry: 1\n\n"))
				send(w, s.events[:2]...)
				panic(http.ErrAbortHandler)
			}
			send(w, s.events[2:]...)
			return
		}
		if gets++; gets <= 4 { // more often than the client tries by itself
			problem(w, http.StatusServiceUnavailable, "unavailable", "the server is stopping")
			return
		}
		writeJSON(w, http.StatusOK, s.tasks[0])
	})).run(t, "tasks", "watch", taskID)
	if got.code != exitOK || got.stdout != s.tasks[0].Output || strings.Count(got.stderr, "connection lost, reconnecting: ") != 2 {
		t.Fatalf("got %+v", got)
	}
}

func TestWatchAllNamesTheTaskOfEachEvent(t *testing.T) {
	t.Parallel()
	s := runningTask(t, api.TaskCompleted)
	ctx, interrupt := context.WithCancel(t.Context())
	s.stream = func(w http.ResponseWriter, r *http.Request) {
		send(w, s.events...)
		<-r.Context().Done()
	}
	var out waitFor
	out.text, out.found = "completed", interrupt
	var stderr bytes.Buffer
	code := invocation{ctx: ctx, env: map[string]string{"CODERCLAW_URL": s.url}}.start(t, &out, &stderr, "tasks", "watch", "--agent", "code-reviewer")
	want := lines(
		"09:00:00 "+taskID+" pending submitted",
		"09:00:01 "+taskID+" running 40% reading "+tame,
		"09:00:02 "+taskID+" log two lines",
		"09:01:05 "+taskID+" completed")
	if code != exitInterrupted || out.String() != want || stderr.String() != "Watching; Ctrl-C ends it.\n" || s.calls[0] != "GET /v1/stream?agentId=code-reviewer" {
		t.Fatalf("%d\n%s%s\nwant\n%safter %q", code, out.String(), stderr.String(), want, s.calls)
	}
}

// waitFor is a buffer that tells when a text was written to it.
type waitFor struct {
	bytes.Buffer
	text  string
	found func()
}

func (w *waitFor) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.text) {
		w.found()
	}
	return n, err
}

func TestCancelGoesOnToTheNextTask(t *testing.T) {
	t.Parallel()
	s := stockedServer(t)
	got := s.run(t, "tasks", "cancel", taskID, otherID)
	want := result{exitFailed, otherID + " cancelled\n", "clawctl: task " + taskID + " is completed, which is final (409 invalid-transition)\n"}
	if got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}
