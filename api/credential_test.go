package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
)

// sessions is a server of one session whose tokens are a1, a2, … and r1, r2, …;
// valid is the number of the access token that it accepts.
type sessions struct {
	mu      sync.Mutex
	valid   int
	refresh int // number of the refresh token that is good now
	ended   bool
	seen    []string // method, path, Authorization
}

func (s *sessions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")))
	switch {
	case r.URL.Path == "/v1/sessions/refresh":
		var in api.RefreshRequest
		if json.NewDecoder(r.Body).Decode(&in) != nil || s.ended || in.RefreshToken != "r"+strconv.Itoa(s.refresh) {
			s.ended = true
			problem(w, http.StatusUnauthorized, "unauthenticated")
			return
		}
		s.refresh++
		s.valid = s.refresh
		writeJSON(w, http.StatusOK, s.opened())
	case r.Header.Get("Authorization") != "Bearer a"+strconv.Itoa(s.valid):
		problem(w, http.StatusUnauthorized, "unauthenticated")
	case strings.HasSuffix(r.URL.Path, "/stream"):
		send(w, frames(api.Event{Type: api.EventStatus, TaskID: taskID, Seq: 1, Status: api.TaskCompleted, Timestamp: start}))
	default:
		writeJSON(w, http.StatusOK, api.Task{ID: taskID})
	}
}

func (s *sessions) opened() api.OpenedSession {
	return api.OpenedSession{AccessToken: "a" + strconv.Itoa(s.refresh), RefreshToken: "r" + strconv.Itoa(s.refresh), TokenType: "Bearer", ExpiresIn: 600}
}

func (s *sessions) requests() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.seen = nil }()
	return strings.Join(s.seen, "\n")
}

func TestASessionIsRenewedWhenItsTokenExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &sessions{valid: 1, refresh: 1}
		c := inMemory(t, s, api.WithSession(s.opened()))
		for range 2 {
			if _, err := c.Task(t.Context(), taskID); err != nil {
				t.Fatal(err)
			}
			<-time.After(9*time.Minute + 31*time.Second)
		}
		path := "GET /v1/tasks/" + taskID
		if got, want := s.requests(), path+" Bearer a1\nPOST /v1/sessions/refresh\n"+path+" Bearer a2"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestARefusedTokenIsReplacedAndTheRequestSentAgain(t *testing.T) {
	t.Parallel()
	s := &sessions{valid: 2, refresh: 1} // as if the signing key had changed
	c := onSocket(t, s, api.WithSession(s.opened()))
	if _, err := c.CancelTask(t.Context(), taskID); err != nil {
		t.Fatal(err)
	}
	path := "POST /v1/tasks/" + taskID + "/cancel"
	if got, want := s.requests(), path+" Bearer a1\nPOST /v1/sessions/refresh\n"+path+" Bearer a2"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.valid = 5
	for _, err := range c.WatchTask(t.Context(), taskID, api.WatchOptions{After: new(int64)}) {
		if err != nil {
			t.Errorf("stream: %v", err)
		}
	}
}

func TestManyRequestsRenewASessionOnce(t *testing.T) {
	t.Parallel()
	s := &sessions{valid: 2, refresh: 1}
	c := onSocket(t, s, api.WithSession(s.opened()))
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := c.Task(t.Context(), taskID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(s.requests(), "/v1/sessions/refresh"); n != 1 {
		t.Errorf("the session was renewed %d times", n)
	}
}

func TestASessionThatHasEndedIsToldOnce(t *testing.T) {
	t.Parallel()
	s := &sessions{valid: 2, refresh: 1, ended: true}
	c := onSocket(t, s, api.WithSession(s.opened()))
	_, err := c.Task(t.Context(), taskID)
	var answer *api.Error
	if !errors.As(err, &answer) || answer.Status != http.StatusUnauthorized {
		t.Errorf("got %v", err)
	}
	if got, want := s.requests(), "GET /v1/tasks/"+taskID+" Bearer a1\nPOST /v1/sessions/refresh"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, err = range c.WatchTask(t.Context(), taskID, api.WatchOptions{}) {
	}
	if !errors.As(err, &answer) || answer.Status != http.StatusUnauthorized {
		t.Errorf("stream: got %v", err)
	}
}

func TestARefreshTokenIsNeverSentTwice(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	c := onSocket(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler) // the server may have done it
	}))
	if _, err := c.RefreshSession(t.Context(), "r1"); err == nil || asked.Load() != 1 {
		t.Errorf("got %v after %d attempts", err, asked.Load())
	}
}

func TestATokenSourceThatFailsSendsNothing(t *testing.T) {
	t.Parallel()
	locked := errors.New("the keyring is locked")
	calls := 0
	c := newClient(t, "http://127.0.0.1:1", api.WithTokenSource(func(context.Context, string) (api.Token, error) {
		calls++
		return api.Token{}, locked
	}))
	if _, err := c.Me(t.Context()); !errors.Is(err, locked) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

func TestEachRequestHasAProofOfItsOwn(t *testing.T) {
	t.Parallel()
	var seen []string
	failed := false
	var base string
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization")+"|"+r.Header.Get("DPoP"))
		base = "http://" + r.Host
		if !failed {
			failed = true
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		writeJSON(w, http.StatusOK, api.TaskList{})
	}), api.WithTokenSource(func(context.Context, string) (api.Token, error) { return api.Token{Value: "a", Type: "DPoP"}, nil }),
		api.WithProof(func(method, url, accessToken string) (string, error) {
			return fmt.Sprintf("%s %s %s %d", method, url, accessToken, len(seen)), nil
		}))
	if _, err := c.Tasks(t.Context(), api.TaskFilter{AgentID: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenSession(t.Context(), api.NewSession{APIKey: "k"}); err != nil {
		t.Fatal(err)
	}
	want := "DPoP a|GET " + base + "/v1/tasks a 0\nDPoP a|GET " + base + "/v1/tasks a 1\n|POST " + base + "/v1/sessions  2"
	if got := strings.Join(seen, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestATokenIsNotPrinted(t *testing.T) {
	t.Parallel()
	token := api.Token{Value: "s3cret"}
	if text := fmt.Sprintf("%v %+v %#v %s", token, token, token, token); strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}
