package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a worker.Server in memory that keeps the promises of the interface:
// leases that run out, tokens that fence, answers that wait.
type server struct {
	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, at each change
	lost    chan struct{} // likewise when a lease is lost
	tasks   []*row
	tokens  int
	lease   time.Duration

	down       error         // what every call fails with, if not nil
	dead       bool          // calls get no answer at all
	slow       time.Duration // of each report
	slowAnswer time.Duration // of each report, after what it changed
	cutOff     int           // reports that were given up before their answer
	slowClaim  time.Duration // of each claim that gets something
	refusing   func(api.Report) bool
	registered int
	carried    int  // reports that came with claims
	loseClaims int  // so many that carry reports are not answered
	beforeLoss bool // their reports arrive all the same

	refuseCarrying error // what claims that carry reports fail with
	drained        int   // how often the worker said that it takes no more
	draining       bool  // the worker is to stop
	renewals       int
	most           int // leases at one time

	artifacts map[string]string       // by name
	putting   func(name string) error // what a put fails with

	questions   []api.Question
	asked       int // calls of Ask
	loseAnswers int // so many of them are not answered
	uses        []api.UsageReport
	loseUses    int   // so many of them are not answered
	budget      int64 // in tokens; 0: none
	// waitWhenAsked lets a task that asked wait, as a real server does.
	waitWhenAsked bool
}

// row is a task with its history.
type row struct {
	api.Task
	token   string
	expires time.Time
	events  []api.ReportEvent
	reports []reported
	history []string
	lost    int
	left    *api.Suspension // what the next attempt goes on from
}

type reported struct {
	at time.Time
	api.Report
}

func newServer(tasks ...api.Task) *server {
	s := &server{changed: make(chan struct{}), lost: make(chan struct{}), lease: 30 * time.Second}
	for _, t := range tasks {
		s.tasks = append(s.tasks, &row{Task: t})
	}
	s.tell()
	return s
}

// task returns a pending task of an agent.
func task(agent string) api.Task {
	return api.Task{ID: "task-of-" + agent, AgentID: agent, Status: api.TaskPending, MaxAttempts: 1}
}

func (s *server) add(t api.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = append(s.tasks, &row{Task: t})
	s.tell()
}

func (s *server) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// row returns the task as it is now.
func (s *server) row(id string) row {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.tasks, func(r *row) bool { return r.ID == id })
	r := *s.tasks[i]
	r.events, r.reports, r.history = slices.Clone(r.events), slices.Clone(r.reports), slices.Clone(r.history)
	return r
}

func (s *server) count(field *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *field
}

func (s *server) set(change func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	s.tell()
}

// untilEnded waits until all tasks have, and what their worker does of itself has
// come to rest.
func (s *server) untilEnded() {
	for {
		s.mu.Lock()
		open := slices.ContainsFunc(s.tasks, func(r *row) bool { return !r.Status.Terminal() })
		changed := s.changed
		s.mu.Unlock()
		if !open {
			synctest.Wait()
			return
		}
		<-changed
	}
}

func (s *server) cancel(id string) {
	s.cancelQuietly(id)
	s.set(func(s *server) {
		close(s.lost)
		s.lost = make(chan struct{})
	})
}

// cancelQuietly cancels the task and wakes no heartbeat.
func (s *server) cancelQuietly(id string) {
	s.set(func(s *server) {
		i := slices.IndexFunc(s.tasks, func(r *row) bool { return r.ID == id })
		s.tasks[i].Status, s.tasks[i].token = api.TaskCancelled, ""
	})
}

// sweep takes away leases that ran out.
func (s *server) sweep() {
	for _, r := range s.tasks {
		if r.token != "" && time.Now().After(r.expires) {
			r.token, r.Status, r.lost = "", api.TaskWaiting, r.lost+1
		}
	}
}

func (s *server) reach(ctx context.Context) error {
	s.mu.Lock()
	down, dead := s.down, s.dead
	s.mu.Unlock()
	if dead {
		<-ctx.Done()
		return ctx.Err()
	}
	return down
}

