package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/task"
)

// Workers is the part of the task engine that workers use.
type Workers interface {
	RegisterWorker(ctx context.Context, c policy.Caller, w task.NewWorker) error
	Workers(ctx context.Context, c policy.Caller) ([]task.Worker, error)
	DrainWorker(ctx context.Context, c policy.Caller, id string) error
	Claim(ctx context.Context, c policy.Caller, workerID string, max int, wait time.Duration) (leases []task.Lease, draining bool, err error)
	Heartbeat(ctx context.Context, c policy.Caller, workerID string, leases []uuid.UUID, wait time.Duration) (lost []uuid.UUID, err error)
	ReportAll(ctx context.Context, c policy.Caller, reports []task.LeaseReport) []error
	Holding(ctx context.Context, c policy.Caller, id, lease uuid.UUID, after int64, wait time.Duration) (task.Holding, error)
	Leased(ctx context.Context, c policy.Caller, id, lease uuid.UUID) (task.Task, error)
	// Lease is for comparing it with what an agent shows.
	Lease(ctx context.Context, id uuid.UUID) (uuid.UUID, error)
	Asking
	Spending
}

// LeaseInput names the lease by whose right a worker asks.
type LeaseInput struct {
	Lease string `header:"Lease-Token" format:"uuid" doc:"The lease of the task, by whose right a worker asks."`
}

// token is the lease's; nil if none is named.
func (in *LeaseInput) token() (*uuid.UUID, error) {
	if in.Lease == "" {
		return nil, nil
	}
	id, err := parseID(in.Lease, "header.Lease-Token")
	return &id, err
}

// required is the lease's token where one must be named, which the token of an
// agent does.
func (in *LeaseInput) required(c policy.Caller) (uuid.UUID, error) {
	if c.Lease != nil {
		return parseID(c.Lease.Token, "header.Authorization")
	}
	token, err := in.token()
	switch {
	case err != nil:
		return uuid.Nil, err
	case token == nil:
		return uuid.Nil, fault.InvalidFields([]fault.Field{{Path: "header.Lease-Token", Message: "is required"}})
	}
	return *token, nil
}

// maxReport is the largest report that is read: an output of a megabyte, escaped,
// and events.
const maxReport = 8 << 20

