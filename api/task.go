package api

import (
	"encoding/json"
	"time"
)

// TaskStatus is a step in the life of a task.
type TaskStatus string

// The task statuses. Completed, Failed and Cancelled are terminal.
const (
	TaskPending   TaskStatus = "pending"
	TaskPlanning  TaskStatus = "planning"
	TaskRunning   TaskStatus = "running"
	TaskWaiting   TaskStatus = "waiting"
	TaskCompleted TaskStatus = "completed"
	TaskFailed    TaskStatus = "failed"
	TaskCancelled TaskStatus = "cancelled"
)

// Terminal reports whether nothing can follow s.
func (s TaskStatus) Terminal() bool {
	return s == TaskCompleted || s == TaskFailed || s == TaskCancelled
}

// Dispatch says who runs a task.
type Dispatch string

// The dispatches: DispatchAuto tasks are offered to workers, DispatchManual
// tasks are driven by whoever submitted them.
const (
	DispatchAuto   Dispatch = "auto"
	DispatchManual Dispatch = "manual"
)

// Thinking is how much a model may reason before it answers.
type Thinking string

// NewTask is the body of POST /v1/tasks.
type NewTask struct {
	Description      string            `json:"description" minLength:"1" maxLength:"2000" doc:"What is to be done, in a line or two." example:"Analyze project architecture"`
	Input            string            `json:"input" maxLength:"262144" doc:"What the agent is given: a prompt, a document, a diff. At most 256 KiB." example:"Review the current codebase structure"`
	AgentID          string            `json:"agentId,omitempty" maxLength:"128" doc:"The agent that is to run it. Default: general-purpose." example:"architecture-advisor"`
	SkillID          string            `json:"skillId,omitempty" maxLength:"128" doc:"A skill the agent is asked to use."`
	Model            string            `json:"model,omitempty" maxLength:"200" doc:"The model to use, where the agent's executor has a choice."`
	Thinking         Thinking          `json:"thinking,omitempty" enum:"off,minimal,low,medium,high" doc:"How much the model may reason before it answers."`
	SessionID        string            `json:"sessionId,omitempty" maxLength:"128" doc:"The session that the task belongs to."`
	ProjectID        string            `json:"projectId,omitempty" maxLength:"128" doc:"The project that the task belongs to."`
	ParentTaskID     string            `json:"parentTaskId,omitempty" format:"uuid" doc:"The task that this one is a part of. Cancelling the parent cancels it."`
	DependsOn        []string          `json:"dependsOn,omitempty" maxItems:"100" doc:"Tasks that must complete before this one may start; it fails when one of them fails or is cancelled."`
	Dispatch         Dispatch          `json:"dispatch,omitempty" enum:"auto,manual" doc:"auto (default): offered to workers. manual: driven by the submitter with PATCH."`
	Priority         int               `json:"priority,omitempty" minimum:"-100" maximum:"100" doc:"Each step moves it some fifty turns ahead, within its project."`
	ConcurrencyKey   string            `json:"concurrencyKey,omitempty" maxLength:"128" doc:"Of the project's tasks with the same key only so many run at once." example:"deploy"`
	ConcurrencyLimit int               `json:"concurrencyLimit,omitempty" minimum:"0" maximum:"10000" doc:"How many. 0 means the default, 1."`
	RunAfter         *time.Time        `json:"runAfter,omitempty" doc:"Not offered to workers before this time."`
	TimeoutSeconds   int               `json:"timeoutSeconds,omitempty" minimum:"0" maximum:"604800" doc:"How long one attempt may take. 0 (default): no limit."`
	ExpiresAt        *time.Time        `json:"expiresAt,omitempty" doc:"Fails, with statusReason expired, if nothing has begun by then."`
	DeadlineAt       *time.Time        `json:"deadlineAt,omitempty" doc:"Fails, with statusReason deadline, if it has not ended by then, whatever attempts remain."`
	SilenceSeconds   int               `json:"silenceSeconds,omitempty" minimum:"0" maximum:"604800" doc:"How long the agent may say nothing before the attempt fails. 0 (default): any time."`
	RetryOn          []string          `json:"retryOn,omitempty" maxItems:"64" doc:"The reasons of failed attempts that are tried again, such as exit:75, signal:9, timeout or silent. Absent: all that may help." example:"[\"exit:75\",\"timeout\"]"`
	MaxAttempts      int               `json:"maxAttempts,omitempty" minimum:"0" maximum:"100" doc:"How often the task may be tried before it counts as failed. 0 means the default, 1."`
	Budget           *Budget           `json:"budget,omitempty" doc:"How much the task may use, over all its attempts. Absent: any."`
	Labels           map[string]string `json:"labels,omitempty" doc:"At most 64 labels; a key has 1 to 256 bytes, a value at most 256." example:"{\"team\":\"platform\"}"`
	Requires         map[string]string `json:"requires,omitempty" doc:"Labels that a worker must have to be given the task." example:"{\"gpu\":\"true\"}"`
	Metadata         json.RawMessage   `json:"metadata,omitempty" doc:"Any JSON object, at most 64 KiB. Kept as it is; agents may read it." example:"{\"path\":\".\"}"`
}

