package task

import "slices"

// Status is a step in the life of a task.
type Status string

// The statuses. Completed, Failed and Cancelled are terminal.
const (
	Pending   Status = "pending"
	Planning  Status = "planning"
	Running   Status = "running"
	Waiting   Status = "waiting"
	Completed Status = "completed"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
)

// Statuses lists them in the order of a task's life.
var Statuses = []Status{Pending, Planning, Running, Waiting, Completed, Failed, Cancelled}

// next is the status machine; every step that is not here is refused.
var next = map[Status][]Status{
	Pending:   {Planning, Failed, Cancelled},
	Planning:  {Running, Waiting, Failed, Cancelled},
	Running:   {Waiting, Completed, Failed, Cancelled},
	Waiting:   {Running, Failed, Cancelled},
	Completed: nil,
	Failed:    nil,
	Cancelled: nil,
}

// Known reports whether s is a status.
func (s Status) Known() bool {
	_, ok := next[s]
	return ok
}

// Terminal reports whether nothing can follow s.
func (s Status) Terminal() bool { return s.Known() && len(next[s]) == 0 }

// before returns the statuses from which s can be reached.
func before(s Status) []Status {
	var from []Status
	for _, f := range Statuses {
		if slices.Contains(next[f], s) {
			from = append(from, f)
		}
	}
	return from
}

// open lists the statuses that are not terminal.
var open = []Status{Pending, Planning, Running, Waiting}

// WaitingReason says what a waiting task waits for.
type WaitingReason string

// The waiting reasons.
const (
	ForInput      WaitingReason = "input"       // a person must answer
	ForApproval   WaitingReason = "approval"    // a skill or a plan must be approved
	ForRetry      WaitingReason = "retry"       // the next attempt, at RunAfter
	ForWorker     WaitingReason = "worker-lost" // the next claim resumes it
	ForDependency WaitingReason = "dependency"
	ForResumption WaitingReason = "resume" // people have answered; the next claim goes on with it
)

// Dispatch says who runs a task.
type Dispatch string

// The dispatches: Auto tasks are offered to workers, Manual ones are driven by
// whoever submitted them.
const (
	Auto   Dispatch = "auto"
	Manual Dispatch = "manual"
)

// EventType is the kind of an entry in a task's history.
type EventType string

// The event types that are kept.
const (
	StatusEvent   EventType = "status"
	ProgressEvent EventType = "progress"
	OutputEvent   EventType = "output"
	LogEvent      EventType = "log"
	QuestionEvent EventType = "question"
	ArtifactEvent EventType = "artifact"
)
