package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// act is something that a caller asks for, as the audit log names it.
type act struct {
	action       string // resource and verb
	resourceType string
	resourceID   string
}

// denial is a decision against the caller that was found while it was being
// done. answer, if not nil, is what the caller is told instead of the reason:
// some may not know that there is anything to deny.
type denial struct {
	decision policy.Decision
	answer   error
}

func (d *denial) Error() string { return "denied: " + d.decision.Reason }

func deny(layer policy.Layer, format string, args ...any) *denial {
	return &denial{decision: policy.Decision{Layer: layer, Reason: fmt.Sprintf(format, args...)}}
}

// hide denies and tells the caller that there is no such thing.
func hide(d policy.Decision, what, id string) *denial {
	return &denial{decision: d, answer: missing(what, id)}
}

func missing(what, id string) error { return fault.New(fault.NotFound, "no %s %s", what, id) }

// change runs fn and writes the audit entry of the decision that allows it in
// one transaction. fn may complete the entry; it runs again when the database
// asks for it. A decision against the caller, here or out of fn, changes
// nothing and is recorded.
func (s *Service) change(ctx context.Context, c policy.Caller, a act, d policy.Decision, fn func(pgx.Tx, *audit.Entry) error) error {
	err := error(&denial{decision: d})
	if d.Allowed {
		entry := audit.NewEntry(c, a.action, a.resourceType, a.resourceID, d)
		err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
			e := entry
			if err := fn(tx, &e); err != nil {
				return err
			}
			return audit.Append(ctx, tx, e)
		})
		if err == nil {
			s.bus.Deliver(stream.Signal{Topic: stream.Audited})
		}
	}
	if denied, ok := errors.AsType[*denial](err); ok {
		return s.refuse(ctx, c, a, denied)
	}
	return err
}

// changeAccess is change for what affects who may do what: such changes happen
// one after the other, and every server hears of them. sessionID is the one
// session that is affected, or empty.
func (s *Service) changeAccess(ctx context.Context, c policy.Caller, a act, sessionID string, d policy.Decision, fn func(pgx.Tx, *audit.Entry) error) error {
	done := false
	err := s.change(ctx, c, a, d, func(tx pgx.Tx, e *audit.Entry) error {
		if err := lockAccess(ctx, tx); err != nil {
			return err
		}
		err := fn(tx, e)
		done = err == nil
		return err
	})
	// Even after an error: a commit whose answer was lost may have happened.
	if done {
		s.bus.Publish(stream.Signal{Topic: stream.AccessChanged, ID: sessionID})
	}
	return err
}

// lockAccess makes changes of access wait for each other until they commit.
func lockAccess(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT n FROM access_generation FOR UPDATE`); err != nil {
		return fmt.Errorf("lock access: %w", err)
	}
	return nil
}

// refuse records a denial and returns what the caller is told.
func (s *Service) refuse(ctx context.Context, c policy.Caller, a act, d *denial) error {
	s.recorder.Record(ctx, audit.NewEntry(c, a.action, a.resourceType, a.resourceID, d.decision))
	if d.answer != nil {
		return d.answer
	}
	return d.decision.Err()
}

// detail is the details of an audit entry.
func detail(values map[string]any) json.RawMessage {
	text, err := json.Marshal(values)
	if err != nil {
		panic(err) // only texts, numbers and lists of them are passed
	}
	return text
}