// NewTaskBatch is the body of POST /v1/tasks/batch.
type NewTaskBatch struct {
	Tasks []NewTask `json:"tasks" minItems:"1" maxItems:"1000" doc:"All are submitted, or none."`
}

// Task is a task as it is at one moment.
type Task struct {
	ID               string            `json:"id" format:"uuid" doc:"A UUIDv7: ids sort by time of submission."`
	Status           TaskStatus        `json:"status" enum:"pending,planning,running,waiting,completed,failed,cancelled"`
	Description      string            `json:"description"`
	Input            string            `json:"input"`
	AgentID          string            `json:"agentId"`
	SkillID          string            `json:"skillId,omitempty"`
	Model            string            `json:"model,omitempty"`
	Thinking         Thinking          `json:"thinking,omitempty"`
	SessionID        string            `json:"sessionId,omitempty"`
	ProjectID        string            `json:"projectId,omitempty"`
	UserID           string            `json:"userId" doc:"The principal that submitted it."`
	ParentTaskID     string            `json:"parentTaskId,omitempty"`
	ScheduleID       string            `json:"scheduleId,omitempty" doc:"The schedule that submitted it."`
	DependsOn        []string          `json:"dependsOn,omitempty"`
	Dispatch         Dispatch          `json:"dispatch" enum:"auto,manual"`
	Priority         int               `json:"priority"`
	ConcurrencyKey   string            `json:"concurrencyKey,omitempty"`
	ConcurrencyLimit int               `json:"concurrencyLimit,omitempty"`
	Pending          *PendingReason    `json:"pendingReason,omitempty" doc:"Of a task that waits for a worker, and is asked for by its id: why it does not run."`
	Labels           map[string]string `json:"labels,omitempty"`
	Requires         map[string]string `json:"requires,omitempty"`
	Metadata         json.RawMessage   `json:"metadata,omitempty"`
	Progress         int               `json:"progress" minimum:"0" maximum:"100" doc:"Percent."`
	Output           string            `json:"output,omitempty"`
	Error            string            `json:"error,omitempty"`
	WaitingReason    WaitingReason     `json:"waitingReason,omitempty" enum:"input,approval,retry,worker-lost,dependency,resume" doc:"Why a waiting task waits; resume: people have answered, and a worker is to go on with it."`
	Attempt          int               `json:"attempt" doc:"How often a worker has begun the task."`
	MaxAttempts      int               `json:"maxAttempts"`
	RunAfter         *time.Time        `json:"runAfter,omitempty"`
	TimeoutSeconds   int               `json:"timeoutSeconds,omitempty"`
	ExpiresAt        *time.Time        `json:"expiresAt,omitempty"`
	DeadlineAt       *time.Time        `json:"deadlineAt,omitempty"`
	SilenceSeconds   int               `json:"silenceSeconds,omitempty"`
	RetryOn          []string          `json:"retryOn,omitempty"`
	Budget           *Budget           `json:"budget,omitempty"`
	Usage            *Usage            `json:"usage,omitempty" doc:"What its agents have told that they used, over all attempts."`
	StatusReason     string            `json:"statusReason,omitempty" doc:"Why the task, or its last attempt, did not succeed: expired, deadline, timeout, silent, worker-lost, released, dependency, denied, budget-exceeded, failed, or what the executor names, such as exit:75."`
	CreatedAt        time.Time         `json:"createdAt"`
	UpdatedAt        time.Time         `json:"updatedAt"`
	StartedAt        *time.Time        `json:"startedAt,omitempty"`
	CompletedAt      *time.Time        `json:"completedAt,omitempty"`
	RetryOf          string            `json:"retryOf,omitempty" format:"uuid" doc:"The task that this one does again."`
	RetriedBy        string            `json:"retriedBy,omitempty" format:"uuid" doc:"The task that does this one again."`
}

