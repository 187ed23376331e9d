package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/coderclaw/runtime/api"
)

// useInterval is the least time from one report of use to the next.
const useInterval = time.Second

// spending is what the agent of one attempt uses, and how it is held when a
// budget is exceeded.
type spending struct {
	mu     sync.Mutex
	totals map[string]api.Usage // by source
	news   bool                 // there are totals that the server was not told
	ready  chan struct{}        // holds one element then
	held   chan struct{}        // closed when the agent may go on; nil: it is not held
	stops  map[*stop]struct{}
}

// stop is how what an executor runs is stopped for a while.
type stop struct{ stop, goOn func() }

func newSpending() *spending {
	return &spending{totals: map[string]api.Usage{}, ready: make(chan struct{}, 1), stops: map[*stop]struct{}{}}
}

// Used implements executor.Sink.
func (s *sink) Used(source string, total api.Usage) {
	s.quiet.broken()
	u := s.spending
	u.mu.Lock()
	defer u.mu.Unlock()
	u.totals[source], u.news = total, true
	select {
	case u.ready <- struct{}{}:
	default:
	}
}

// Hold implements executor.Sink.
func (s *sink) Hold(halt, goOn func()) (release func()) {
	u, mine := s.spending, &stop{halt, goOn}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stops[mine] = struct{}{}
	if u.held != nil {
		halt()
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.stops, mine)
	}
}

// Held implements executor.Sink.
func (s *sink) Held() bool { return s.spending.waiting() != nil }

// waiting is closed when the agent may go on; nil: it is not held.
func (u *spending) waiting() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held
}

// hold stops the agent until goOn is called.
func (u *spending) hold() (goOn func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = make(chan struct{})
	for s := range u.stops {
		s.stop()
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for s := range u.stops {
			s.goOn()
		}
		close(u.held)
		u.held = nil
	}
}

// take returns what the server is to be told.
func (u *spending) take() []api.SourceUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.news = false
	select {
	case <-u.ready:
	default:
	}
	told := make([]api.SourceUsage, 0, len(u.totals))
	for source, total := range u.totals {
		told = append(told, api.SourceUsage{Source: source, Usage: total})
	}
	return told
}

// spend tells the server what the agent uses until ctx ends.
func (s *sink) spend(ctx context.Context) {
	for {
		select {
		case <-s.spending.ready:
		case <-ctx.Done():
			return
		}
		// An agent that says so with its last words has ended by then.
		if pause(ctx, flushInterval); ctx.Err() != nil {
			return
		}
		began := time.Now()
		s.tellUse(ctx)
		pause(ctx, time.Until(began.Add(useInterval)))
	}
}

// tellUse tells the server what the agent has used, and holds it for as long as
// a budget is exceeded. It returns when the agent may go on, or when ctx or the
// attempt ends.
func (s *sink) tellUse(ctx context.Context) {
	var goOn func()
	defer func() {
		if goOn != nil {
			goOn()
		}
	}()
	for ctx.Err() == nil {
		answer, err := s.use(ctx, false)
		if err != nil || answer.QuestionID == "" {
			return
		}
		if goOn == nil {
			goOn = s.spending.hold()
		}
		q, err := s.await(ctx, func(string) {}, func(context.Context) (api.Question, error) {
			return api.Question{ID: answer.QuestionID, Status: api.QuestionOpen}, nil
		})
		if err != nil {
			return
		}
		if q.Status != api.QuestionApproved { // the task has failed: the lease ends soon
			select {
			case <-s.heard.Done():
			case <-ctx.Done():
			}
			return
		}
	}
}

// use tells the server what the agent has used so far. It insists, and what the
// server was not told is told with the next call.
func (s *sink) use(ctx context.Context, final bool) (answer api.UsageAnswer, err error) {
	report := api.UsageReport{Usage: s.spending.take(), Final: final}
	err = s.insist(ctx, 0, func(ctx context.Context) (err error) {
		answer, err = s.server.Use(ctx, s.lease.taskID, s.lease.token, report)
		return err
	})
	switch {
	case err == nil:
	case errors.Is(err, ErrRefused):
		s.log.WarnContext(ctx, "the server refuses what the agent says that it uses", "error", err)
	default:
		s.spending.mu.Lock()
		s.spending.news = true
		s.spending.mu.Unlock()
	}
	return answer, err
}

// settle tells the server, once the agent has ended, what it was not told.
func (s *sink) settle(ctx context.Context) {
	s.spending.mu.Lock()
	news := s.spending.news
	s.spending.mu.Unlock()
	if news {
		_, _ = s.use(ctx, true) // what it could not be told is in the log, or the lease is lost
	}
}
