package worker

import (
	"context"
	"errors"
	"io"

	"github.com/coderclaw/runtime/api"
)

// Errors of a Server that a worker acts on. Every other error means that the
// server could not be reached or was not able to: the call is tried again.
var (
	// ErrLeaseLost: the lease is held no more; nothing was changed.
	ErrLeaseLost = errors.New("the lease is held no more")
	// ErrRefused: the server understood and will not, however often it is asked.
	ErrRefused = errors.New("the server refused")
	// ErrUnknown: the server does not know the worker, which is to register.
	ErrUnknown = errors.New("the server does not know the worker")
)

// Server is where a worker finds its work. Its methods may be called
// concurrently. A write under a lease that is held no more fails with
// ErrLeaseLost and changes nothing.
type Server interface {
	// Register announces the worker, or what has changed of it. What another
	// instance of the same id still held is offered to others at once.
	Register(ctx context.Context, r api.WorkerRegistration) error

	// Drain says that the worker takes no more tasks and, once it holds no lease,
	// that it is gone.
	Drain(ctx context.Context, workerID string) error

	// Claim makes r.Reports, each as Report does, and returns the error of each.
	// Then it leases up to r.Max tasks, waiting up to r.WaitSeconds for the first
	// unless there were reports. No lease is not an error. It returns ErrUnknown
	// if the worker is to register first. If it fails, whether the reports were
	// made is open.
	Claim(ctx context.Context, workerID string, r api.ClaimRequest) (answer api.ClaimAnswer, faults []error, err error)

	// Heartbeat renews the leases, then waits up to h.WaitSeconds for one of
	// the worker's leases to be lost or its task cancelled.
	Heartbeat(ctx context.Context, workerID string, h api.Heartbeat) (api.HeartbeatAnswer, error)

	// Report records what happened under a lease: all of r, or nothing.
	Report(ctx context.Context, taskID, leaseToken string, r api.Report) error

	// LeaseState returns how the task of a lease stands, waiting up to so many
	// seconds for an event after the one with the number after, or for the lease
	// to be lost. After that it can still be asked.
	LeaseState(ctx context.Context, taskID, leaseToken string, after int64, waitSeconds int) (api.LeaseState, error)

	// PutArtifact keeps content, to its end, as a file of the task, in place of
	// one of that name.
	PutArtifact(ctx context.Context, taskID, leaseToken, name, contentType string, content io.ReadSeeker) error

	// Ask puts a question to people, under a lease. Asking again with the same
	// id changes nothing and returns the question as it is.
	Ask(ctx context.Context, taskID, leaseToken string, q api.NewQuestion) (api.Question, error)

	// Question returns a question that was asked under a lease, waiting up to
	// so many seconds for it to be open no more.
	Question(ctx context.Context, taskID, leaseToken, questionID string, waitSeconds int) (api.Question, error)

	// Authorize says whether a skill may be used now, under a lease. If that
	// takes an approval it has asked for it as Ask does, with u.QuestionID.
	Authorize(ctx context.Context, taskID, leaseToken, skillID string, u api.SkillUse) (api.SkillDecision, error)

	// Use counts what the agent has used so far. If the answer names a question
	// the agent is held until it is approved; with any other outcome the lease is
	// lost. Repeating it counts nothing twice.
	Use(ctx context.Context, taskID, leaseToken string, u api.UsageReport) (api.UsageAnswer, error)
}
