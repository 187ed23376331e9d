package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Answer is what a person says to a question. Text, with or without Data,
// answers an input; Approve an approval.
type Answer struct {
	Text    string          `json:"input,omitempty"` // or the id of a choice
	Data    json.RawMessage `json:"data,omitempty"`
	Approve *bool           `json:"approve,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	// Remember has an approval hold for the very same request later, so far.
	Remember GrantScope `json:"remember,omitempty"`
	// RaiseBy is how much more of an exceeded budget may be used, as
	// BudgetUse.Figure reads it; "": as much as the budget has.
	RaiseBy string `json:"raiseBy,omitempty"`
}

// outcome is what becomes of a question of that kind by the answer.
func (a *Answer) outcome(kind QuestionKind) QuestionStatus {
	switch {
	case kind == Input:
		return Answered
	case *a.Approve:
		return Approved
	}
	return Denied
}

// check lists what is wrong with the answer to a question of that kind.
func (a *Answer) check(kind QuestionKind) error {
	var found []fault.Field
	bad := func(field, format string, args ...any) {
		found = append(found, fault.Field{Path: "body." + field, Message: fmt.Sprintf(format, args...)})
	}
	for _, t := range []boundedText{{"input", a.Text, MaxAnswerBytes}, {"reason", a.Reason, MaxReasonBytes}} {
		if message := t.fault(); message != "" {
			bad(t.field, "%s", message)
		}
	}
	if message := objectFault(a.Data); message != "" {
		bad("data", "%s", message)
	}
	switch {
	case kind == Approval && a.Approve == nil:
		bad("approve", "must say yes or no to what is to be approved")
	case kind == Approval && (a.Text != "" || a.Data != nil):
		bad("input", "goes with a question for input, and this is one for approval")
	case kind == Input && a.Approve != nil:
		bad("approve", "goes with a question for approval, and this is one for input")
	case a.Remember != "" && (a.Approve == nil || !*a.Approve):
		bad("remember", "goes with an approval")
	case a.RaiseBy != "" && (a.Approve == nil || !*a.Approve):
		bad("raiseBy", "goes with an approval")
	case kind == Input && a.Text == "" && a.Data == nil:
		bad("input", "must hold the answer")
	}
	return fault.InvalidFields(found)
}

// fits refuses an answer that is not one of those that the question leaves.
func (q Question) fits(a *Answer) error {
	if err := a.check(q.Kind); err != nil {
		return err
	}
	if q.Kind == Approval {
		return q.raiseFault(a.RaiseBy)
	}
	if q.Choices != nil && !slices.ContainsFunc(q.Choices, func(c Choice) bool { return c.ID == a.Text }) {
		ids := make([]string, len(q.Choices))
		for i, c := range q.Choices {
			ids[i] = c.ID
		}
		return fault.InvalidFields([]fault.Field{{Path: "body.input", Message: fmt.Sprintf("must be one of %q", ids)}})
	}
	if q.Schema == nil {
		return nil
	}
	if a.Data == nil {
		return fault.InvalidFields([]fault.Field{{Path: "body.data", Message: "must be an object that meets the question's schema"}})
	}
	found, err := dataFaults(q.Schema, a.Data)
	if err != nil {
		return err
	}
	return fault.InvalidFields(found)
}

// GetQuestion returns a question that c sees, or NotFound.
func (s *Service) GetQuestion(ctx context.Context, c policy.Caller, id uuid.UUID) (q Question, err error) {
	err = s.read(ctx, c, `SELECT `+questionColumns+` FROM questions q JOIN tasks t ON t.id = q.task_id WHERE q.id = @id AND `+confined,
		pgx.NamedArgs{"id": id}, func(rows pgx.Rows) (err error) {
			q, err = pgx.CollectExactlyOneRow(rows, toQuestion)
			return err
		})
	if errors.Is(err, pgx.ErrNoRows) {
		return q, noQuestion(id)
	}
	if err != nil {
		return q, fmt.Errorf("read question %s: %w", id, err)
	}
	return q, nil
}

// Answer answers an open question, once: of two at once, one gets Conflict. It
// returns NotFound if c does not see the question, Forbidden if the policies do
// not let c answer it, Invalid for an answer that it does not leave, and
// Conflict if it is not open any more.
func (s *Service) Answer(ctx context.Context, c policy.Caller, id uuid.UUID, a Answer) (Question, error) {
	q, err := s.GetQuestion(ctx, c, id)
	if err != nil {
		return q, err
	}
	t, err := s.Get(ctx, c, q.TaskID)
	if err != nil {
		return q, err
	}
	entry, err := s.allowAnswer(ctx, c, t, q.Kind, q.Budget, a)
	if err != nil {
		return q, err
	}
	if q.Status != Open {
		return q, q.notOpen()
	}
	if err := q.fits(&a); err != nil {
		return q, err
	}
	if a.Remember != "" {
		if message := q.rememberFault(t, a.Remember); message != "" {
			return q, fault.InvalidFields([]fault.Field{{Path: "body.remember", Message: message}})
		}
	}
	d := decided{QuestionID: id.String(), Outcome: a.outcome(q.Kind), Reason: a.Reason, Remember: a.Remember, RaiseBy: a.RaiseBy, Budget: q.Budget}
	if entry.Details, err = json.Marshal(d); err != nil {
		return q, fmt.Errorf("encode what was decided: %w", err)
	}
	var lostBy string
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		if q, t, lostBy, err = end(ctx, tx, q, a.outcome(q.Kind), &a, c.UserID); err != nil {
			return err
		}
		if a.Remember != "" {
			if err := q.remember(ctx, tx, c, t, a.Remember); err != nil {
				return err
			}
		}
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return q, err
	}
	s.announceOutcome(ctx, q, t, lostBy)
	return q, nil
}

// decided is what the audit log says of an answer beyond who and when.
type decided struct {
	QuestionID string         `json:"questionId,omitempty"`
	Outcome    QuestionStatus `json:"outcome"`
	Reason     string         `json:"reason,omitempty"`
	Remember   GrantScope     `json:"remember,omitempty"`
	RaiseBy    string         `json:"raiseBy,omitempty"`
	Budget     *BudgetUse     `json:"budget,omitempty"` // as it was when it was asked about
}

// allowAnswer asks the policies whether c may give this answer. Who raises the
// budget of a session or a project must be allowed to set it.
func (s *Service) allowAnswer(ctx context.Context, c policy.Caller, t Task, kind QuestionKind, budget *BudgetUse, a Answer) (audit.Entry, error) {
	r := approving(t)
	switch {
	case kind != Approval:
		r.Action, r.Approving = actionAnswer, ""
	case a.Approve == nil || !*a.Approve:
		r.Approving = ""
	case budget != nil && budget.Scope != TaskBudget:
		r.Permission = policy.ConfigWrite
	}
	return s.allow(ctx, c, r, t.ID.String())
}

func (q Question) notOpen() error {
	return fault.New(fault.Conflict, "question %s is %s", q.ID, q.Status)
}

// end gives an open question its outcome, and tells of it; the task is as it is
// then. If the outcome fails the task, it returns the worker that has lost it. It
// returns Conflict if the question is not open any more.
func end(ctx context.Context, tx pgx.Tx, q Question, outcome QuestionStatus, a *Answer, by string) (ended Question, t Task, lostBy string, err error) {
	// The task first, as whatever else changes it does.
	if _, err := tx.Exec(ctx, `SELECT FROM tasks WHERE id = $1 FOR UPDATE`, q.TaskID); err != nil {
		return q, t, "", fmt.Errorf("lock task %s: %w", q.TaskID, err)
	}
	var answer json.RawMessage
	if a != nil {
		answer = encoded(a)
	}
	// Of what is to expire the time must have come, and of nothing else.
	rows, err := tx.Query(ctx, `UPDATE questions q SET status = @outcome, answer = @answer, answered_by = @by, answered_at = clock_timestamp()
		WHERE id = @id AND status = 'open' AND (expires_at <= clock_timestamp()) = (@outcome = 'expired')
		RETURNING `+questionColumns, pgx.NamedArgs{"id": q.ID, "outcome": outcome, "answer": answer, "by": by})
	if err != nil {
		return q, t, "", fmt.Errorf("answer question %s: %w", q.ID, err)
	}
	ended, err = pgx.CollectExactlyOneRow(rows, toQuestion)
	if errors.Is(err, pgx.ErrNoRows) {
		if q, err = readQuestion(ctx, tx, q.ID); err == nil && q.Status == Open {
			q.Status = Expired // and about to be marked so
		}
		return q, t, "", errors.Join(err, q.notOpen())
	}
	if err != nil {
		return q, t, "", fmt.Errorf("answer question %s: %w", q.ID, err)
	}
	if t, err = tell(ctx, tx, q.TaskID, ended.outcomeMessage(outcome, a, by), ended.event()); err != nil || q.Budget == nil {
		return ended, t, "", err
	}
	if outcome == Approved {
		return ended, t, "", q.Budget.raise(ctx, tx, q.TaskID, a.RaiseBy)
	}
	lostBy, err = failExceeded(ctx, tx, q.TaskID, q.Budget.String()+", and nobody has raised it")
	return ended, t, lostBy, err
}

// announceOutcome tells of what has become of a question, and workers if one of
// them may go on with the task.
func (s *Service) announceOutcome(ctx context.Context, q Question, t Task, lostBy string) {
	s.announceChanged(q.TaskID)
	switch {
	case lostBy != "":
		s.announceExceeded(ctx, q.TaskID, lostBy)
	case q.Budget != nil: // what the budget held back may be claimed
		s.leftRoom()
	}
	if t.WaitingReason == ForResumption {
		s.bus.Publish(stream.Signal{Topic: stream.WorkResumable})
	}
}

// outcomeMessage is a line for whoever watches.
func (q Question) outcomeMessage(outcome QuestionStatus, a *Answer, by string) string {
	if a == nil {
		return "nobody answered in time"
	}
	message := fmt.Sprintf("%s by %s", outcome, by)
	if a.Text != "" {
		message += ": " + a.Text
	}
	if a.RaiseBy != "" {
		more, _ := q.Budget.Figure(a.RaiseBy) // fits has read it
		message += ": " + formatAmount(q.Budget.Unit, more) + " more"
	}
	if a.Reason != "" {
		message += " (" + a.Reason + ")"
	}
	return message
}

// AnswerTask answers the one open question of a task, or a manual task that waits
// for people. Faults are those of Answer; it returns Conflict too if there is no
// question, or more than one.
func (s *Service) AnswerTask(ctx context.Context, c policy.Caller, id uuid.UUID, a Answer) (Task, error) {
	t, err := s.Get(ctx, c, id)
	if err != nil {
		return t, err
	}
	rows, err := s.pool.Query(ctx, `SELECT id FROM questions WHERE task_id = $1 AND status = 'open' LIMIT 2`, id)
	if err != nil {
		return t, postgres.Fault(fmt.Errorf("look for questions of task %s: %w", id, err))
	}
	questions, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return t, postgres.Fault(fmt.Errorf("look for questions of task %s: %w", id, err))
	}
	waits := t.Dispatch == Manual && t.Status == Waiting && (t.WaitingReason == ForInput || t.WaitingReason == ForApproval)
	switch {
	case len(questions) == 1:
		if _, err := s.Answer(ctx, c, questions[0], a); err != nil {
			return t, err
		}
		return s.Get(ctx, c, id)
	case len(questions) > 1:
		return t, fault.New(fault.Conflict, "task %s has several open questions: answer each by its own id", id)
	case waits:
		return s.answerManual(ctx, c, t, a)
	}
	return t, fault.New(fault.Conflict, "task %s has no open question", id)
}

// answerManual answers a task whose question stands in no table: whoever drives
// it reads the answer in its history.
func (s *Service) answerManual(ctx context.Context, c policy.Caller, t Task, a Answer) (Task, error) {
	kind := QuestionKind(t.WaitingReason)
	entry, err := s.allowAnswer(ctx, c, t, kind, nil, a)
	if err != nil {
		return t, err
	}
	if err := a.check(kind); err != nil {
		return t, err
	}
	if a.Remember != "" {
		return t, fault.InvalidFields([]fault.Field{{Path: "body.remember", Message: "is not for manual tasks"}})
	}
	if err := (Question{}).raiseFault(a.RaiseBy); err != nil {
		return t, err
	}
	outcome := a.outcome(kind)
	if entry.Details, err = json.Marshal(decided{Outcome: outcome, Reason: a.Reason}); err != nil {
		return t, fmt.Errorf("encode what was decided: %w", err)
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var waits bool
		err := tx.QueryRow(ctx, `SELECT status = 'waiting' AND waiting_reason = $2 AND last_seq = $3 FROM tasks WHERE id = $1 FOR UPDATE`,
			t.ID, t.WaitingReason, t.LastSeq).Scan(&waits)
		switch {
		case err != nil:
			return fmt.Errorf("lock task %s: %w", t.ID, err)
		case !waits:
			return fault.New(fault.Conflict, "task %s was changed or answered by somebody else meanwhile", t.ID)
		}
		data := struct {
			TaskID     uuid.UUID      `json:"taskId"`
			Kind       QuestionKind   `json:"kind"`
			Status     QuestionStatus `json:"status"`
			Answer     Answer         `json:"answer"`
			AnsweredBy string         `json:"answeredBy"`
		}{t.ID, kind, outcome, a, c.UserID}
		line := encoded(data)
		if len(line) > MaxDataBytes {
			return fault.InvalidFields([]fault.Field{{Path: "body", Message: fmt.Sprintf("must have at most %d bytes, less what is said around it", MaxDataBytes)}})
		}
		if t, err = tell(ctx, tx, t.ID, Question{}.outcomeMessage(outcome, &a, c.UserID), line); err != nil {
			return err
		}
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return t, err
	}
	s.announceChanged(t.ID)
	return t, nil
}

// expireBatch is how many questions expire at once.
const expireBatch = 100

// expireQuestions ends the questions that nobody answered in time: that is a no.
func (s *Service) expireQuestions(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, `SELECT `+questionColumns+` FROM questions q
		WHERE q.status = 'open' AND q.expires_at <= now() ORDER BY q.expires_at LIMIT $1`, expireBatch)
	if err != nil {
		return postgres.Fault(fmt.Errorf("look for expired questions: %w", err))
	}
	late, err := pgx.CollectRows(rows, toQuestion)
	if err != nil {
		return postgres.Fault(fmt.Errorf("look for expired questions: %w", err))
	}
	for _, q := range late {
		action := actionAnswer
		if q.Kind == Approval {
			action = actionDecide
		}
		d := policy.Decision{Reason: "nobody answered in time"}
		entry := audit.NewEntry(policy.Caller{UserID: "system", ProjectID: q.ProjectID}, action, resourceType, q.TaskID.String(), d)
		if entry.Details, err = json.Marshal(decided{QuestionID: q.ID.String(), Outcome: Expired}); err != nil {
			return fmt.Errorf("encode what was decided: %w", err)
		}
		var t Task
		var lostBy string
		err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
			if _, t, lostBy, err = end(ctx, tx, q, Expired, nil, ""); err != nil {
				return err
			}
			return audit.Append(ctx, tx, entry)
		})
		switch {
		case err == nil:
			s.announceOutcome(ctx, q, t, lostBy)
		case fault.CodeOf(err) != fault.Conflict: // another server was faster, or its task ended
			return err
		}
	}
	return nil
}
