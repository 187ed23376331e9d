package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// accepted is a task that an agent has accepted.
type accepted struct {
	TaskID    string
	Attempt   int
	ReportURL string
	Token     string
}

// patientAgent is a service that accepts tasks and is told when nobody waits for
// them any more.
type patientAgent struct {
	*httptest.Server
	t         *testing.T
	tasks     chan accepted
	withdrawn chan string // the path
}

func newPatientAgent(t *testing.T) *patientAgent {
	t.Helper()
	a := &patientAgent{t: t, tasks: make(chan accepted, 10), withdrawn: make(chan string, 10)}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			a.withdrawn <- r.URL.Path
			return
		}
		var task accepted
		if err := json.NewDecoder(r.Body).Decode(&task); err != nil {
			t.Error(err)
		}
		w.Header().Set("Location", fmt.Sprintf("/work/%s/%d", task.TaskID, task.Attempt))
		w.WriteHeader(http.StatusAccepted)
		a.tasks <- task
	}))
	t.Cleanup(a.Close)
	return a
}

// next returns the next task that the agent has accepted.
func (a *patientAgent) next(ctx context.Context) accepted {
	a.t.Helper()
	select {
	case task := <-a.tasks:
		return task
	case <-ctx.Done():
		a.t.Fatal("the agent gets no task")
		return accepted{}
	}
}

func (a *patientAgent) hearsOf(ctx context.Context, task accepted) {
	a.t.Helper()
	select {
	case path := <-a.withdrawn:
		if want := fmt.Sprintf("/work/%s/%d", task.TaskID, task.Attempt); path != want {
			a.t.Errorf("%s is withdrawn, want %s", path, want)
		}
	case <-ctx.Done():
		a.t.Fatal("the agent does not hear that nobody waits for it")
	}
}

// says sends a request with the token of the task's agent and wants the status.
func (a *patientAgent) says(ctx context.Context, task accepted, want int, method, url, body string) string {
	a.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+task.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if resp.StatusCode != want {
		a.t.Errorf("%s %s with %s: %d %s, want %d", method, url, body, resp.StatusCode, text, want)
	}
	return string(text)
}

func (a *patientAgent) reports(ctx context.Context, task accepted, want int, body string) string {
	a.t.Helper()
	return a.says(ctx, task, want, http.MethodPost, task.ReportURL, body)
}

// as is the agent's definition in agents.yaml.
func (a *patientAgent) as(id string) string {
	return "  - {id: " + id + ", description: works for long, executor: http, http: {url: \"" + a.URL + "\"}}\n"
}

// site is a server, and the worker of its agents if that is another process.
type site struct {
	*installation
	server *process
	worker func(name string) *process // starts one, and waits until it is there
}

// ended waits for the end of a task, or of one attempt that is tried again.
func (in *installation) ended(ctx context.Context, c *api.Client, id string) api.Task {
	in.t.Helper()
	for e, err := range c.WatchTask(ctx, id, api.WatchOptions{}) {
		if err != nil {
			in.t.Fatal(err)
		}
		if e.Status.Terminal() {
			break
		}
	}
	task, err := c.Task(ctx, id)
	if err != nil {
		in.t.Fatal(err)
	}
	return task
}

