package task

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/policy"
)

// Attempt is one worker's try at a task, as the task's history tells it. One that
// was given back until people had answered goes on as another of the same number.
type Attempt struct {
	Number    int
	WorkerID  string
	StartedAt time.Time
	EndedAt   *time.Time // nil: it goes on
	// Outcome is completed, failed, cancelled, released or worker-lost; "" while
	// it goes on.
	Outcome string
	Reason  string // why it did not complete
}

// attemptData is what the events at the beginning and at the end of an attempt
// say for programs.
type attemptData struct {
	Attempt int    `json:"attempt,omitempty"`
	Worker  string `json:"worker,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Attempts returns the tries at a task, oldest first. It returns NotFound if c
// does not see the task.
func (s *Service) Attempts(ctx context.Context, c policy.Caller, id uuid.UUID) (attempts []Attempt, err error) {
	const page = 1000
	for after := int64(0); ; {
		events, err := s.Events(ctx, c, id, after, page)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if attempts, err = follow(attempts, e); err != nil {
				return nil, err
			}
		}
		if len(events) < page {
			return attempts, nil
		}
		after = events[page-1].Seq
	}
}

// follow adds what an event says of attempts.
func follow(attempts []Attempt, e Event) ([]Attempt, error) {
	if e.Type != StatusEvent {
		return attempts, nil
	}
	var d attemptData
	if e.Data != nil {
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return nil, fmt.Errorf("read event %d of task %s: %w", e.Seq, e.TaskID, err)
		}
	}
	if d.Attempt > 0 {
		return append(attempts, Attempt{Number: d.Attempt, WorkerID: d.Worker, StartedAt: e.CreatedAt}), nil
	}
	if len(attempts) == 0 || !e.Status.Terminal() && d.Reason == "" {
		return attempts, nil
	}
	last := &attempts[len(attempts)-1]
	if last.EndedAt != nil {
		return attempts, nil
	}
	last.EndedAt, last.Reason = &e.CreatedAt, d.Reason
	switch {
	case d.Reason == ReasonPeople:
		last.Outcome = ReasonReleased
	case d.Reason == ReasonReleased, d.Reason == ReasonWorkerLost:
		last.Outcome = d.Reason
	case e.Status.Terminal():
		last.Outcome = string(e.Status)
	default: // it waits for the next attempt
		last.Outcome = string(Failed)
	}
	return attempts, nil
}
