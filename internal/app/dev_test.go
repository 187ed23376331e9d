package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// patience is longer than anything here takes on a busy machine.
const patience = 2 * time.Minute

// binaries is where build puts the program.
var binaries string

var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaries, "coderclawd")
	cmd := exec.Command("go", "build", "-o", path, "../../cmd/coderclawd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "coderclawd"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(binaries)
	os.Exit(code)
}

// installation is a home with a workspace, in which servers can be started.
type installation struct {
	t       *testing.T
	home    string
	address string
	env     []string
}

func newInstallation(t *testing.T, env ...string) *installation {
	t.Helper()
	home, err := os.MkdirTemp("", "claw") // short: it will hold a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	// PostgreSQL's own user must get through to its data.
	if err := os.Chmod(home, 0o711); err != nil {
		t.Fatal(err)
	}
	workspace := filepath.Join(home, "work")
	for name, text := range map[string]string{
		"go.mod": "module example.com/shop\n\ngo 1.26\n", "main.go": "package main\n\nimport \"fmt\"\n\n// TODO: greet by name\nfunc main() { fmt.Println(\"hello\") }\n",
	} {
		if err := os.MkdirAll(workspace, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(workspace, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &installation{t: t, home: home, address: l.Addr().String(), env: append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CODERCLAW_LISTEN=" + l.Addr().String(),
		"CODERCLAW_DATA_DIR=" + filepath.Join(home, "data"), "CODERCLAW_WORKSPACE_ROOT=" + workspace,
		"CODERCLAW_POSTGRES_BIN=" + os.Getenv("CODERCLAW_POSTGRES_BIN"), "CODERCLAW_ACP_COMMAND=none",
	}, env...)}
}

// config writes a file to the configuration directory.
func (in *installation) config(name, text string) {
	in.t.Helper()
	dir := filepath.Join(in.home, ".coderclaw", ".coderClaw")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		in.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		in.t.Fatal(err)
	}
}

// process is a running server.
type process struct {
	*exec.Cmd
	log    *bytes.Buffer
	exited chan struct{}
	err    error
}

func (in *installation) start(command string) *process {
	in.t.Helper()
	path, err := build()
	if err != nil {
		in.t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(path, command), log: &bytes.Buffer{}, exited: make(chan struct{})}
	p.Env, p.Stdout, p.Stderr = in.env, p.log, p.log
	if err := p.Start(); err != nil {
		in.t.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.exited)
	}()
	in.t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(patience):
			_ = p.Process.Kill()
			in.t.Error("the server did not stop")
		}
		if in.t.Failed() {
			in.t.Logf("the server's log:\n%s", p.log)
		}
	})
	return p
}

// serving starts a server and waits until it answers.
func (in *installation) serving(command string) *process {
	in.t.Helper()
	p := in.start(command)
	in.ready(p)
	return p
}

// ready waits until the server answers that it is ready.
func (in *installation) ready(p *process) {
	in.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		req, err := http.NewRequestWithContext(in.t.Context(), http.MethodGet, "http://"+in.address+"/readyz", nil)
		if err != nil {
			in.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
		select {
		case <-p.exited:
			in.t.Fatalf("the server ended: %v\n%s", p.err, p.log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			in.t.Fatal("the server does not get ready")
		}
	}
}

// stop sends a signal and returns what the server exits with.
func (p *process) stop(t *testing.T, sig os.Signal) error {
	t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("the server did not stop")
	}
	return p.err
}