func (s *server) Register(ctx context.Context, r api.WorkerRegistration) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	s.set(func(s *server) { s.registered++ })
	return nil
}

func (s *server) Claim(ctx context.Context, _ string, r api.ClaimRequest) (answer api.ClaimAnswer, faults []error, err error) {
	if len(r.Reports) > 0 {
		s.mu.Lock()
		lose, refusal := s.loseClaims > 0, s.refuseCarrying
		if lose {
			s.loseClaims--
		}
		s.mu.Unlock()
		switch {
		case refusal != nil:
			return answer, nil, refusal
		case lose && !s.beforeLoss:
			return answer, nil, errLost
		case lose:
			defer func() { answer, faults, err = api.ClaimAnswer{}, nil, errLost }()
			r.Max = 0
		}
	}
	for _, rep := range r.Reports {
		if err := s.reach(ctx); err != nil {
			return answer, nil, err
		}
		err := s.Report(ctx, rep.TaskID, rep.LeaseToken, rep.Report)
		if err == nil {
			s.set(func(s *server) { s.carried++ })
		}
		faults = append(faults, err)
		r.WaitSeconds = 0
	}
	answer, err = s.claim(ctx, r)
	return answer, faults, err
}

func (s *server) claim(ctx context.Context, r api.ClaimRequest) (api.ClaimAnswer, error) {
	deadline := time.After(time.Duration(r.WaitSeconds) * time.Second)
	for {
		if err := s.reach(ctx); err != nil {
			return api.ClaimAnswer{}, err
		}
		s.mu.Lock()
		s.sweep()
		var got []api.Lease
		held := 0
		for _, t := range s.tasks {
			if len(got) < r.Max && t.token == "" && !s.awaits(t) && (t.Status == api.TaskPending || t.Status == api.TaskWaiting) {
				s.tokens++
				t.token, t.expires = "lease-"+strconv.Itoa(s.tokens), time.Now().Add(s.lease)
				t.UpdatedAt = time.Now()
				t.Status = map[api.TaskStatus]api.TaskStatus{api.TaskPending: api.TaskPlanning, api.TaskWaiting: api.TaskRunning}[t.Status]
				t.Attempt++
				lease := api.Lease{Task: t.Task, LeaseToken: t.token, LeaseExpiresAt: t.expires, Attempt: t.Attempt}
				if t.AgentID != "nobody" {
					lease.Agent = &api.Agent{ID: t.AgentID}
				}
				if t.left != nil {
					lease.Resume = &api.Resumption{State: t.left.State}
					for _, q := range s.questions {
						if slices.Contains(t.left.Questions, q.ID) {
							lease.Resume.Outcomes = append(lease.Resume.Outcomes, q)
						}
					}
				}
				got = append(got, lease)
			}
			if t.token != "" {
				held++
			}
		}
		s.most = max(s.most, held)
		changed, draining := s.changed, s.draining
		s.mu.Unlock()
		if draining {
			return api.ClaimAnswer{Draining: true}, nil
		}
		if len(got) > 0 {
			time.Sleep(s.slowClaim)
			return api.ClaimAnswer{Leases: got}, nil
		}
		select {
		case <-changed:
		case <-deadline:
			return api.ClaimAnswer{}, nil
		case <-ctx.Done():
			return api.ClaimAnswer{}, ctx.Err()
		}
	}
}

func (s *server) Heartbeat(ctx context.Context, _ string, h api.Heartbeat) (answer api.HeartbeatAnswer, err error) {
	deadline := time.After(time.Duration(h.WaitSeconds) * time.Second)
	for {
		if err := s.reach(ctx); err != nil {
			return answer, err
		}
		s.mu.Lock()
		s.sweep()
		s.renewals++
		for _, token := range h.LeaseTokens {
			i := slices.IndexFunc(s.tasks, func(r *row) bool { return r.token == token })
			if i < 0 {
				answer.Lost = append(answer.Lost, token)
				continue
			}
			s.tasks[i].expires = time.Now().Add(s.lease)
		}
		lost := s.lost
		s.mu.Unlock()
		if len(answer.Lost) > 0 || h.WaitSeconds == 0 {
			return answer, nil
		}
		select {
		case <-lost:
		case <-deadline:
			return answer, nil
		case <-ctx.Done():
			return answer, ctx.Err()
		}
	}
}

