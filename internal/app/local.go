package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/httpapi"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/worker"
)

// localServer is the server as a worker in the same process sees it.
type localServer struct {
	tasks    *task.Service
	registry *registry.Registry
}

var _ worker.Server = localServer{}

func (l localServer) Register(ctx context.Context, r api.WorkerRegistration) error {
	instance, err := uuid.Parse(r.Instance)
	if err != nil {
		return fmt.Errorf("read the instance: %w", err)
	}
	return forWorker(l.tasks.RegisterWorker(ctx, task.InProcess, httpapi.NewWorker(r, instance)))
}

func (l localServer) Drain(ctx context.Context, workerID string) error {
	return forWorker(l.tasks.DrainWorker(ctx, task.InProcess, workerID))
}

func (l localServer) Claim(ctx context.Context, workerID string, r api.ClaimRequest) (api.ClaimAnswer, []error, error) {
	faults := httpapi.ReportAll(ctx, l.tasks, task.InProcess, r.Reports)
	for i, err := range faults {
		faults[i] = forWorker(err)
	}
	answer, err := httpapi.Claim(ctx, l.tasks, l.registry, task.InProcess, workerID, r)
	return answer, faults, forWorker(err)
}

func (l localServer) Heartbeat(ctx context.Context, workerID string, h api.Heartbeat) (api.HeartbeatAnswer, error) {
	tokens := make([]uuid.UUID, len(h.LeaseTokens))
	for i, t := range h.LeaseTokens {
		var err error
		if tokens[i], err = uuid.Parse(t); err != nil {
			return api.HeartbeatAnswer{}, fmt.Errorf("read a lease token: %w", err)
		}
	}
	lost, err := l.tasks.Heartbeat(ctx, task.InProcess, workerID, tokens, time.Duration(h.WaitSeconds)*time.Second)
	answer := api.HeartbeatAnswer{}
	for _, t := range lost {
		answer.Lost = append(answer.Lost, t.String())
	}
	return answer, err
}

func (l localServer) Report(ctx context.Context, taskID, leaseToken string, r api.Report) error {
	id, token, err := parseLease(taskID, leaseToken)
	if err != nil {
		return err
	}
	report, err := httpapi.NewReport(r)
	if err != nil {
		return forWorker(err)
	}
	return forWorker(l.tasks.Report(ctx, task.InProcess, id, token, report))
}

// parseLease reads the ids of a task and its lease.
func parseLease(taskID, leaseToken string) (id, token uuid.UUID, err error) {
	if id, err = uuid.Parse(taskID); err != nil {
		return id, token, fmt.Errorf("read a task id: %w", err)
	}
	if token, err = uuid.Parse(leaseToken); err != nil {
		return id, token, fmt.Errorf("read a lease token: %w", err)
	}
	return id, token, nil
}

func (l localServer) LeaseState(ctx context.Context, taskID, leaseToken string, after int64, waitSeconds int) (api.LeaseState, error) {
	id, token, err := parseLease(taskID, leaseToken)
	if err != nil {
		return api.LeaseState{}, err
	}
	st, err := l.tasks.Holding(ctx, task.InProcess, id, token, after, time.Duration(waitSeconds)*time.Second)
	return httpapi.WireLeaseState(st), forWorker(err)
}

func (l localServer) Ask(ctx context.Context, taskID, leaseToken string, q api.NewQuestion) (api.Question, error) {
	id, token, err := parseLease(taskID, leaseToken)
	if err != nil {
		return api.Question{}, err
	}
	n, err := httpapi.NewQuestion(q)
	if err != nil {
		return api.Question{}, forWorker(err)
	}
	asked, err := l.tasks.Ask(ctx, task.InProcess, id, token, n)
	return httpapi.WireQuestion(asked), forWorker(err)
}

func (l localServer) Question(ctx context.Context, taskID, leaseToken, questionID string, waitSeconds int) (api.Question, error) {
	id, token, err := parseLease(taskID, leaseToken)
	if err != nil {
		return api.Question{}, err
	}
	question, err := uuid.Parse(questionID)
	if err != nil {
		return api.Question{}, fmt.Errorf("read a question id: %w", err)
	}
	q, err := l.tasks.Question(ctx, task.InProcess, id, token, question, time.Duration(waitSeconds)*time.Second)
	return httpapi.WireQuestion(q), forWorker(err)
}

func (l localServer) Authorize(ctx context.Context, taskID, leaseToken, skillID string, u api.SkillUse) (api.SkillDecision, error) {
	id, token, err := parseLease(taskID, leaseToken)
	if err != nil {
		return api.SkillDecision{}, err
	}
	question, err := uuid.Parse(u.QuestionID)
	if err != nil {
		return api.SkillDecision{}, fmt.Errorf("read a question id: %w", err)
	}
	d, err := l.tasks.Authorize(ctx, task.InProcess, id, token, skillID, question, httpapi.NewToolCall(u.Tool))
	return httpapi.WireSkillDecision(d), forWorker(err)
}

func (l localServer) Use(ctx context.Context, taskID, leaseToken string, r api.UsageReport) (api.UsageAnswer, error) {
	id, token, err := parseLease(taskID, leaseToken)
	if err != nil {
		return api.UsageAnswer{}, err
	}
	used, err := httpapi.NewUsed(r.Usage)
	if err != nil {
		return api.UsageAnswer{}, forWorker(err)
	}
	held, err := l.tasks.Use(ctx, task.InProcess, id, token, used, r.Final)
	return httpapi.WireUsageAnswer(held), forWorker(err)
}

func (l localServer) PutArtifact(ctx context.Context, taskID, leaseToken, name, contentType string, content io.ReadSeeker) error {
	id, err := uuid.Parse(taskID)
	if err != nil {
		return fmt.Errorf("read a task id: %w", err)
	}
	token, err := uuid.Parse(leaseToken)
	if err != nil {
		return fmt.Errorf("read a lease token: %w", err)
	}
	n := task.NewArtifact{TaskID: id, Lease: &token, Name: name, ContentType: contentType, Size: -1}
	_, _, err = l.tasks.PutArtifact(ctx, task.InProcess, n, content)
	return forWorker(err)
}

// forWorker says of an error what a worker must know: whether its lease is
// lost, or whether trying again is of no use.
func forWorker(err error) error {
	switch fault.CodeOf(err) {
	case "", fault.Unavailable:
		return err
	case fault.LeaseLost:
		return errors.Join(worker.ErrLeaseLost, err)
	case fault.NotFound:
		return errors.Join(worker.ErrUnknown, err)
	}
	return errors.Join(worker.ErrRefused, err)
}

// runnable tells the task engine what the registry knows.
type runnable struct{ *registry.Registry }

func (r runnable) Runnable(ctx context.Context, agentID string) error {
	a, err := r.Agent(ctx, agentID)
	if err == nil && !a.Available {
		return fault.New(fault.AgentUnavailable, "%s", a.Unavailable)
	}
	return err
}
