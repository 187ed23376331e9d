package task

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// QuestionKind says what people are asked for.
type QuestionKind string

// The kinds. A task that waits for an answer has the kind as its waiting reason.
const (
	Input    = QuestionKind(ForInput)    // something that the agent does not know
	Approval = QuestionKind(ForApproval) // leave to do something
)

// QuestionStatus says what has become of a question.
type QuestionStatus string

// The question statuses. All but Open are final, and all but Answered and
// Approved are a no.
const (
	Open      QuestionStatus = "open"
	Answered  QuestionStatus = "answered"
	Approved  QuestionStatus = "approved"
	Denied    QuestionStatus = "denied"
	Expired   QuestionStatus = "expired"
	Withdrawn QuestionStatus = "withdrawn"
)

// QuestionStatuses lists them.
var QuestionStatuses = []QuestionStatus{Open, Answered, Approved, Denied, Expired, Withdrawn}

// The bounds of questions and their answers.
const (
	MaxQuestionBytes  = 8 << 10 // of the text
	MaxChoices        = 32
	MaxChoiceIDBytes  = 128
	MaxLabelTextBytes = 1024
	MaxToolNameBytes  = 256
	MaxAnswerBytes    = 64 << 10
	MaxReasonBytes    = 2000
	// MaxOpenQuestions is how many of a task may be open at once.
	MaxOpenQuestions = 32
	MaxExpiry        = 7 * 24 * time.Hour
	usualExpiry      = 24 * time.Hour
)

// NewQuestion is what the holder of a lease asks of people.
type NewQuestion struct {
	ID      uuid.UUID
	Kind    QuestionKind
	Text    string
	Choices []Choice
	// Schema is a JSON Schema for the data of an answer. It must stand alone:
	// references are refused.
	Schema  json.RawMessage
	Tool    *ToolCall // what is to be approved
	SkillID string
	Risk    string // "", low, medium or high
	// Remember says that the approval of a call can be remembered, for the very
	// same. All of it must be shown.
	Remember bool
	Expires  time.Duration // default: a day

	budget *BudgetUse // asked by the engine itself: may it be raised?
}

// Choice is one of the answers to choose from.
type Choice struct {
	ID    string `json:"id"`
	Label string `json:"label"`
}

// ToolCall is what an agent wants to do.
type ToolCall struct {
	Name  string          `json:"name"`
	Title string          `json:"title,omitempty"`
	Input json.RawMessage `json:"input,omitempty"`
}

// Question is a question and what has become of it. Its JSON form is the data of
// question events.
type Question struct {
	ID         uuid.UUID       `json:"id"`
	TaskID     uuid.UUID       `json:"taskId"`
	LeaseToken uuid.UUID       `json:"-"`
	Number     int64           `json:"-"` // its place among all questions
	ProjectID  string          `json:"projectId,omitempty"`
	UserID     string          `json:"-"` // who submitted the task
	Kind       QuestionKind    `json:"kind"`
	Text       string          `json:"text"`
	Choices    []Choice        `json:"choices,omitempty"`
	Schema     json.RawMessage `json:"schema,omitempty"`
	Tool       *ToolCall       `json:"tool,omitempty"`
	SkillID    string          `json:"skillId,omitempty"`
	Risk       string          `json:"risk,omitempty"`
	Remember   bool            `json:"remember,omitempty"` // whether its approval can be
	Budget     *BudgetUse      `json:"budget,omitempty"`   // what is to be raised
	AskedAt    time.Time       `json:"askedAt"`
	ExpiresAt  time.Time       `json:"expiresAt"`
	Status     QuestionStatus  `json:"status"`
	Answer     *Answer         `json:"answer,omitempty"`
	AnsweredAt *time.Time      `json:"answeredAt,omitempty"` // or expired, or withdrawn
	AnsweredBy string          `json:"answeredBy,omitempty"`
}

const questionColumns = `q.id, q.task_id, q.lease_token, q.number, q.project_id, q.user_id, q.kind, q.text, q.choices, q.schema,
	q.tool, q.skill_id, q.risk, q.remember, q.budget, q.asked_at, q.expires_at, q.status, q.answer, q.answered_at, q.answered_by`

var toQuestion = pgx.RowToStructByName[Question]