func (s *Server) registerWorkers() {
	handle(s, operation{
		id: "registerWorker", action: "worker.register", method: http.MethodPost, path: "/v1/workers", permission: policy.Work, tag: "Workers",
		summary: "Register a worker", status: http.StatusNoContent,
		detail: "For the credentials of workers (clawctl worker token), and for administrators. Repeated by the same instance it says what has changed; by another instance it also hands back what the former one held.",
		errors: []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.registerWorker)
	handle(s, operation{
		id: "listWorkers", action: "worker.list", method: http.MethodGet, path: "/v1/workers", permission: policy.Work, tag: "Workers",
		summary: "List workers, with their load",
	}, s.listWorkers)
	handle(s, operation{
		id: "claimTasks", action: "task.claim", method: http.MethodPost, path: "/v1/workers/{id}/claim", permission: policy.Work, tag: "Workers", wait: maxWait, body: maxReport,
		summary: "Lease tasks to a worker, waiting for the first",
		detail:  "Answers as soon as there is work, with no leases after waitSeconds, and with 404 if the worker is not registered. It can carry reports, which are recorded first.",
		errors:  []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.claimTasks)
	handle(s, operation{
		id: "heartbeat", action: "worker.heartbeat", method: http.MethodPost, path: "/v1/workers/{id}/heartbeat", permission: policy.Work, tag: "Workers", wait: maxWait,
		summary: "Renew leases, and hear of those that are lost",
		detail:  "Answers as soon as one of the leases is lost or its task cancelled, else after waitSeconds.",
		errors:  []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.heartbeat)
	handle(s, operation{
		id: "drainWorker", action: "worker.drain", method: http.MethodDelete, path: "/v1/workers/{id}", permission: policy.Work, tag: "Workers",
		summary: "Have a worker take no more tasks", status: http.StatusNoContent,
		detail: "A worker says so of itself before it stops. One that an administrator drains finishes what it runs, and stops.",
		errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.drainWorker)
	handle(s, operation{
		id: "reportTask", action: "task.report", method: http.MethodPost, path: "/v1/tasks/{id}/reports", permission: policy.Work, agents: true, tag: "Workers", body: maxReport,
		summary: "Report on a leased task", status: http.StatusNoContent,
		detail: "What is reported under a lease that is held no more is answered with 409 lease-lost and changes nothing. An agent that answered 202 reports with the token that it was given, which names the lease.",
		errors: []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
	}, s.reportTask)
	handle(s, operation{
		id: "reportTasks", action: "task.report", method: http.MethodPost, path: "/v1/tasks/reports", permission: policy.Work, tag: "Workers", body: maxReport,
		summary: "Report on several leased tasks",
		detail:  "Each report is recorded or refused by itself, as by POST /v1/tasks/{id}/reports; those about one task keep their order.",
		errors:  []int{http.StatusUnprocessableEntity},
	}, s.reportTasks)
}

func (s *Server) registerWorker(ctx context.Context, c policy.Caller, in *struct{ Body api.WorkerRegistration }) (*struct{}, error) {
	instance, err := parseID(in.Body.Instance, "body.instance")
	if err != nil {
		return nil, err
	}
	return nil, s.workers.RegisterWorker(ctx, c, NewWorker(in.Body, instance))
}

// NewWorker is what the engine is told of a worker that registers.
func NewWorker(r api.WorkerRegistration, instance uuid.UUID) task.NewWorker {
	return task.NewWorker{ID: r.ID, Instance: instance, Agents: r.Agents, Labels: r.Labels, Capacity: r.Capacity, Version: r.Version}
}

func (s *Server) listWorkers(ctx context.Context, c policy.Caller, _ *struct{}) (*struct{ Body api.WorkerList }, error) {
	workers, err := s.workers.Workers(ctx, c)
	if err != nil {
		return nil, err
	}
	list := api.WorkerList{Items: make([]api.Worker, len(workers))}
	for i, w := range workers {
		list.Items[i] = api.Worker{
			ID: w.ID, UserID: w.Owner, Agents: w.Agents, Labels: w.Labels, Projects: w.Projects, Capacity: w.Capacity, Running: w.Running,
			Version: w.Version, Draining: w.Draining, Present: w.Present, RegisteredAt: w.RegisteredAt.UTC(), LastSeenAt: w.LastSeenAt.UTC(),
		}
	}
	return &struct{ Body api.WorkerList }{list}, nil
}

func (s *Server) claimTasks(ctx context.Context, c policy.Caller, in *struct {
	NameInput
	Body api.ClaimRequest
}) (*struct{ Body api.ClaimAnswer }, error) {
	faults := ReportAll(ctx, s.workers, c, in.Body.Reports)
	waiting, stop := s.untilStopping(ctx)
	defer stop()
	answer, err := Claim(waiting, s.workers, s.registry, c, in.ID, in.Body)
	if err != nil {
		return nil, err
	}
	answer.Reports = s.reportAnswers(ctx, faults)
	return &struct{ Body api.ClaimAnswer }{answer}, nil
}

func (s *Server) reportTasks(ctx context.Context, c policy.Caller, in *struct{ Body api.LeaseReports }) (*struct{ Body api.LeaseReportsAnswer }, error) {
	faults := ReportAll(ctx, s.workers, c, in.Body.Reports)
	return &struct{ Body api.LeaseReportsAnswer }{api.LeaseReportsAnswer{Reports: s.reportAnswers(ctx, faults)}}, nil
}

// reportAnswers tells of the fault of each report.
func (s *Server) reportAnswers(ctx context.Context, faults []error) []api.ReportAnswer {
	answers := make([]api.ReportAnswer, len(faults))
	for i, err := range faults {
		if err != nil {
			answers[i].Problem = &problemOf(ctx, s.log, err).Problem
		}
	}
	return answers
}

// ReportAll makes reports, and returns the fault of each.
func ReportAll(ctx context.Context, tasks interface {
	ReportAll(ctx context.Context, c policy.Caller, reports []task.LeaseReport) []error
}, c policy.Caller, reports []api.LeaseReport) []error {
	faults := make([]error, len(reports))
	var good []task.LeaseReport
	var places []int
	for i, r := range reports {
		var l task.LeaseReport
		if l, faults[i] = newLeaseReport(r); faults[i] == nil {
			good, places = append(good, l), append(places, i)
		}
	}
	for i, err := range tasks.ReportAll(ctx, c, good) {
		faults[places[i]] = err
	}
	return faults
}

// Claim claims what r asks for, without its reports: with any it does not wait,
// since what has become of them is to be heard.
func Claim(ctx context.Context, tasks interface {
	Claim(ctx context.Context, c policy.Caller, workerID string, max int, wait time.Duration) (leases []task.Lease, draining bool, err error)
}, agents interface {
	Agent(ctx context.Context, id string) (registry.Agent, error)
}, c policy.Caller, workerID string, r api.ClaimRequest) (api.ClaimAnswer, error) {
	wait := time.Duration(r.WaitSeconds) * time.Second
	if len(r.Reports) > 0 {
		wait = 0
	}
	leases, draining, err := tasks.Claim(ctx, c, workerID, r.Max, wait)
	answer := api.ClaimAnswer{Leases: make([]api.Lease, len(leases)), Draining: draining}
	for i, l := range leases {
		var unread error
		if answer.Leases[i], unread = wireLease(ctx, l, agents); unread != nil {
			return api.ClaimAnswer{}, unread
		}
	}
	return answer, err
}

func newLeaseReport(r api.LeaseReport) (l task.LeaseReport, err error) {
	if l.TaskID, err = parseID(r.TaskID, "taskId"); err != nil {
		return l, err
	}
	if l.Lease, err = parseID(r.LeaseToken, "leaseToken"); err != nil {
		return l, err
	}
	l.Report, err = NewReport(r.Report)
	return l, err
}

// wireLease is a lease as its worker sees it, with the definition of its agent.
func wireLease(ctx context.Context, l task.Lease, agents interface {
	Agent(ctx context.Context, id string) (registry.Agent, error)
}) (api.Lease, error) {
	wire := api.Lease{Task: WireTask(l.Task), LeaseToken: l.LeaseToken.String(), LeaseExpiresAt: l.LeaseExpiresAt.UTC(), Attempt: l.Attempt}
	if l.Resume != nil {
		wire.Resume = &api.Resumption{State: l.Resume.State, Outcomes: []api.Question{}}
		for _, q := range l.Outcomes {
			wire.Resume.Outcomes = append(wire.Resume.Outcomes, WireQuestion(q))
		}
	}
	a, err := agents.Agent(ctx, l.AgentID)
	if fault.CodeOf(err) == fault.NotFound {
		return wire, nil
	}
	definition := WireAgent(a)
	wire.Agent = &definition
	return wire, err
}

func (s *Server) heartbeat(ctx context.Context, c policy.Caller, in *struct {
	NameInput
	Body api.Heartbeat
}) (*struct{ Body api.HeartbeatAnswer }, error) {
	tokens, err := parseIDs(in.Body.LeaseTokens, "body.leaseTokens")
	if err != nil {
		return nil, err
	}
	waiting, stop := s.untilStopping(ctx)
	defer stop()
	lost, err := s.workers.Heartbeat(waiting, c, in.ID, tokens, time.Duration(in.Body.WaitSeconds)*time.Second)
	return &struct{ Body api.HeartbeatAnswer }{api.HeartbeatAnswer{Lost: append([]string{}, uuidStrings(lost)...)}}, err
}

// untilStopping is ctx, but ends when the server stops, so that whoever waits
// asks another server.
func (s *Server) untilStopping(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (s *Server) drainWorker(ctx context.Context, c policy.Caller, in *NameInput) (*struct{}, error) {
	return nil, s.workers.DrainWorker(ctx, c, in.ID)
}

func (s *Server) reportTask(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	LeaseInput
	Body api.Report
}) (*struct{}, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	lease, err := in.required(c)
	if err != nil {
		return nil, err
	}
	r, err := NewReport(in.Body)
	if err != nil {
		return nil, err
	}
	return nil, s.workers.ReportAll(ctx, c, []task.LeaseReport{{TaskID: id, Lease: lease, Report: r}})[0]
}

// NewReport is what the engine is told by a worker's report. It returns Invalid
// for one that gives back what it does not, or names what are no questions.
func NewReport(r api.Report) (task.Report, error) {
	report := task.Report{
		Status: task.Status(r.Status), Progress: r.Progress, Output: r.Output, Error: r.Error,
		Message: r.Message, Reason: r.Reason, Retryable: r.Retryable, Release: r.Release,
	}
	for _, e := range r.Events {
		report.Events = append(report.Events, task.ReportEvent{
			Type: task.EventType(e.Type), Message: e.Message, Progress: e.Progress, Data: e.Data,
		})
	}
	if r.Resume != nil {
		if !r.Release || r.Status != "" {
			return report, fault.InvalidFields([]fault.Field{{Path: "body.resume", Message: "goes with release, and without a status"}})
		}
		questions, err := parseIDs(r.Resume.Questions, "body.resume.questions")
		if err != nil {
			return report, err
		}
		report.Resume = &task.Suspension{State: r.Resume.State, Questions: questions}
	}
	return report, nil
}
