package task

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// Report is what a worker says of a task that it holds a lease of.
type Report struct {
	Events   []ReportEvent
	Status   Status
	Progress *int
	Output   *string
	Error    string // with Failed
	Message  string // told with the change of status
	// Retryable says that a failed attempt may be tried again: while attempts
	// remain the task then waits for the next one.
	Retryable bool
	// Release gives the lease back with the work undone.
	Release bool
	// Resume, with Release while people are asked, is what the attempt goes on
	// from: the task waits for them without a worker.
	Resume *Suspension
	// Reason names why a failed attempt did: timeout, silent, exit:75, ….
	Reason string
}

// ReportEvent is one event of a Report.
type ReportEvent struct {
	Type     EventType
	Message  string
	Progress *int
	Data     json.RawMessage
}

// LeaseReport is a report on a task by the right of a lease.
type LeaseReport struct {
	TaskID, Lease uuid.UUID
	Report
}

// Report records what a worker says under a lease, or its agent by a token of its
// own. It returns LeaseLost, and changes nothing, if the lease is held no more,
// or by another principal's worker.
func (s *Service) Report(ctx context.Context, c policy.Caller, id, lease uuid.UUID, r Report) error {
	return s.ReportAll(ctx, c, []LeaseReport{{id, lease, r}})[0]
}

// ReportAll is Report for several, each of which is recorded or refused by
// itself. Those about one task keep their order. It returns the fault of each.
func (s *Service) ReportAll(ctx context.Context, c policy.Caller, reports []LeaseReport) []error {
	faults := make([]error, len(reports))
	changes := make([]*change, len(reports)) // that are being written
	finish := func() {
		for i, ch := range changes {
			if ch == nil {
				continue
			}
			changes[i] = nil
			if _, faults[i] = s.await(ctx, ch); faults[i] == nil && c.Lease != nil && ch.status.Terminal() {
				s.tellHolder(ctx, ch.id)
			}
		}
	}
	for i, r := range reports {
		if r.Resume != nil {
			finish()
			faults[i] = s.suspend(ctx, c, r.TaskID, r.Lease, r.Report)
			continue
		}
		ch, err := r.change(c)
		if err == nil && len(ch.events) > 0 {
			if err = s.reports.Add(ch); err == nil {
				changes[i] = ch
			}
		}
		faults[i] = err
	}
	finish()
	return faults
}

// change is what the report writes on behalf of c.
func (r LeaseReport) change(c policy.Caller) (*change, error) {
	ch := &change{
		id: r.TaskID, lease: &r.Lease, caller: c, status: r.Status, progress: clamped(r.Progress), output: r.Output,
		retryable: r.Retryable, release: r.Release, events: slices.Clone(r.Events), done: make(chan error, 1),
	}
	if r.Release && c.Lease != nil {
		return nil, fault.InvalidFields([]fault.Field{{Path: "body.release", Message: "is for the worker to say"}})
	}
	switch {
	case r.Release:
		ch.status, ch.waitingReason = Waiting, ForWorker
	case r.Status == Waiting:
		ch.waitingReason = ForInput
	}
	switch {
	case r.Status == Failed:
		ch.errorText = &r.Error
	case r.Status == Completed && r.Progress == nil:
		ch.progress = clamped(new(100))
	}
	if r.Reason != "" && !reasonForm.MatchString(r.Reason) {
		return nil, fault.InvalidFields([]fault.Field{{Path: "body.reason", Message: "must be lower-case letters, digits, colons and dashes"}})
	}
	switch {
	case r.Release:
		ch.reason = ReasonReleased
	case r.Status == Failed:
		ch.reason = cmp.Or(r.Reason, "failed")
	}
	if ch.status != "" {
		e := ReportEvent{Type: StatusEvent, Message: r.Message, Progress: ch.progress}
		if ch.reason != "" {
			var err error
			if e.Data, err = json.Marshal(attemptData{Reason: ch.reason}); err != nil {
				return nil, fmt.Errorf("encode reason: %w", err)
			}
		}
		ch.events = append(ch.events, e)
	}
	for i := range ch.events {
		e := &ch.events[i]
		e.Progress = clamped(e.Progress)
		if e.Type == ProgressEvent && e.Progress != nil && r.Progress == nil {
			ch.progress = e.Progress
		}
	}
	return ch, messagesFault(ch.events)
}

// messagesFault refuses events that say too much.
func messagesFault(events []ReportEvent) error {
	for i, e := range events {
		if len(e.Message) > MaxMessageBytes {
			return fault.InvalidFields([]fault.Field{{Path: fmt.Sprintf("body.events[%d].message", i),
				Message: fmt.Sprintf("must have at most %d bytes, has %d", MaxMessageBytes, len(e.Message))}})
		}
	}
	return nil
}