// newSite is a server with a short lease whose agents are defined so, and run by
// its own worker or, remote, by another process.
func newSite(t *testing.T, remote bool, agents string) *site {
	t.Helper()
	settings := []string{"CODERCLAW_DATABASE_URL=" + pgtest.EmptyURL(t), "CODERCLAW_TOKEN=" + operatorToken, "CODERCLAW_REQUIRE_AUTH=true", "CODERCLAW_WORKER_LEASE=2s"}
	if remote {
		settings = append(settings, "CODERCLAW_MAX_CONCURRENT_TASKS=0")
	}
	s := &site{installation: newInstallation(t, settings...)}
	definitions := "agents:\n" + agents
	s.config("agents.yaml", definitions)
	s.server = s.serving("serve")
	s.worker = func(name string) *process {
		key, err := s.clientWith(operatorToken).CreateAPIKey(t.Context(), api.NewAPIKey{Name: name, Worker: &api.WorkerScope{}, ExpiresSeconds: 3600})
		if err != nil {
			t.Fatal(err)
		}
		program, err := build()
		if err != nil {
			t.Fatal(err)
		}
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, "agents.yaml"), []byte(definitions), 0o600); err != nil {
			t.Fatal(err)
		}
		p := &process{Cmd: exec.Command(program, "worker", "--url", "http://"+s.address+"/", "--name", name), log: &bytes.Buffer{}, exited: make(chan struct{})}
		p.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CODERCLAW_CONFIG_DIR=" + home, "CODERCLAW_TOKEN=" + key.Key, "CODERCLAW_WORKSPACE_ROOT=" + home,
			"CODERCLAW_ACP_COMMAND=none", "CODERCLAW_SHUTDOWN_GRACE=1s", "CODERCLAW_LOG_LEVEL=debug"}
		p.Stdout, p.Stderr = p.log, p.log
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { p.err = p.Wait(); close(p.exited) }()
		t.Cleanup(func() {
			_ = p.Process.Kill()
			<-p.exited
			if t.Failed() {
				t.Logf("the log of worker %s:\n%s", name, p.log)
			}
		})
		for ctx := patient(t); ; <-time.After(10 * time.Millisecond) {
			workers, err := s.clientWith(operatorToken).Workers(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(workers, func(w api.Worker) bool { return w.ID == name }) {
				return p
			}
		}
	}
	return s
}

