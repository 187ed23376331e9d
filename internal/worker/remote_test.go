package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
)

// reports is a server that records what it is told. It answers once the test lets
// it go on.
type reports struct {
	mu       sync.Mutex
	requests []int          // how many reports each brought
	made     map[string]int // by message
	shared   int            // status of requests with several; 0: they are answered
	refused  string         // a message
	goOn     chan struct{}
}

func startReports(t *testing.T) (*reports, *worker.Remote) {
	t.Helper()
	s := &reports{made: map[string]int{}, goOn: make(chan struct{})}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	client, err := api.NewClient(srv.URL, api.WithRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	return s, worker.NewRemote(client)
}

func (s *reports) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var several api.LeaseReports
	if alone := r.URL.Path != "/v1/tasks/reports"; alone {
		several.Reports = make([]api.LeaseReport, 1)
		_ = json.NewDecoder(r.Body).Decode(&several.Reports[0].Report)
	} else {
		_ = json.NewDecoder(r.Body).Decode(&several)
	}
	s.mu.Lock()
	s.requests = append(s.requests, len(several.Reports))
	s.mu.Unlock()
	<-s.goOn
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(several.Reports) > 1 && s.shared != 0 {
		writeProblem(w, s.shared, "not like this")
		return
	}
	var answer api.LeaseReportsAnswer
	for _, one := range several.Reports {
		a := api.ReportAnswer{}
		if one.Report.Message == s.refused {
			a.Problem = &api.Problem{Status: http.StatusUnprocessableEntity, Detail: "bad"}
		} else {
			s.made[one.Report.Message]++
		}
		answer.Reports = append(answer.Reports, a)
	}
	switch {
	case r.URL.Path == "/v1/tasks/reports":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	case answer.Reports[0].Problem != nil:
		writeProblem(w, answer.Reports[0].Problem.Status, "bad")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Problem{Status: status, Detail: detail})
}

// Reports that are made while one is under way share the next request; a bad one
// among them fails alone, also when it has the whole request refused.
func TestReportsThatComeTogetherShareARequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		shared   int
		requests int // at most: three come to help the first, one follows, and that of the large report
	}{
		"each is answered":                        {0, 6},
		"the request is refused":                  {http.StatusUnprocessableEntity, 6 + 19},
		"the server does not know such a request": {http.StatusNotFound, 6 + 19},
		"the server cannot":                       {http.StatusServiceUnavailable, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, remote := startReports(t)
			s.shared, s.refused = c.shared, "report 7"
			faults := make([]error, 20)
			var waiting sync.WaitGroup
			for i := range faults {
				waiting.Go(func() {
					r := api.Report{Message: fmt.Sprint("report ", i)}
					if i == 19 {
						r.Output = new(strings.Repeat("x", 100<<10)) // travels alone
					}
					faults[i] = remote.Report(t.Context(), fmt.Sprint("task-", i), "lease", r)
				})
			}
			awaitReporting(remote, 19)
			close(s.goOn)
			waiting.Wait()

			s.mu.Lock()
			defer s.mu.Unlock()
			for i, err := range faults {
				message := fmt.Sprint("report ", i)
				switch {
				case err == nil:
					if s.made[message] != 1 || i == 7 {
						t.Errorf("%s was made %d times", message, s.made[message])
					}
				case i == 7 && (c.shared == http.StatusServiceUnavailable || errors.Is(err, worker.ErrRefused)):
				case c.shared != http.StatusServiceUnavailable || errors.Is(err, worker.ErrRefused):
					t.Errorf("%s: %v", message, err)
				}
			}
			if len(s.requests) > c.requests {
				t.Errorf("%d reports took the requests %v", len(faults), s.requests)
			}
		})
	}
}

// A report whose maker has given up, and will repeat it, is not sent after that.
func TestAReportThatNobodyWaitsForIsNotSent(t *testing.T) {
	t.Parallel()
	s, remote := startReports(t)
	var first, given sync.WaitGroup
	first.Go(func() {
		if err := remote.Report(t.Context(), "task", "lease", api.Report{Message: "first"}); err != nil {
			t.Error(err)
		}
	})
	awaitReporting(remote, 1)
	ctx, giveUp := context.WithCancel(t.Context())
	given.Go(func() { // it waits for the first, which is about the same task
		if err := remote.Report(ctx, "task", "lease", api.Report{Message: "given up"}); !errors.Is(err, context.Canceled) {
			t.Errorf("what was given up returns %v", err)
		}
	})
	awaitReporting(remote, 2)
	giveUp()
	given.Wait()
	close(s.goOn)
	first.Wait()
	if err := remote.Report(t.Context(), "task", "lease", api.Report{Message: "last"}); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.made) != 2 || s.made["given up"] != 0 {
		t.Errorf("made were %v", s.made)
	}
}

// awaitReporting waits until n reports are under way or wait to be.
func awaitReporting(r *worker.Remote, n int) {
	for r.Reporting() < n {
		runtime.Gosched()
	}
}