func (in *installation) client() *api.Client {
	in.t.Helper()
	c, err := api.NewClient("http://" + in.address)
	if err != nil {
		in.t.Fatal(err)
	}
	return c
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestDevRunsARealAgentAndFindsEverythingAgainAfterAStop(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	in := newInstallation(t)
	server := in.serving("dev")

	var address struct {
		URL string
		PID int
	}
	text, err := os.ReadFile(filepath.Join(in.home, ".coderclaw", "server.json"))
	if err == nil {
		err = json.Unmarshal(text, &address)
	}
	if err != nil || address.URL != "http://"+in.address || address.PID != server.Process.Pid {
		t.Errorf("server.json says %+v (%v)", address, err)
	}

	c := in.client()
	submitted, err := c.SubmitTask(ctx, api.NewTask{Description: "Analyze project architecture", Input: "Review the current codebase structure", AgentID: "architecture-advisor"})
	if err != nil {
		t.Fatal(err)
	}
	var last api.Event
	for e, err := range c.WatchTask(ctx, submitted.ID, api.WatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		last = e
	}
	if last.Status != api.TaskCompleted {
		t.Errorf("the last event is %+v", last)
	}
	done, err := c.Task(ctx, submitted.ID)
	if err != nil || !strings.Contains(done.Output, "example.com/shop") || !strings.Contains(done.Output, "greet by name") || done.Progress != 100 {
		t.Errorf("the task ended with %v, progress %d, output:\n%s", err, done.Progress, done.Output)
	}
	_, err = c.SubmitTask(ctx, api.NewTask{Description: "d", AgentID: "code-creator"})
	var problem *api.Error
	if !errors.As(err, &problem) || problem.Slug() != "agent-unavailable" || !strings.Contains(problem.Detail, "CODERCLAW_LLM_BASE_URL") {
		t.Errorf("an agent that nothing can run is answered with %v", err)
	}

	if err := server.stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("the server exits with %v", err)
	}
	if _, err := os.Stat(filepath.Join(in.home, ".coderclaw", "server.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("server.json is still there: %v", err)
	}
	if pid, err := os.ReadFile(filepath.Join(in.home, "data", "postgres", "data", "postmaster.pid")); err == nil {
		t.Errorf("PostgreSQL was not stopped cleanly: %s", pid)
	}
	in.serving("dev")
	again, err := c.Task(ctx, submitted.ID)
	if err != nil || again.Output != done.Output {
		t.Errorf("after a restart: %v %+v", err, again)
	}
}

func TestASecondServerOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.serving("dev")
	second := *in
	second.env = append(append([]string{}, in.env...), "CODERCLAW_LISTEN=127.0.0.1:0")
	p := second.start("dev")
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("the second server runs")
	}
	if p.err == nil || !strings.Contains(p.log.String(), "in use") {
		t.Errorf("the second server said %q and exited with %v", p.log, p.err)
	}
}

func TestServeWithoutADatabaseSaysWhatToSet(t *testing.T) {
	t.Parallel()
	p := newInstallation(t).start("serve")
	<-p.exited
	if p.err == nil || !strings.Contains(p.log.String(), "CODERCLAW_DATABASE_URL") {
		t.Errorf("serve said %q and exited with %v", p.log, p.err)
	}
}

// sleeper is an agent that works until it is told to stop.
const sleeper = `agents:
  - id: sleeper
    description: sleeps
    executor: process
    process:
      command: [sh, -c, "echo started; exec sleep 600"]
      input: none
`

func TestAGracefulStopReleasesWhatItInterrupts(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	in := newInstallation(t, "CODERCLAW_SHUTDOWN_GRACE=100ms")
	in.config("agents.yaml", sleeper)
	server := in.serving("dev")
	c := in.client()
	task, err := c.SubmitTask(ctx, api.NewTask{Description: "d", AgentID: "sleeper"})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range c.WatchTask(ctx, task.ID, api.WatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == api.EventLog && e.Message == "started" {
			break
		}
	}
	if err := server.stop(t, syscall.SIGINT); err != nil {
		t.Errorf("the server exits with %v", err)
	}
	in.serving("dev")
	for e, err := range c.WatchTask(ctx, task.ID, api.WatchOptions{After: new(int64)}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Status == api.TaskWaiting && !strings.Contains(e.Message, "stop") {
			t.Errorf("the interruption is recorded as %q", e.Message)
		}
		if e.Type == api.EventStatus && strings.Contains(e.Message, "attempt 2") {
			break
		}
	}
	if cancelled, err := c.CancelTask(ctx, task.ID); err != nil || cancelled.Status != api.TaskCancelled {
		t.Errorf("cancel: %v %v", cancelled.Status, err)
	}
}