// Ask puts a question to people, by the right of a lease. The task waits until
// all its questions have an outcome; those that are open when it ends, or when
// the lease does, are withdrawn. Asking again with the same id under the same
// lease changes nothing and returns the question as it is.
//
// An approval that people remember is given at once.
//
// It returns Invalid for what is outside the bounds, LeaseLost if the lease is
// held no more, or by another principal's worker, and Conflict if the id stands
// for another question or too many are open.
func (s *Service) Ask(ctx context.Context, c policy.Caller, id, lease uuid.UUID, n NewQuestion) (Question, error) {
	if err := n.check(); err != nil {
		return Question{}, err
	}
	var grant *granted
	if n.Remember {
		t, err := leased(ctx, s.pool, c, id, lease)
		if err != nil {
			return Question{}, err
		}
		if grant, err = s.findGrant(ctx, t, n); err != nil {
			return Question{}, err
		}
	}
	var q Question
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		t, err := lockLeased(ctx, tx, c, id, lease)
		if err != nil {
			return err
		}
		if q, err = t.ask(ctx, tx, lease, n); err != nil || grant == nil || q.Status != Open {
			return err
		}
		q, err = grant.use(ctx, tx, t, q)
		return err
	})
	if err != nil {
		return Question{}, err
	}
	s.announceChanged(id)
	poke(s.sweepSoon)
	return q, nil
}

// lockLeased is leased, and holds the task where it is until the transaction
// ends.
func lockLeased(ctx context.Context, tx pgx.Tx, c policy.Caller, id, lease uuid.UUID) (Task, error) {
	if _, err := tx.Exec(ctx, `SELECT FROM tasks WHERE id = $1 FOR UPDATE`, id); err != nil {
		return Task{}, fmt.Errorf("lock task %s: %w", id, err)
	}
	return leased(ctx, tx, c, id, lease)
}

// leased returns the task that a worker of the caller's holds a lease of, or
// LeaseLost.
func leased(ctx context.Context, db querier, c policy.Caller, id, lease uuid.UUID) (Task, error) {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM tasks t WHERE t.id = $1 AND t.lease_token = $2
		AND $3 IN ('', (SELECT w.owner FROM workers w WHERE w.id = t.worker_id))`, id, lease, holderOf(c))
	if err != nil {
		return Task{}, postgres.Fault(fmt.Errorf("read task %s: %w", id, err))
	}
	t, err := pgx.CollectExactlyOneRow(rows, toTask)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, leaseLost(id)
	}
	if err != nil {
		return t, postgres.Fault(fmt.Errorf("read task %s: %w", id, err))
	}
	return t, nil
}

func leaseLost(id uuid.UUID) error {
	return fault.New(fault.LeaseLost, "the lease of task %s is held no more", id)
}

// ask writes the question of a task that the transaction holds.
func (t Task) ask(ctx context.Context, tx pgx.Tx, lease uuid.UUID, n NewQuestion) (Question, error) {
	if q, err := readQuestion(ctx, tx, n.ID); err == nil {
		if q.TaskID != t.ID || q.LeaseToken != lease || !q.repeats(n) {
			return q, fault.New(fault.Conflict, "%s is the id of another question", n.ID)
		}
		return q, nil
	} else if fault.CodeOf(err) != fault.NotFound {
		return q, err
	}
	if t.LastSeq >= MaxEvents && n.budget == nil {
		return Question{}, fault.New(fault.Conflict, "task %s has %d events, the most that a task can have", t.ID, MaxEvents)
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO questions AS q (id, task_id, lease_token, expires_at, kind, project_id, user_id, text, skill_id, risk, remember, choices, schema, tool, budget)
		SELECT @id, @task, @lease, clock_timestamp() + @expires, @kind, @project, @user, @text, @skill, @risk, @remember, @choices, @schema, @tool, @budget
		WHERE @budget::json IS NOT NULL OR (SELECT count(*) FROM questions WHERE task_id = @task AND status = 'open') < @most
		RETURNING `+questionColumns, pgx.NamedArgs{
		"id": n.ID, "task": t.ID, "lease": lease, "expires": n.Expires, "kind": n.Kind, "project": t.ProjectID, "user": t.UserID,
		"text": n.Text, "skill": n.SkillID, "risk": n.Risk, "remember": n.Remember, "choices": n.Choices, "schema": n.Schema, "tool": n.tool(), "budget": n.budget, "most": MaxOpenQuestions,
	})
	if err != nil {
		return Question{}, fmt.Errorf("insert question: %w", err)
	}
	q, err := pgx.CollectExactlyOneRow(rows, toQuestion)
	if errors.Is(err, pgx.ErrNoRows) {
		return q, fault.New(fault.Conflict, "task %s has %d open questions, the most that a task can have", t.ID, MaxOpenQuestions)
	}
	if err != nil {
		return q, fmt.Errorf("insert question: %w", err)
	}
	_, err = tell(ctx, tx, t.ID, q.Text, q.event())
	return q, err
}

