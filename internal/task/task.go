package task

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Task is a task as it is at one moment.
type Task struct {
	ID           uuid.UUID
	Status       Status
	Description  string
	Input        string
	AgentID      string
	SkillID      string
	Model        string
	Thinking     string
	SessionID    string
	ProjectID    string
	UserID       string
	ParentTaskID *uuid.UUID
	ScheduleID   *uuid.UUID // the schedule that submitted it
	DependsOn    []uuid.UUID
	Dispatch     Dispatch
	Priority     int
	// At most ConcurrencyLimit tasks of the project with the same ConcurrencyKey
	// run at once; "": no such limit.
	ConcurrencyKey   string
	ConcurrencyLimit int
	Labels           map[string]string
	Requires         map[string]string // labels that its worker must have
	Metadata         json.RawMessage
	Progress         int
	Output           string
	Error            string
	WaitingReason    WaitingReason
	Attempt          int
	MaxAttempts      int
	RunAfter         *time.Time
	TimeoutSeconds   int
	ExpiresAt        *time.Time // fails if nothing has begun by then
	DeadlineAt       *time.Time // fails if it has not ended by then
	SilenceSeconds   int        // how long an agent may say nothing; 0: any time
	RetryOn          []string   // the reasons of failures that are tried again; none: all that may be
	Budget           *Budget    // how much it may use; nil: any
	Usage            *Usage     // how much it has used; nil: nothing
	StatusReason     string     // why it, or its last attempt, did not succeed
	CreatedAt        time.Time
	UpdatedAt        time.Time
	StartedAt        *time.Time
	CompletedAt      *time.Time
	RetryOf          *uuid.UUID // the task that this one does again
	RetriedBy        *uuid.UUID // the one that does this one again
	// LastSeq is the number of the task's newest event.
	LastSeq int64
}

// columns are the fields of Task, qualified with t.
const columns = `t.id, t.status, t.description, t.input, t.agent_id, t.skill_id, t.model, t.thinking,
	t.session_id, t.project_id, t.user_id, t.parent_task_id, t.schedule_id, t.depends_on, t.dispatch, t.priority, t.concurrency_key, t.concurrency_limit, t.labels, t.requires, t.metadata,
	t.progress, t.output, t.error, t.waiting_reason, t.attempt, t.max_attempts, t.run_after, t.timeout_seconds, t.expires_at, t.deadline_at, t.silence_seconds, t.retry_on, t.budget, t.usage, t.status_reason,
	t.created_at, t.updated_at, t.started_at, t.completed_at, t.retry_of, t.retried_by, t.last_seq`

var toTask = pgx.RowToStructByName[Task]

// asSubmitted is the task as it was when it was accepted. What a task is given
// never changes, so the first answer can always be given again.
func (t Task) asSubmitted() Task {
	t.Status, t.Progress, t.Output, t.Error, t.WaitingReason, t.StatusReason, t.Attempt = Pending, 0, "", "", "", "", 0
	t.UpdatedAt, t.StartedAt, t.CompletedAt, t.RetriedBy, t.Usage, t.LastSeq = t.CreatedAt, nil, nil, nil, nil, 1
	return t
}

// Event is one entry of a task's history.
type Event struct {
	TaskID    uuid.UUID
	Seq       int64 // 1, 2, 3, … within the task, without gaps
	Type      EventType
	Status    Status // the task's, after the event
	CreatedAt time.Time
	Message   string
	Progress  *int
	Data      json.RawMessage
}

const eventColumns = `e.task_id, e.seq, e.type, e.status, e.created_at, e.message, e.progress, e.data`

var toEvent = pgx.RowToStructByName[Event]