func TestServersSharingADatabaseShareTasksAndStreams(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	url := pgtest.EmptyURL(t)
	one := newInstallation(t, "CODERCLAW_DATABASE_URL="+url)
	two := newInstallation(t, "CODERCLAW_DATABASE_URL="+url)
	first, second := one.start("serve"), two.start("serve") // both migrate
	one.ready(first)
	two.ready(second)
	task, err := one.client().SubmitTask(ctx, api.NewTask{Description: "d", Dispatch: api.DispatchManual})
	if err != nil {
		t.Fatal(err)
	}
	steps := []api.TaskStatus{api.TaskPlanning, api.TaskRunning, api.TaskCompleted}
	for e, err := range two.client().WatchTask(ctx, task.ID, api.WatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(steps) > 0 {
			if _, err := one.client().UpdateTask(ctx, task.ID, api.TaskPatch{Status: &steps[0]}); err != nil {
				t.Fatal(err)
			}
			steps = steps[1:]
		}
		task.Status = e.Status
	}
	if task.Status != api.TaskCompleted {
		t.Errorf("the other server's stream ended with %s", task.Status)
	}
}

// firehose reads /v1/stream through restarts of the server and checks that each
// task's events come in order, each once.
type firehose struct {
	mu   sync.Mutex
	seen map[string]int64
}

func (f *firehose) follow(ctx context.Context, t *testing.T, address string) {
	last := "0"
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+address+"/v1/stream", nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Last-Event-ID", last)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			select { // the server is down
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		id := ""
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				id = value
			case "data":
				var e api.Event
				if err := json.Unmarshal([]byte(value), &e); err != nil {
					break // the line was cut off
				}
				if e.Type == api.EventReset {
					t.Error("the stream was reset")
				}
				f.mu.Lock()
				if f.seen[e.TaskID]++; f.seen[e.TaskID] != e.Seq {
					t.Errorf("event %d of task %s came where %d was due", e.Seq, e.TaskID, f.seen[e.TaskID])
				}
				f.mu.Unlock()
				last = id
			}
		}
		resp.Body.Close()
	}
}

func TestKillingTheServerLosesNothingThatItAcknowledged(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	in := newInstallation(t)
	server := in.serving("dev")
	const tasks, kills = 200, 4

	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	f := &firehose{seen: map[string]int64{}}
	var watchers sync.WaitGroup
	watchers.Go(func() { f.follow(watching, t, in.address) })

	var mu sync.Mutex
	acknowledged := map[string]string{} // description by id
	c, err := api.NewClient("http://"+in.address, api.WithRetries(1000))
	if err != nil {
		t.Fatal(err)
	}
	var submitters sync.WaitGroup
	progress := make(chan int, tasks)
	for w := range 4 {
		submitters.Go(func() {
			for n := w; n < tasks; n += 4 {
				description := fmt.Sprint("task ", n)
				// The client repeats what got no answer under the same key.
				got, err := c.SubmitTask(ctx, api.NewTask{Description: description, Dispatch: api.DispatchManual})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged[got.ID] = description
				mu.Unlock()
				progress <- n
			}
		})
	}
	for range kills {
		for range tasks / (kills + 1) * (50 + rand.N(50)) / 100 {
			<-progress
		}
		if err := server.stop(t, syscall.SIGKILL); err == nil {
			t.Error("the server was not killed")
		}
		server = in.serving("dev")
	}
	submitters.Wait()

	count := 0
	for got, err := range c.AllTasks(ctx, api.TaskFilter{Limit: 500}) {
		if err != nil {
			t.Fatal(err)
		}
		count++
		if acknowledged[got.ID] != got.Description {
			t.Errorf("task %s %q was not acknowledged", got.ID, got.Description)
		}
		var seq int64
		for e, err := range c.TaskEvents(ctx, got.ID) {
			if err != nil {
				t.Fatal(err)
			}
			if seq++; e.Seq != seq {
				t.Errorf("event %d of task %s came where %d was due", e.Seq, got.ID, seq)
			}
		}
	}
	if count != tasks || len(acknowledged) != tasks {
		t.Errorf("%d tasks were submitted, %d acknowledged, %d kept", tasks, len(acknowledged), count)
	}
	for {
		f.mu.Lock()
		seen := len(f.seen)
		f.mu.Unlock()
		if seen == tasks {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the stream showed %d of %d tasks", seen, tasks)
		case <-time.After(10 * time.Millisecond):
		}
	}
	stopWatching()
	watchers.Wait()
}