func TestAnAgentThatAcceptsReportsByItself(t *testing.T) {
	t.Parallel()
	for name, remote := range map[string]bool{"to the server's own worker": false, "to a worker elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := patient(t)
			agent := newPatientAgent(t)
			s := newSite(t, remote, agent.as("helper"))
			processes := []*process{s.server}
			if remote {
				processes = append(processes, s.worker("elsewhere"))
			}
			people := s.clientWith(operatorToken)
			submit := func(n api.NewTask) accepted {
				t.Helper()
				n.AgentID, n.Description = "helper", "d"
				if _, err := people.SubmitTask(ctx, n); err != nil {
					t.Fatal(err)
				}
				return agent.next(ctx)
			}

			// Two at once, each with a token of its own, for longer than a lease.
			one, two := submit(api.NewTask{Input: "1"}), submit(api.NewTask{Input: "2"})
			agent.reports(ctx, one, 204, `{"events":[{"type":"progress","progress":30,"message":"reading"},{"type":"log","message":"a line"}]}`)
			agent.says(ctx, one, 403, http.MethodPost, two.ReportURL, `{"status":"completed","output":"not mine"}`)
			agent.says(ctx, one, 403, http.MethodGet, strings.TrimSuffix(two.ReportURL, "/reports"), "")
			agent.says(ctx, one, 403, http.MethodGet, "http://"+s.address+"/v1/tasks", "")
			agent.says(ctx, one, 403, http.MethodPost, strings.TrimSuffix(one.ReportURL, "/reports")+"/cancel", "")
			var mine api.Task
			if text := agent.says(ctx, one, 200, http.MethodGet, strings.TrimSuffix(one.ReportURL, "/reports"), ""); json.Unmarshal([]byte(text), &mine) != nil || mine.Progress != 30 || mine.Input != "1" {
				t.Errorf("it reads its task as %s", text)
			}
			var asked api.Question
			questions := strings.TrimSuffix(one.ReportURL, "/reports") + "/questions"
			if text := agent.says(ctx, one, 200, http.MethodPost, questions, `{"id":"0190b8a1-0000-4000-8000-000000000001","kind":"input","text":"Which?"}`); json.Unmarshal([]byte(text), &asked) != nil || asked.Status != api.QuestionOpen {
				t.Errorf("it asks %s", text)
			}
			if _, err := people.AnswerQuestion(ctx, asked.ID, api.Answer{Input: "this"}); err != nil {
				t.Error(err)
			}
			if text := agent.says(ctx, one, 200, http.MethodGet, questions+"/"+asked.ID+"?waitSeconds=30", ""); !strings.Contains(text, `"this"`) {
				t.Errorf("it is answered %s", text)
			}
			var both sync.WaitGroup
			for _, task := range []accepted{one, two} {
				both.Go(func() { agent.reports(ctx, task, 204, `{"status":"completed","output":"done by `+task.TaskID+`"}`) })
			}
			both.Wait()
			for _, task := range []accepted{one, two} {
				if got := s.ended(ctx, people, task.TaskID); got.Status != api.TaskCompleted || got.Output != "done by "+task.TaskID || got.Progress != 100 || got.Attempt != 1 {
					t.Errorf("the task is %+v", got)
				}
				// The end is the end, of the token too.
				if text := agent.reports(ctx, task, 409, `{"status":"failed","error":"no"}`); !strings.Contains(text, "lease-lost") {
					t.Errorf("a report after the end is answered %s", text)
				}
			}

			failing := submit(api.NewTask{MaxAttempts: 2})
			agent.reports(ctx, failing, 204, `{"status":"failed","error":"busy","reason":"quota","retryable":true}`)
			again := agent.next(ctx)
			if again.TaskID != failing.TaskID || again.Attempt != 2 || again.Token == failing.Token {
				t.Errorf("it is tried again as %+v, after %+v", again, failing)
			}
			agent.reports(ctx, failing, 409, `{"message":"still here"}`)
			agent.reports(ctx, again, 204, `{"status":"failed","error":"no idea"}`)
			if got := s.ended(ctx, people, again.TaskID); got.Status != api.TaskFailed || got.Error != "no idea" {
				t.Errorf("the task is %+v", got)
			}

			select { // it ended these itself, and is told nothing
			case path := <-agent.withdrawn:
				t.Errorf("the agent hears of %s", path)
			default:
			}
			cancelled := submit(api.NewTask{})
			if _, err := people.CancelTask(ctx, cancelled.TaskID); err != nil {
				t.Fatal(err)
			}
			agent.hearsOf(ctx, cancelled)
			agent.reports(ctx, cancelled, 409, `{"status":"completed","output":"too late"}`)

			silent := submit(api.NewTask{SilenceSeconds: 1})
			agent.hearsOf(ctx, silent)
			if got := s.ended(ctx, people, silent.TaskID); got.Status != api.TaskFailed || got.StatusReason != "silent" {
				t.Errorf("the silent one is %+v", got)
			}
			slow := submit(api.NewTask{TimeoutSeconds: 1})
			agent.hearsOf(ctx, slow)
			if got := s.ended(ctx, people, slow.TaskID); got.Status != api.TaskFailed || got.StatusReason != "timeout" {
				t.Errorf("the slow one is %+v", got)
			}
			agent.reports(ctx, slow, 409, `{"message":"nearly"}`)

			for _, p := range slices.Backward(processes) {
				if err := p.stop(t, syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				for _, task := range []accepted{one, two, failing, again, cancelled, silent, slow} {
					if strings.Contains(p.log.String(), task.Token) {
						t.Errorf("the token of task %s is in a log", task.TaskID)
					}
				}
			}
		})
	}
}

func TestAnAgentWhoseWorkerIsLostReportsNoMore(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	agent := newPatientAgent(t)
	s := newSite(t, true, agent.as("helper"))
	people := s.clientWith(operatorToken)
	doomed := s.worker("doomed")
	if _, err := people.SubmitTask(ctx, api.NewTask{AgentID: "helper", Description: "d"}); err != nil {
		t.Fatal(err)
	}
	lost := agent.next(ctx)
	if err := doomed.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-doomed.exited
	agent.reports(ctx, lost, 204, `{"events":[{"type":"log","message":"nobody has noticed yet"}]}`)
	s.worker("heir")
	next := agent.next(ctx)
	if next.TaskID != lost.TaskID || next.Attempt != 2 || next.Token == lost.Token {
		t.Errorf("the heir gets %+v after %+v", next, lost)
	}
	if text := agent.reports(ctx, lost, 409, `{"status":"completed","output":"of the first attempt"}`); !strings.Contains(text, "lease-lost") {
		t.Errorf("it is answered %s", text)
	}
	agent.reports(ctx, next, 204, `{"status":"completed","output":"of the second attempt"}`)
	if got := s.ended(ctx, people, next.TaskID); got.Output != "of the second attempt" {
		t.Errorf("the task is %+v", got)
	}
}
