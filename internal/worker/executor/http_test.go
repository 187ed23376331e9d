package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// service starts an agent that is a service and returns a job for it, which the
// worker's own agents.yaml is to define.
func service(t *testing.T, handle http.HandlerFunc) executor.Job {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return executor.Job{
		Task:  api.Task{ID: "0190b8a1", Attempt: 2, Description: "describe", Input: "the input", AgentID: "a", Metadata: json.RawMessage(`{"k":1}`)},
		Agent: api.Agent{ID: "a", Executor: api.ExecutorHTTP, Source: api.SourceFile, SystemPrompt: "Be brief.", Model: "m", HTTP: &api.HTTP{URL: s.URL + "/run"}},
	}
}

func answers(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func runHTTP(t *testing.T, j executor.Job) (string, []string, error) {
	t.Helper()
	l := newListener()
	output, err := executor.NewHTTP([]string{"a"}).Run(t.Context(), j, l)
	return output, l.all(), err
}

func TestAServiceGetsTheTaskAndItsSecret(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got, authorization string
	j := service(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got, authorization = r.Method+" "+r.URL.Path+" "+string(body), r.Header.Get("Authorization")
		answers(200, "application/json; charset=utf-8", `{"output": "done"}`)(w, r)
	})
	j.Agent.HTTP.SecretFile = secret
	j.Task.Model = "larger"
	if output, _, err := runHTTP(t, j); err != nil || output != "done" {
		t.Errorf("%q, %v", output, err)
	}
	if want := `POST /run {"taskId":"0190b8a1","attempt":2,"agentId":"a","description":"describe","input":"the input","model":"larger","systemPrompt":"Be brief.","metadata":{"k":1}}`; got != want || authorization != "Bearer s3cret" {
		t.Errorf("it gets %s with %q", got, authorization)
	}
}

func TestAServiceCanReportWhileItWorks(t *testing.T) {
	t.Parallel()
	output, said, err := runHTTP(t, service(t, answers(200, "application/x-ndjson",
		`{"type":"log","message":"begun"}`+"\n\n"+`{"type":"progress","progress":40.5,"message":"half"}`+"\n"+`{"type":"output","text":"so "}`+"\n"+
			`{"type":"usage","usage":{"tokens":9,"cost":"0.5"}}`+"\n"+`{"type":"usage","usage":{"tokens":-9}}`+"\n"+`{"type":"usage"}`+"\n"+
			`{"type":"later","x":1}`+"\n"+`{"output":"so far"}`+"\nnot read\n")))
	if want := []string{": begun", "40% half", "output: so ", `used by "": {"costs":[{"amount":"0.500000","currency":"USD"}],"tokens":9}`}; err != nil || output != "so far" || !slices.Equal(said, want) {
		t.Errorf("%q, %v, said %q", output, err, said)
	}
}

func TestAServicesAnswerIsTheEndOfTheTask(t *testing.T) {
	t.Parallel()
	if output, _, err := runHTTP(t, service(t, answers(200, "text/plain", "as it is"))); err != nil || output != "as it is" {
		t.Errorf("text: %q, %v", output, err)
	}
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		want   executor.Failure
	}{
		"an error":           {answers(200, "application/json", `{"error":"no idea"}`), executor.Failure{Message: "no idea"}},
		"an error that ends": {answers(200, "application/x-ndjson", `{"error":"busy","retryable":true}`+"\n"), executor.Failure{Message: "busy", Retryable: true}},
		"no answer":          {answers(200, "application/json", `[]`), executor.Failure{Message: `the agent's answer is no JSON object with "output" or "error"`}},
		"no end":             {answers(200, "application/x-ndjson", `{"type":"log","message":"x"}`+"\n"), executor.Failure{Message: "the agent's answer broke off: unexpected EOF", Retryable: true}},
		"prose":              {answers(200, "application/x-ndjson", "hello\n"), executor.Failure{Message: "the agent sent a line that is no JSON object: hello"}},
		"an endless line":    {answers(200, "application/x-ndjson", strings.Repeat("x", 3<<20)), executor.Failure{Message: "the agent sent a line of more than 2 MiB"}},
		"an endless answer":  {answers(200, "text/plain", strings.Repeat("x", 3<<20)), executor.Failure{Message: "the agent's answer has more than 2 MiB"}},
		"accepted":           {answers(202, "text/plain", ""), executor.Failure{Message: "the agent answered 202 Accepted: it cannot report by itself, for the server has no address at which it could; CODERCLAW_PUBLIC_URL names one"}},
		"created":            {answers(201, "text/plain", ""), executor.Failure{Message: "the agent answered 201 Created: it has to answer 200 with its output or with a stream of events"}},
		"refused":            {answers(403, "text/plain", "go away"), executor.Failure{Message: "the agent answered 403 Forbidden: go away"}},
		"overloaded":         {answers(503, "text/plain", ""), executor.Failure{Message: "the agent answered 503 Service Unavailable", Retryable: true}},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
		}, executor.Failure{Message: "the agent's answer broke off: unexpected EOF", Retryable: true}},
	} {
		_, _, err := runHTTP(t, service(t, c.handle))
		if f := failure(t, err); f != c.want {
			t.Errorf("%s: %+v, want %+v", name, f, c.want)
		}
	}
}

func TestAServiceLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	elsewhere := service(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	_, _, err := runHTTP(t, service(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.Agent.HTTP.URL, http.StatusTemporaryRedirect)
	}))
	if f := failure(t, err); f.Message != "the agent answered 307 Temporary Redirect: redirects are not followed" {
		t.Errorf("%+v", f)
	}
}

func TestOnlyTheWorkersOwnFileNamesAgentsThatAreNotPublic(t *testing.T) {
	t.Parallel()
	const refused = "the agent is not at a public address on port 80 or 443; only the worker's own agents.yaml may name another"
	for name, change := range map[string]func(*api.Agent){
		"by the API":            func(a *api.Agent) { a.Source = api.SourceAPI },
		"by the server's file":  func(a *api.Agent) { a.ID = "b" },
		"with a name for it":    func(a *api.Agent) { a.ID, a.HTTP = "b", &api.HTTP{URL: "http://localhost/"} },
		"the metadata service":  func(a *api.Agent) { a.ID, a.HTTP = "b", &api.HTTP{URL: "http://169.254.169.254/"} },
		"a private network":     func(a *api.Agent) { a.ID, a.HTTP = "b", &api.HTTP{URL: "http://10.0.0.1/"} },
		"in IPv6":               func(a *api.Agent) { a.ID, a.HTTP = "b", &api.HTTP{URL: "http://[::ffff:127.0.0.1]/"} },
		"a public one's port":   func(a *api.Agent) { a.ID, a.HTTP = "b", &api.HTTP{URL: "http://192.0.2.1:22/"} },
		"an address in decimal": func(a *api.Agent) { a.ID, a.HTTP = "b", &api.HTTP{URL: "http://0.0.0.0/"} },
	} {
		j := service(t, func(http.ResponseWriter, *http.Request) { t.Errorf("%s: it was reached", name) })
		change(&j.Agent)
		_, _, err := runHTTP(t, j)
		if f := failure(t, err); f.Message != refused || f.Retryable {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestASecretIsSentForTheWorkersOwnAgentsOnlyAndNeverShown(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	j := service(t, func(w http.ResponseWriter, r *http.Request) {
		answers(400, "text/plain", "you sent "+r.Header.Get("Authorization"))(w, r)
	})
	j.Agent.HTTP.SecretFile = secret
	_, _, err := runHTTP(t, j)
	if f := failure(t, err); f.Message != "the agent answered 400 Bad Request: you sent Bearer [secret]" {
		t.Errorf("%+v", f)
	}
	j.Agent.Source = api.SourceAPI
	_, _, err = runHTTP(t, j)
	if f := failure(t, err); f.Message != "agent a: http.secretFile is read for agents of the worker's own agents.yaml only" {
		t.Errorf("%+v", f)
	}
	j.Agent.Source, j.Agent.HTTP.SecretFile = api.SourceFile, "/dev/zero"
	_, _, err = runHTTP(t, j)
	if f := failure(t, err); f.Message != "agent a: http.secretFile: /dev/zero is no file of at most 16384 bytes" {
		t.Errorf("%+v", f)
	}
}

func TestAServiceThatIsNotThereMayBeLater(t *testing.T) {
	t.Parallel()
	j := service(t, nil)
	j.Agent.HTTP.URL = "http://127.0.0.1:1/"
	_, _, err := runHTTP(t, j)
	if f := failure(t, err); !strings.HasPrefix(f.Message, "the agent cannot be reached: ") || !f.Retryable {
		t.Errorf("%+v", f)
	}
}

func TestAServiceIsLeftAloneWhenTheTaskIsCancelledOrItIsSilent(t *testing.T) {
	t.Parallel()
	left := make(chan struct{}, 3)
	j := service(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		answers(200, "application/x-ndjson", `{"type":"log","message":"waiting 1"}`+"\n")(w, r)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		left <- struct{}{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	l := newListener()
	ended := make(chan error, 1)
	go func() {
		_, err := executor.NewHTTP([]string{"a"}).Run(ctx, j, l)
		ended <- err
	}()
	l.pid(t)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	<-left

	held := newListener()
	held.held.Store(3)
	patient := executor.NewHTTP([]string{"a"})
	patient.Silence(50 * time.Millisecond)
	began := time.Now()
	if _, err := patient.Run(t.Context(), j, held); time.Since(began) < 200*time.Millisecond || failure(t, err).Message != "the agent said nothing for 50ms" {
		t.Errorf("one that was held ended after %v with %v", time.Since(began), err)
	}
	<-left

	e := executor.NewHTTP([]string{"a"})
	e.Silence(200 * time.Millisecond)
	_, err := e.Run(t.Context(), j, newListener())
	if f := failure(t, err); f.Message != "the agent said nothing for 200ms" || !f.Retryable {
		t.Errorf("%+v", f)
	}
	<-left
}
