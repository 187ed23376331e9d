package executor_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// agentToken is what the agents here report with.
var agentToken = api.AgentToken("0190b8a1-0000-4000-8000-000000000001", "0190b8a1-0000-4000-8000-000000000002")

// accepting starts an agent that answers 202 with a Location, and tells of what
// it is asked afterwards.
func accepting(t *testing.T, location func(r *http.Request) string) (executor.Job, <-chan string) {
	t.Helper()
	asked := make(chan string, 10)
	j := service(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			asked <- r.Method + " " + r.URL.RequestURI() + " " + r.Header.Get("Authorization")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
		if at := location(r); at != "" {
			w.Header().Set("Location", at)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	return j, asked
}

// ends is a handover whose attempt is over as the state says.
func ends(st api.LeaseState, err error) *executor.Handover {
	return &executor.Handover{URL: "https://claw.example/v1/tasks/1/reports", Token: agentToken, Wait: func(_ context.Context, heard func()) (api.LeaseState, error) {
		heard()
		return st, err
	}}
}

func TestAServiceThatAcceptsIsToldWhereToReport(t *testing.T) {
	t.Parallel()
	j, asked := accepting(t, func(*http.Request) string { return "" })
	j.Handover = ends(api.LeaseState{Status: api.TaskCompleted}, nil)
	_, said, err := runHTTP(t, j)
	if err == nil || err.Error() != "the attempt is over by what the server was told" {
		t.Errorf("ended with %v", err)
	}
	if want := []string{"note: the agent has accepted the task, and reports by itself"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	if body := <-asked; !strings.HasSuffix(body, `,"reportUrl":"https://claw.example/v1/tasks/1/reports","token":"`+agentToken+`"}`) {
		t.Errorf("it gets %s", body)
	}
}

func TestAServiceHearsThatNobodyWaitsForItAnyMore(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		state api.LeaseState
		err   error
		told  bool
	}{
		"cancelled":                        {api.LeaseState{Status: api.TaskCancelled}, nil, true},
		"given to another worker":          {api.LeaseState{Status: api.TaskRunning}, nil, true},
		"waiting for another worker":       {api.LeaseState{Status: api.TaskWaiting, WaitingReason: "worker-lost"}, nil, true},
		"failed at its deadline":           {api.LeaseState{Status: api.TaskFailed, StatusReason: "deadline"}, nil, true},
		"timed out":                        {api.LeaseState{Held: true, Status: api.TaskRunning}, context.DeadlineExceeded, true},
		"completed by it":                  {api.LeaseState{Status: api.TaskCompleted}, nil, false},
		"failed by it":                     {api.LeaseState{Status: api.TaskFailed, StatusReason: "failed"}, nil, false},
		"failed by it, to be tried again":  {api.LeaseState{Status: api.TaskWaiting, WaitingReason: "retry"}, nil, false},
		"failed by it for its own reasons": {api.LeaseState{Status: api.TaskFailed, StatusReason: "quota"}, nil, false},
	} {
		j, asked := accepting(t, func(*http.Request) string { return "/work/7?x=1" })
		j.Agent.HTTP.SecretFile = secret
		j.Handover = ends(c.state, c.err)
		if _, _, err := runHTTP(t, j); err == nil {
			t.Errorf("%s: it ended without an error", name)
		}
		<-asked
		select {
		case got := <-asked:
			if want := "DELETE /work/7?x=1 Bearer s3cret"; !c.told || got != want {
				t.Errorf("%s: it is asked %s", name, got)
			}
		default:
			if c.told {
				t.Errorf("%s: it does not hear of it", name)
			}
		}
	}
}

func TestAServiceHasOnlyItselfCalled(t *testing.T) {
	t.Parallel()
	elsewhere := service(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was sent elsewhere", r.Method) })
	for _, location := range []string{
		elsewhere.Agent.HTTP.URL, "//169.254.169.254/latest", "file:///etc/passwd", "https://HOST/task", "http://user@HOST/task", "http://%zz/",
	} {
		j, asked := accepting(t, func(r *http.Request) string { return strings.ReplaceAll(location, "HOST", r.Host) })
		j.Handover = ends(api.LeaseState{Status: api.TaskCancelled}, nil)
		_, said, _ := runHTTP(t, j)
		<-asked
		if len(asked) > 0 || len(said) != 1 || !strings.HasSuffix(said[0], "its Location is another server's") {
			t.Errorf("%s: said %q, and asked %d more", location, said, len(asked))
		}
	}
}

func TestAServiceThatAcceptsAndHangsOnWithdrawalHoldsNothingUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	j := service(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			<-release
			return
		}
		w.Header().Set("Location", "/x")
		w.WriteHeader(http.StatusAccepted)
	})
	defer close(release)
	j.Handover = ends(api.LeaseState{}, context.Canceled)
	began := time.Now()
	if _, _, err := runHTTP(t, j); err == nil {
		t.Error("it ended without an error")
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

func TestAServiceThatAcceptsAndSaysNothingFails(t *testing.T) {
	t.Parallel()
	j, asked := accepting(t, func(*http.Request) string { return "task" })
	j.Handover = ends(api.LeaseState{}, nil)
	j.Handover.Wait = func(ctx context.Context, _ func()) (api.LeaseState, error) {
		<-ctx.Done()
		return api.LeaseState{Held: true}, ctx.Err()
	}
	e := executor.NewHTTP([]string{"a"})
	e.Silence(200 * time.Millisecond)
	_, err := e.Run(t.Context(), j, newListener())
	if f := failure(t, err); f.Message != "the agent said nothing for 200ms" || !f.Retryable {
		t.Errorf("%+v", f)
	}
	<-asked
	if got := <-asked; !strings.HasPrefix(got, "DELETE /task ") {
		t.Errorf("it is asked %s", got)
	}
}

func TestAnAgentsTokenIsNeverShown(t *testing.T) {
	t.Parallel()
	j := service(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		answers(400, "text/plain", "you sent "+string(body))(w, r)
	})
	j.Handover = ends(api.LeaseState{}, errors.New("not reached"))
	_, _, err := runHTTP(t, j)
	if f := failure(t, err); strings.Contains(f.Message, agentToken) || !strings.Contains(f.Message, `"token":"[secret]"`) {
		t.Errorf("%+v", f)
	}
}