// repeats reports whether n asks what q asked.
func (q Question) repeats(n NewQuestion) bool {
	return q.Kind == n.Kind && q.Text == n.Text && q.SkillID == n.SkillID && q.Risk == n.Risk && q.Remember == n.Remember &&
		slices.Equal(q.Choices, n.Choices) && bytes.Equal(q.Schema, n.Schema) && bytes.Equal(encoded(q.Tool), encoded(n.Tool))
}

// tool is the call of a tool as it is kept, in which form it reads back the same.
func (n *NewQuestion) tool() json.RawMessage {
	if n.Tool == nil {
		return nil
	}
	return encoded(n.Tool)
}

// event is the question as its events show it. What would make them too large is
// left to the list of questions.
func (q Question) event() json.RawMessage {
	if data := encoded(q); len(data) <= MaxDataBytes {
		return data
	}
	q.Schema, q.Choices = nil, nil
	if q.Tool != nil {
		q.Tool = &ToolCall{Name: q.Tool.Name}
	}
	if a := q.Answer; a != nil {
		q.Answer = &Answer{Approve: a.Approve, Remember: a.Remember, RaiseBy: a.RaiseBy, Reason: a.Reason}
	}
	q.Text = cut(q.Text, MaxQuestionBytes/2)
	return encoded(q)
}

// encoded returns v as JSON. It is for values of which the parts are known to be
// valid.
func encoded(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// tellSQL writes a question event. The task waits for the oldest open question,
// or goes on if none is left: one that gave its lease back meanwhile waits for a
// worker.
var tellSQL = `
WITH changed AS (
	UPDATE tasks t SET
		status = CASE WHEN o.kind IS NULL AND NOT o.suspended THEN 'running' ELSE 'waiting' END,
		waiting_reason = coalesce(o.kind, CASE WHEN o.suspended THEN 'resume' ELSE '' END),
		claimable = o.suspended AND o.kind IS NULL,
		` + requeueIfSQL("o.suspended") + `,
		updated_at = clock_timestamp(), last_seq = t.last_seq + 1, last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM (SELECT (SELECT kind FROM questions WHERE task_id = $1 AND status = 'open' ORDER BY number LIMIT 1) AS kind,
		lease_token IS NULL AND resume IS NOT NULL AS suspended FROM tasks WHERE id = $1) o
	WHERE t.id = $1
	RETURNING ` + columns + `, t.last_txid
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
	SELECT id, last_seq, last_txid, updated_at, 'question', status, $2, $3 FROM changed
)
SELECT ` + columns + ` FROM changed t`

// tell writes what has become of the questions of a task that the transaction
// holds.
func tell(ctx context.Context, tx pgx.Tx, id uuid.UUID, message string, data json.RawMessage) (Task, error) {
	rows, err := tx.Query(ctx, tellSQL, id, cut(message, MaxMessageBytes), data)
	if err != nil {
		return Task{}, fmt.Errorf("write the question of task %s: %w", id, err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, toTask)
	if err != nil {
		return t, fmt.Errorf("write the question of task %s: %w", id, err)
	}
	return t, nil
}

// readQuestion returns a question, or NotFound.
func readQuestion(ctx context.Context, db querier, id uuid.UUID) (Question, error) {
	rows, err := db.Query(ctx, `SELECT `+questionColumns+` FROM questions q WHERE q.id = $1`, id)
	if err != nil {
		return Question{}, postgres.Fault(fmt.Errorf("read question %s: %w", id, err))
	}
	q, err := pgx.CollectExactlyOneRow(rows, toQuestion)
	if errors.Is(err, pgx.ErrNoRows) {
		return q, noQuestion(id)
	}
	if err != nil {
		return q, postgres.Fault(fmt.Errorf("read question %s: %w", id, err))
	}
	return q, nil
}

func noQuestion(id uuid.UUID) error { return fault.New(fault.NotFound, "no question %s", id) }

// Question returns a question to the holder of the lease that asked it. While it
// is open it waits for that to change, at most wait. It returns LeaseLost if the
// lease is held no more, and NotFound if no such question was asked under it.
func (s *Service) Question(ctx context.Context, c policy.Caller, id, lease, questionID uuid.UUID, wait time.Duration) (Question, error) {
	changed, forget := s.follow(id)
	defer forget()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		if _, err := leased(ctx, s.pool, c, id, lease); err != nil {
			return Question{}, err
		}
		q, err := readQuestion(ctx, s.pool, questionID)
		if err == nil && (q.TaskID != id || q.LeaseToken != lease) {
			err = noQuestion(questionID)
		}
		if err != nil || q.Status != Open {
			return q, err
		}
		select {
		case <-changed:
		case <-timeout.C:
			return q, nil
		case <-ctx.Done():
			return q, ctx.Err()
		}
	}
}

// follow returns a channel that holds one element once the task has changed.
func (s *Service) follow(id uuid.UUID) (changed <-chan struct{}, forget func()) {
	ch, key := make(chan struct{}, 1), id.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking[key] == nil {
		s.asking[key] = map[chan struct{}]struct{}{}
	}
	s.asking[key][ch] = struct{}{}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.asking[key], ch); len(s.asking[key]) == 0 {
			delete(s.asking, key)
		}
	}
}

