package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/batch"
)

// Remote is a server that the worker reaches over HTTP. Reports that are made
// while one is under way share the next request.
type Remote struct {
	client  *api.Client
	reports *batch.Group[string, *sending]
}

var _ Server = (*Remote)(nil)

// NewRemote returns the server that the client reaches. The client must make no
// tries of its own: the worker knows what is worth repeating, and how fast.
func NewRemote(client *api.Client) *Remote {
	r := &Remote{client: client}
	r.reports = batch.NewGroup[string](maxReports, r.send)
	return r
}

// Register is as in Server.
func (r *Remote) Register(ctx context.Context, w api.WorkerRegistration) error {
	return Told(r.client.RegisterWorker(ctx, w))
}

// Drain is as in Server.
func (r *Remote) Drain(ctx context.Context, workerID string) error {
	return Told(r.client.DrainWorker(ctx, workerID))
}

// Claim is as in Server.
func (r *Remote) Claim(ctx context.Context, workerID string, c api.ClaimRequest) (api.ClaimAnswer, []error, error) {
	answer, err := r.client.Claim(ctx, workerID, c)
	if err != nil {
		return api.ClaimAnswer{}, nil, Told(err)
	}
	return answer, faultsOf(answer.Reports), nil
}

// faultsOf returns what was wrong with each report.
func faultsOf(answers []api.ReportAnswer) []error {
	faults := make([]error, len(answers))
	for i, a := range answers {
		if a.Problem != nil {
			faults[i] = Told(&api.Error{Problem: *a.Problem})
		}
	}
	return faults
}

// Heartbeat is as in Server.
func (r *Remote) Heartbeat(ctx context.Context, workerID string, h api.Heartbeat) (api.HeartbeatAnswer, error) {
	answer, err := r.client.Heartbeat(ctx, workerID, h)
	return answer, Told(err)
}

// Report is as in Server. A caller who leaves does not take along those that it
// shares a request with: whether the report was made is open then. What has not
// been sent by then is not.
func (r *Remote) Report(ctx context.Context, taskID, leaseToken string, report api.Report) error {
	size, err := sizeOf(report)
	if err != nil {
		return err
	}
	if size > maxShared {
		return Told(r.client.Report(ctx, taskID, leaseToken, report))
	}
	s := &sending{ctx, api.LeaseReport{TaskID: taskID, LeaseToken: leaseToken, Report: report}, size, make(chan error, 1)}
	if err := r.reports.Add(s); err != nil {
		return err
	}
	select {
	case err := <-s.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	// maxReports is how many reports a request can carry.
	maxReports = 100
	// maxShared is the most bytes that a report has which shares a request; a
	// hundred of them are less than a server reads of one.
	maxShared = 64 << 10
)

func sizeOf(r api.Report) (int, error) {
	encoded, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("encode a report: %w", err)
	}
	return len(encoded), nil
}

// sending is a report on its way.
type sending struct {
	ctx context.Context // of who waits for the answer
	api.LeaseReport
	size   int
	answer chan error // holds what has become of it
}

// About is the task that is reported on.
func (s *sending) About() string { return s.TaskID }

// Size is how many bytes the report has.
func (s *sending) Size() int { return s.size }

// send makes reports in one request. If that is refused as a whole each is made
// alone, so that a bad one fails alone.
func (r *Remote) send(all []*sending) {
	var due []*sending
	var reports []api.LeaseReport
	for _, s := range all {
		if s.ctx.Err() == nil {
			due, reports = append(due, s), append(reports, s.LeaseReport)
		}
	}
	switch len(due) {
	case 0:
		return
	case 1:
		r.sendAlone(due[0])
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	answers, err := r.client.ReportAll(ctx, reports)
	err = Told(err)
	faults := faultsOf(answers)
	for i, s := range due {
		switch {
		case errors.Is(err, ErrRefused), errors.Is(err, ErrUnknown):
			r.sendAlone(s)
		case err != nil:
			s.answer <- err
		default:
			s.answer <- faults[i]
		}
	}
}

func (r *Remote) sendAlone(s *sending) {
	s.answer <- Told(r.client.Report(s.ctx, s.TaskID, s.LeaseToken, s.Report))
}

// LeaseState is as in Server.
func (r *Remote) LeaseState(ctx context.Context, taskID, leaseToken string, after int64, waitSeconds int) (api.LeaseState, error) {
	st, err := r.client.LeaseState(ctx, taskID, leaseToken, after, waitSeconds)
	return st, Told(err)
}

// PutArtifact is as in Server.
func (r *Remote) PutArtifact(ctx context.Context, taskID, leaseToken, name, contentType string, content io.ReadSeeker) error {
	_, err := r.client.PutArtifact(ctx, taskID, name, content, api.WithContentType(contentType), api.UnderLease(leaseToken))
	return Told(err)
}

// Ask is as in Server.
func (r *Remote) Ask(ctx context.Context, taskID, leaseToken string, q api.NewQuestion) (api.Question, error) {
	asked, err := r.client.Ask(ctx, taskID, leaseToken, q)
	return asked, Told(err)
}

// Question is as in Server.
func (r *Remote) Question(ctx context.Context, taskID, leaseToken, questionID string, waitSeconds int) (api.Question, error) {
	q, err := r.client.Question(ctx, taskID, leaseToken, questionID, waitSeconds)
	return q, Told(err)
}

// Authorize is as in Server.
func (r *Remote) Authorize(ctx context.Context, taskID, leaseToken, skillID string, u api.SkillUse) (api.SkillDecision, error) {
	d, err := r.client.AuthorizeSkill(ctx, taskID, leaseToken, skillID, u)
	return d, Told(err)
}

// Use is as in Server.
func (r *Remote) Use(ctx context.Context, taskID, leaseToken string, u api.UsageReport) (api.UsageAnswer, error) {
	answer, err := r.client.ReportUsage(ctx, taskID, leaseToken, u)
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
