package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/coderclaw/runtime/api"
)

// Remote is a server that the worker reaches over HTTP. The client must make no
// tries of its own: the worker knows what is worth repeating, and how fast.
type Remote struct{ Client *api.Client }

var _ Server = Remote{}

// Register is as in Server.
func (r Remote) Register(ctx context.Context, w api.WorkerRegistration) error {
	return Told(r.Client.RegisterWorker(ctx, w))
}

// Drain is as in Server.
func (r Remote) Drain(ctx context.Context, workerID string) error {
	return Told(r.Client.DrainWorker(ctx, workerID))
}

// Claim is as in Server.
func (r Remote) Claim(ctx context.Context, workerID string, c api.ClaimRequest) (api.ClaimAnswer, []error, error) {
	answer, err := r.Client.Claim(ctx, workerID, c)
	if err == nil && len(answer.Reports) != len(c.Reports) {
		err = fmt.Errorf("the server answers %d of %d reports", len(answer.Reports), len(c.Reports))
	}
	if err != nil {
		return api.ClaimAnswer{}, nil, Told(err)
	}
	faults := make([]error, len(c.Reports))
	for i, a := range answer.Reports {
		if a.Problem != nil {
			faults[i] = Told(&api.Error{Problem: *a.Problem})
		}
	}
	return answer, faults, nil
}

// Heartbeat is as in Server.
func (r Remote) Heartbeat(ctx context.Context, workerID string, h api.Heartbeat) (api.HeartbeatAnswer, error) {
	answer, err := r.Client.Heartbeat(ctx, workerID, h)
	return answer, Told(err)
}

// Report is as in Server.
func (r Remote) Report(ctx context.Context, taskID, leaseToken string, report api.Report) error {
	return Told(r.Client.Report(ctx, taskID, leaseToken, report))
}

// LeaseState is as in Server.
func (r Remote) LeaseState(ctx context.Context, taskID, leaseToken string, after int64, waitSeconds int) (api.LeaseState, error) {
	st, err := r.Client.LeaseState(ctx, taskID, leaseToken, after, waitSeconds)
	return st, Told(err)
}

// PutArtifact is as in Server.
func (r Remote) PutArtifact(ctx context.Context, taskID, leaseToken, name, contentType string, content io.ReadSeeker) error {
	_, err := r.Client.PutArtifact(ctx, taskID, name, content, api.WithContentType(contentType), api.UnderLease(leaseToken))
	return Told(err)
}

// Ask is as in Server.
func (r Remote) Ask(ctx context.Context, taskID, leaseToken string, q api.NewQuestion) (api.Question, error) {
	asked, err := r.Client.Ask(ctx, taskID, leaseToken, q)
	return asked, Told(err)
}

// Question is as in Server.
func (r Remote) Question(ctx context.Context, taskID, leaseToken, questionID string, waitSeconds int) (api.Question, error) {
	q, err := r.Client.Question(ctx, taskID, leaseToken, questionID, waitSeconds)
	return q, Told(err)
}

// Authorize is as in Server.
func (r Remote) Authorize(ctx context.Context, taskID, leaseToken, skillID string, u api.SkillUse) (api.SkillDecision, error) {
	d, err := r.Client.AuthorizeSkill(ctx, taskID, leaseToken, skillID, u)
	return d, Told(err)
}

// Use is as in Server.
func (r Remote) Use(ctx context.Context, taskID, leaseToken string, u api.UsageReport) (api.UsageAnswer, error) {
	answer, err := r.Client.ReportUsage(ctx, taskID, leaseToken, u)
	return answer, Told(err)
}

// Told adds to an error of the client which of this package's errors it is.
func Told(err error) error {
	var answer *api.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch {
	case answer.Slug() == "lease-lost":
		return errors.Join(ErrLeaseLost, err)
	case answer.Status == http.StatusNotFound:
		return errors.Join(ErrUnknown, err)
	case answer.Status == http.StatusRequestTimeout, answer.Status == http.StatusTooManyRequests, answer.Status >= 500:
		return err
	}
	return errors.Join(ErrRefused, err)
}