// wakeAsking tells those who wait for answers. s.mu must be held.
func (s *Service) wakeAsking(sig stream.Signal) {
	switch sig.Topic {
	case stream.TaskChanged:
		for ch := range s.asking[sig.ID] {
			poke(ch)
		}
	case stream.Resync:
		for _, all := range s.asking {
			for ch := range all {
				poke(ch)
			}
		}
	}
}

// check lists what is outside the bounds, and sets defaults.
func (n *NewQuestion) check() error {
	var found []fault.Field
	bad := func(field, format string, args ...any) {
		found = append(found, fault.Field{Path: "body." + field, Message: fmt.Sprintf(format, args...)})
	}
	if n.ID == uuid.Nil {
		bad("id", "must be a UUID")
	}
	if n.Kind != Input && n.Kind != Approval {
		bad("kind", "must be input or approval")
	}
	if n.Text == "" {
		bad("text", "must say what is asked")
	}
	texts := []boundedText{{"text", n.Text, MaxQuestionBytes}, {"skillId", n.SkillID, MaxIDBytes}}
	if len(n.Choices) > MaxChoices {
		bad("choices", "must be at most %d, are %d", MaxChoices, len(n.Choices))
	}
	ids := map[string]bool{}
	for i, c := range n.Choices {
		at := fmt.Sprintf("choices[%d]", i)
		if c.ID == "" || ids[c.ID] {
			bad(at+".id", "must be there, and not twice")
		}
		ids[c.ID] = true
		texts = append(texts, boundedText{at + ".id", c.ID, MaxChoiceIDBytes}, boundedText{at + ".label", c.Label, MaxLabelTextBytes})
	}
	if n.Tool != nil {
		texts = append(texts, boundedText{"tool.name", n.Tool.Name, MaxToolNameBytes}, boundedText{"tool.title", n.Tool.Title, MaxLabelTextBytes})
		if message := objectFault(n.Tool.Input); message != "" {
			bad("tool.input", "%s", message)
		}
	}
	for _, t := range texts {
		if message := t.fault(); message != "" {
			bad(t.field, "%s", message)
		}
	}
	if n.Schema != nil {
		if message := schemaFault(n.Schema); message != "" {
			bad("schema", "%s", message)
		}
		if n.Kind == Approval {
			bad("schema", "goes with kind input")
		}
	}
	if n.Remember && (n.Kind != Approval || n.Tool == nil || n.SkillID != "") {
		// Of a skill the policies say whether people are asked each time.
		bad("remember", "goes with the approval of a tool's call that is no skill")
	}
	if !slices.Contains([]string{"", "low", "medium", "high"}, n.Risk) {
		bad("risk", "must be low, medium or high")
	}
	if n.Expires == 0 {
		n.Expires = usualExpiry
	}
	if n.Expires < 0 || n.Expires > MaxExpiry {
		bad("expiresSeconds", "must be between 0 and %d", int(MaxExpiry.Seconds()))
	}
	return fault.InvalidFields(found)
}

type boundedText struct {
	field, value string
	limit        int
}

// fault says what is wrong with the text, or "".
func (t boundedText) fault() string {
	switch {
	case len(t.value) > t.limit:
		return fmt.Sprintf("must have at most %d bytes, has %d", t.limit, len(t.value))
	case !utf8.ValidString(t.value) || strings.ContainsRune(t.value, 0):
		return "must be UTF-8 without NUL"
	}
	return ""
}
