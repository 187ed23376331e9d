package task

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// MaxResumeBytes bounds what a worker leaves for the attempt to go on from.
const MaxResumeBytes = 16 << 10

// Suspension is what an attempt that waits for people is taken up again from.
type Suspension struct {
	// State is the worker's own; the next lease carries it if the same worker
	// gets it.
	State string `json:"state"`
	// Questions are those of which the agent has not heard the outcome.
	Questions []uuid.UUID `json:"questions"`
}

// suspendSQL takes the lease from a task that waits for people. It goes on
// waiting for them, or for a worker if they have all answered meanwhile.
var suspendSQL = `
WITH changed AS (
	UPDATE tasks t SET status = 'waiting', waiting_reason = coalesce(o.kind, 'resume'), status_reason = '', claimable = o.kind IS NULL, ` + requeueSQL + `,
		resume = $2, resume_worker = t.worker_id, lease_token = NULL, lease_expires_at = NULL,
		updated_at = clock_timestamp(), last_seq = t.last_seq + $3, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM (SELECT (SELECT kind FROM questions WHERE task_id = $1 AND status = 'open' ORDER BY number LIMIT 1) AS kind) o
	WHERE t.id = $1
	RETURNING t.id, t.status, t.last_seq, t.last_txid, t.updated_at, t.claimable
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, progress, data)
	SELECT c.id, c.last_seq - $3 + e.place, c.last_txid, c.updated_at, e.type, c.status, e.message, e.progress, e.data::json
	FROM changed c, unnest($4::text[], $5::text[], $6::int[], $7::text[]) WITH ORDINALITY AS e (type, message, progress, data, place)
)
SELECT claimable FROM changed`

// suspend gives back the lease of a task that waits for people, by its right. The
// questions stay open, and the attempt goes on once they have their outcomes.
func (s *Service) suspend(ctx context.Context, c policy.Caller, id, lease uuid.UUID, r Report) error {
	sus := *r.Resume
	if err := sus.check(); err != nil {
		return err
	}
	if err := messagesFault(r.Events); err != nil {
		return err
	}
	data, err := json.Marshal(attemptData{Reason: ReasonPeople})
	if err != nil {
		return fmt.Errorf("encode reason: %w", err)
	}
	events := append(slices.Clone(r.Events), ReportEvent{Type: StatusEvent, Message: "released: waiting for a person", Data: data})
	var told eventArgs
	for _, e := range events {
		e.Progress = clamped(e.Progress)
		told.add(e)
	}
	var answered bool
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := lockLeased(ctx, tx, c, id, lease); err != nil {
			return err
		}
		var asked int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM questions WHERE id = ANY ($1) AND task_id = $2 AND lease_token = $3`,
			sus.Questions, id, lease).Scan(&asked); err != nil {
			return fmt.Errorf("read questions of task %s: %w", id, err)
		}
		if asked != len(sus.Questions) {
			return fault.InvalidFields([]fault.Field{{Path: "body.resume.questions", Message: "must be asked under this lease"}})
		}
		return tx.QueryRow(ctx, suspendSQL, id, encoded(sus), len(events), told.types, told.messages, told.progress, told.data).Scan(&answered)
	})
	if err != nil {
		return err
	}
	s.announceChanged(id)
	s.leftRoom()
	if answered {
		s.bus.Publish(stream.Signal{Topic: stream.WorkResumable})
	}
	return nil
}

func (sus *Suspension) check() error {
	var found []fault.Field
	if n := len(sus.State); n == 0 || n > MaxResumeBytes {
		found = append(found, fault.Field{Path: "body.resume.state", Message: fmt.Sprintf("must have 1 to %d bytes, has %d", MaxResumeBytes, n)})
	}
	slices.SortFunc(sus.Questions, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	sus.Questions = slices.Compact(sus.Questions)
	if n := len(sus.Questions); n == 0 || n > MaxOpenQuestions {
		found = append(found, fault.Field{Path: "body.resume.questions", Message: fmt.Sprintf("must be 1 to %d, are %d", MaxOpenQuestions, n)})
	}
	return fault.InvalidFields(found)
}

// bringOutcomes adds to leases that go on from a suspension what has become of
// its questions. One of which that cannot be read is given back.
func (s *Service) bringOutcomes(ctx context.Context, worker policy.Caller, leases []Lease) []Lease {
	kept := leases[:0]
	for _, l := range leases {
		if l.Resume != nil {
			var err error
			if l.Outcomes, err = s.outcomes(ctx, *l.Resume); err != nil {
				s.giveBack(ctx, worker, l, "what was answered could not be read", err)
				continue
			}
		}
		kept = append(kept, l)
	}
	return kept
}

func (s *Service) outcomes(ctx context.Context, sus Suspension) ([]Question, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+questionColumns+` FROM questions q WHERE q.id = ANY ($1) ORDER BY q.number`, sus.Questions)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("read what was answered: %w", err))
	}
	questions, err := pgx.CollectRows(rows, toQuestion)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("read what was answered: %w", err))
	}
	return questions, nil
}