// Attempt is one worker's try at a task.
type Attempt struct {
	Attempt   int        `json:"attempt" doc:"1, 2, 3, …; the same again where an attempt goes on that was given back until people had answered."`
	WorkerID  string     `json:"workerId"`
	StartedAt time.Time  `json:"startedAt"`
	EndedAt   *time.Time `json:"endedAt,omitempty"`
	Outcome   string     `json:"outcome,omitempty" enum:"completed,failed,cancelled,released,worker-lost" doc:"Absent while it goes on."`
	Reason    string     `json:"reason,omitempty" doc:"Why it did not complete."`
}

// AttemptList is the tries at a task, oldest first.
type AttemptList struct {
	Items []Attempt `json:"items"`
}

// PendingReason says why a task that waits for a worker does not run.
type PendingReason struct {
	Reason string `json:"reason" enum:"dependency,not-before,limit,rate,paused,budget,no-worker,turn" doc:"rate: as many tasks of the agent were begun as may be for now. budget: nothing is left of that of its session or project. turn: others come before, or the workers are busy."`
	Limit  string `json:"limit,omitempty" doc:"The limit that is reached, or whose budget is, as kind:name." example:"project:web"`
	Ahead  int    `json:"ahead,omitempty" doc:"How many tasks of the project come before, up to 1,000."`
	Pause  *Pause `json:"pause,omitempty" doc:"With paused: what is, since when and by whom."`
}

// TaskTree answers GET /v1/tasks/{id}/tree.
type TaskTree struct {
	Items     []Task `json:"items" doc:"The task and its descendants, those nearest to it first; parentTaskId says whose part each is."`
	Truncated bool   `json:"truncated" doc:"There are more: at most 1,000 are told, fewer where they are large."`
}

// CancelledTasks answers POST /v1/tasks/cancel.
type CancelledTasks struct {
	Cancelled int  `json:"cancelled" doc:"How many of the chosen tasks were cancelled; their descendants, which were too, are not counted."`
	Denied    int  `json:"denied" doc:"How many the policies did not let the caller cancel."`
	More      bool `json:"more" doc:"There may be more: at most 500 are looked at. Ask again."`
}

// WaitingReason says what a waiting task waits for.
type WaitingReason string

// The waiting reasons.
const (
	WaitingInput      WaitingReason = "input"
	WaitingApproval   WaitingReason = "approval"
	WaitingRetry      WaitingReason = "retry"
	WaitingWorkerLost WaitingReason = "worker-lost"
	WaitingDependency WaitingReason = "dependency"
	WaitingResume     WaitingReason = "resume"
)

// TaskPatch is the body of PATCH /v1/tasks/{id}. What is absent stays as it is.
type TaskPatch struct {
	Status        *TaskStatus     `json:"status,omitempty" enum:"planning,running,waiting,completed,failed,cancelled"`
	WaitingReason WaitingReason   `json:"waitingReason,omitempty" enum:"input,approval,dependency" doc:"With status waiting: why. Default: input."`
	Progress      *int            `json:"progress,omitempty" doc:"Percent; values outside 0 to 100 are clamped."`
	Output        *string         `json:"output,omitempty" maxLength:"1048576" doc:"Replaces the task's output."`
	Error         *string         `json:"error,omitempty" maxLength:"65536" doc:"What went wrong. Sets the status to failed."`
	Message       string          `json:"message,omitempty" maxLength:"16384" doc:"A line for whoever watches the stream."`
	Data          json.RawMessage `json:"data,omitempty" doc:"Any JSON object, at most 64 KiB, for whoever watches the stream."`
}

// TaskList is one page of tasks, newest first.
type TaskList struct {
	Items      []Task `json:"items"`
	NextCursor string `json:"nextCursor,omitempty" doc:"Ask for the next page with ?cursor=. Absent on the last page."`
}

// TaskBatch is the answer to POST /v1/tasks/batch, in the order of the request.
type TaskBatch struct {
	Items []Task `json:"items"`
}