// Ask keeps the question; answer, of the server, gives it an outcome.
func (s *server) Ask(ctx context.Context, id, token string, n api.NewQuestion) (api.Question, error) {
	if err := s.reach(ctx); err != nil {
		return api.Question{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	if !s.holds(id, token) {
		return api.Question{}, fmt.Errorf("task %s: %w", id, worker.ErrLeaseLost)
	}
	s.asked++
	i := slices.IndexFunc(s.questions, func(q api.Question) bool { return q.ID == n.ID })
	if i < 0 {
		i = len(s.questions)
		if s.waitWhenAsked {
			s.tasks[slices.IndexFunc(s.tasks, func(t *row) bool { return t.ID == id })].Status = api.TaskWaiting
		}
		s.questions = append(s.questions, api.Question{ID: n.ID, TaskID: id, Kind: n.Kind, Text: n.Text, Tool: n.Tool, Status: api.QuestionOpen})
		s.tell()
	}
	if s.loseAnswers > 0 {
		s.loseAnswers--
		return api.Question{}, errors.New("connection reset by peer")
	}
	return s.questions[i], nil
}

func (s *server) Question(ctx context.Context, id, token, question string, waitSeconds int) (api.Question, error) {
	deadline := time.After(time.Duration(waitSeconds) * time.Second)
	for {
		if err := s.reach(ctx); err != nil {
			return api.Question{}, err
		}
		s.mu.Lock()
		s.sweep()
		held, changed := s.holds(id, token), s.changed
		q := s.questions[slices.IndexFunc(s.questions, func(q api.Question) bool { return q.ID == question })]
		s.mu.Unlock()
		if !held {
			return q, fmt.Errorf("task %s: %w", id, worker.ErrLeaseLost)
		}
		if q.Status != api.QuestionOpen {
			return q, nil
		}
		select {
		case <-changed:
		case <-deadline:
			return q, nil
		case <-ctx.Done():
			return q, ctx.Err()
		}
	}
}

func (s *server) Authorize(ctx context.Context, id, token, skill string, u api.SkillUse) (api.SkillDecision, error) {
	switch skill {
	case "safe":
		return api.SkillDecision{Decision: api.SkillAllowed, Reason: "role developer grants it"}, nil
	case "forbidden":
		return api.SkillDecision{Decision: api.SkillDenied, Reason: "skill forbidden is denied"}, nil
	}
	_, err := s.Ask(ctx, id, token, api.NewQuestion{ID: u.QuestionID, Kind: api.QuestionApproval, Text: skill, Tool: u.Tool})
	return api.SkillDecision{Decision: api.SkillApproval, QuestionID: u.QuestionID}, err
}

// awaits says whether the task waits for people, without a worker. s.mu is held.
func (s *server) awaits(t *row) bool {
	return t.left != nil && slices.ContainsFunc(s.questions, func(q api.Question) bool {
		return q.Status == api.QuestionOpen && slices.Contains(t.left.Questions, q.ID)
	})
}

// LeaseState counts reports as events.
func (s *server) LeaseState(ctx context.Context, id, token string, after int64, waitSeconds int) (api.LeaseState, error) {
	deadline := time.After(time.Duration(waitSeconds) * time.Second)
	for {
		if err := s.reach(ctx); err != nil {
			return api.LeaseState{}, err
		}
		s.mu.Lock()
		s.sweep()
		r := s.tasks[slices.IndexFunc(s.tasks, func(r *row) bool { return r.ID == id })]
		st := api.LeaseState{Held: r.token == token, Status: r.Status, LastSeq: int64(len(r.reports))}
		changed := s.changed
		s.mu.Unlock()
		if !st.Held || st.LastSeq > after {
			return st, nil
		}
		select {
		case <-changed:
		case <-deadline:
			return st, nil
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

// holds says whether the lease is held. s.mu must be held too.
func (s *server) holds(id, token string) bool {
	return slices.ContainsFunc(s.tasks, func(t *row) bool { return t.ID == id && t.token == token })
}

// answer waits for the n-th question and gives it an outcome.
func (s *server) answer(n int, outcome api.QuestionStatus, a api.Answer) {
	for {
		s.mu.Lock()
		changed := s.changed
		if n < len(s.questions) {
			q := &s.questions[n]
			if q.Status = outcome; outcome != api.QuestionExpired {
				q.Answer, q.AnsweredBy = &a, "bob"
			}
			s.tell()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		<-changed
	}
}

func (s *server) Report(ctx context.Context, id, token string, r api.Report) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	time.Sleep(s.slow)
	if err := s.take(id, token, r); err != nil {
		return err
	}
	pause(ctx, s.slowAnswer)
	if ctx.Err() != nil {
		s.set(func(s *server) { s.cutOff++ })
	}
	return ctx.Err()
}

func (s *server) PutArtifact(ctx context.Context, id, token, name, contentType string, content io.ReadSeeker) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	text, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	if !slices.ContainsFunc(s.tasks, func(t *row) bool { return t.ID == id && t.token == token }) {
		return fmt.Errorf("task %s: %w", id, worker.ErrLeaseLost)
	}
	if s.putting != nil {
		if err := s.putting(name); err != nil {
			return err
		}
	}
	if s.artifacts == nil {
		s.artifacts = map[string]string{}
	}
	s.artifacts[name] = contentType + ": " + string(text)
	return nil
}

// take makes the change that a report asks for.
func (s *server) take(id, token string, r api.Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	i := slices.IndexFunc(s.tasks, func(t *row) bool { return t.ID == id && t.token == token })
	if i < 0 {
		return fmt.Errorf("task %s: %w", id, worker.ErrLeaseLost)
	}
	if s.refusing != nil && s.refusing(r) {
		return fmt.Errorf("this report: %w", worker.ErrRefused)
	}
	t := s.tasks[i]
	if r.Status == api.TaskCompleted && t.Status != api.TaskRunning || r.Status == api.TaskRunning && t.Status == api.TaskRunning {
		return fmt.Errorf("%s to %s: %w", t.Status, r.Status, worker.ErrRefused)
	}
	t.events = append(t.events, r.Events...)
	t.reports = append(t.reports, reported{time.Now(), r})
	if r.Output != nil {
		t.Output = *r.Output
	}
	if r.Release {
		t.Status, t.token, t.left = api.TaskWaiting, "", r.Resume
		t.history = append(t.history, "released: "+r.Message)
	}
	if r.Status != "" {
		t.Status, t.Error = r.Status, r.Error
		t.history = append(t.history, string(r.Status))
		if r.Retryable {
			t.history = append(t.history, "may be tried again")
		}
	}
	if r.Status.Terminal() {
		t.token = ""
	}
	s.tell()
	return nil
}

func (s *server) Drain(ctx context.Context, _ string) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	s.set(func(s *server) { s.drained++ })
	return nil
}

// run is an executor made of a function.
type run func(context.Context, executor.Job, executor.Sink) (string, error)

func (r run) Run(ctx context.Context, j executor.Job, s executor.Sink) (string, error) {
	return r(ctx, j, s)
}

// agents are executors by the ids of the agents that they run.
type agents map[string]run

func (a agents) For(agent api.Agent) (executor.Executor, error) {
	r, ok := a[agent.ID]
	if !ok {
		return nil, errors.New("agent " + agent.ID + " needs a model")
	}
	return r, nil
}

// start runs a worker until the test ends, or stop is called and returns.
func start(t *testing.T, s *server, a agents, change ...func(*worker.Config)) (stop func()) {
	t.Helper()
	c := worker.Config{ID: "w1", Server: s, Executors: a, Capacity: 4, Grace: 20 * time.Second, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.New(c).Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}
