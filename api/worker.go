package api

import (
	"encoding/json"
	"time"
)

// WorkerRegistration is the body of POST /v1/workers: what a worker says of
// itself when it starts, and when that has changed.
type WorkerRegistration struct {
	ID       string            `json:"id" minLength:"1" maxLength:"128" doc:"Chosen by the worker and kept over restarts." example:"build-7"`
	Instance string            `json:"instance" format:"uuid" doc:"Made up by each process: what another one of the same id held is offered again at once."`
	Agents   []string          `json:"agents,omitempty" maxItems:"1000" doc:"Ids of the agents it can run; absent: any."`
	Labels   map[string]string `json:"labels,omitempty" doc:"What tasks can require of it." example:"{\"gpu\":\"true\"}"`
	Capacity int               `json:"capacity" minimum:"1" maximum:"10000" doc:"How many tasks it runs at once."`
	Version  string            `json:"version,omitempty" maxLength:"128"`
}

// Worker is a worker as it is now.
type Worker struct {
	ID           string            `json:"id"`
	UserID       string            `json:"userId" doc:"The principal that it speaks as."`
	Agents       []string          `json:"agents,omitempty" doc:"Ids of the agents it can run; absent: any."`
	Labels       map[string]string `json:"labels,omitempty"`
	Projects     []string          `json:"projects,omitempty" doc:"The projects that its credential is bound to; absent: all."`
	Capacity     int               `json:"capacity"`
	Running      int               `json:"running" doc:"How many tasks it holds."`
	Version      string            `json:"version,omitempty"`
	Draining     bool              `json:"draining" doc:"It takes no more tasks."`
	Present      bool              `json:"present" doc:"It was heard of within the last 90 seconds."`
	RegisteredAt time.Time         `json:"registeredAt"`
	LastSeenAt   time.Time         `json:"lastSeenAt" doc:"Within a few seconds."`
}

// WorkerList is all workers that were heard of within the last day, by id.
type WorkerList struct {
	Items []Worker `json:"items"`
}

// ClaimRequest asks for work.
type ClaimRequest struct {
	Max         int `json:"max" minimum:"1" maximum:"100" doc:"At most so many leases."`
	WaitSeconds int `json:"waitSeconds,omitempty" minimum:"0" maximum:"60" doc:"How long to wait when there is no work."`
	// Reports are made first. A claim with any does not wait.
	Reports []LeaseReport `json:"reports,omitempty" maxItems:"100" doc:"What is recorded first, in this order, as by POST /v1/tasks/{id}/reports, such as the results of tasks whose slots are free now. Each is recorded or refused by itself. A claim that carries reports does not wait for work."`
}

// LeaseReport is a Report with the lease by whose right it is made.
type LeaseReport struct {
	TaskID     string `json:"taskId" format:"uuid"`
	LeaseToken string `json:"leaseToken" format:"uuid"`
	Report     Report `json:"report"`
}

// ReportAnswer is what has become of a report.
type ReportAnswer struct {
	Problem *Problem `json:"problem,omitempty" doc:"Why nothing of it was recorded; absent: all was."`
}

// LeaseReports are several reports in one request.
type LeaseReports struct {
	Reports []LeaseReport `json:"reports" minItems:"1" maxItems:"100"`
}

// LeaseReportsAnswer is what has become of them.
type LeaseReportsAnswer struct {
	// Reports are the answers to those of the request, in their order.
	Reports []ReportAnswer `json:"reports" doc:"What has become of each report, in their order."`
}

// ClaimAnswer is the work that there is.
type ClaimAnswer struct {
	Leases   []Lease `json:"leases"`
	Draining bool    `json:"draining,omitempty" doc:"There will be no more: finish what runs, and stop."`
	// Reports are the answers to those of the request, in their order.
	Reports []ReportAnswer `json:"reports,omitempty" doc:"What has become of each report, in their order."`
}

// Lease is a worker's time-limited right to run one attempt of a task. Each
// write names its token; once the lease is lost the token is worth nothing.
type Lease struct {
	Task           Task      `json:"task"`
	Agent          *Agent    `json:"agent,omitempty" doc:"Its definition; absent if it was deleted meanwhile."`
	LeaseToken     string    `json:"leaseToken" format:"uuid"`
	LeaseExpiresAt time.Time `json:"leaseExpiresAt" doc:"By the database's clock; less the task's updatedAt it is how long the lease lasts."`
	Attempt        int       `json:"attempt"`
	// Resume is there when the attempt goes on from where this worker left it.
	Resume *Resumption `json:"resume,omitempty" doc:"What the attempt goes on from: this worker gave it back until people had answered. Absent: it begins anew."`
}

// Suspension is what an attempt that waits for people leaves when its worker
// gives it back.
type Suspension struct {
	State     string   `json:"state" minLength:"1" maxLength:"16384" doc:"What the attempt goes on from, as the worker writes it; only that worker gets it again."`
	Questions []string `json:"questions" minItems:"1" maxItems:"32" doc:"The ids of the questions of which the agent has not heard the outcome."`
}

// Resumption is a suspension that is over.
type Resumption struct {
	State    string     `json:"state"`
	Outcomes []Question `json:"outcomes" doc:"The questions, and what has become of them."`
}

// Heartbeat renews leases. The answer comes at once when one of them is lost
// or its task cancelled, else after WaitSeconds.
type Heartbeat struct {
	LeaseTokens []string `json:"leaseTokens,omitempty" maxItems:"10000"`
	WaitSeconds int      `json:"waitSeconds,omitempty" minimum:"0" maximum:"60"`
}

// HeartbeatAnswer tells which leases the worker holds no more.
type HeartbeatAnswer struct {
	Lost []string `json:"lost" doc:"Lease tokens: stop their work, nothing more can be reported."`
}

// LeaseState is how a leased task stands, as the worker sees it that was the
// last to hold it.
type LeaseState struct {
	Held          bool          `json:"held" doc:"By the lease that was asked about."`
	Status        TaskStatus    `json:"status"`
	WaitingReason WaitingReason `json:"waitingReason,omitempty"`
	StatusReason  string        `json:"statusReason,omitempty"`
	LastSeq       int64         `json:"lastSeq" doc:"The number of its newest event."`
}

// Report is the body of POST /v1/tasks/{id}/reports: what a worker says of the
// task that it runs: events for whoever watches and, optionally, a change of the
// task. All of it is kept, or nothing.
type Report struct {
	Events    []ReportEvent `json:"events,omitempty" maxItems:"1000"`
	Status    TaskStatus    `json:"status,omitempty" enum:"running,waiting,completed,failed"`
	Progress  *int          `json:"progress,omitempty" doc:"Percent; values outside 0 to 100 are clamped."`
	Output    *string       `json:"output,omitempty" maxLength:"1048576" doc:"Replaces the task's output."`
	Error     string        `json:"error,omitempty" maxLength:"65536" doc:"With status failed: what went wrong."`
	Reason    string        `json:"reason,omitempty" maxLength:"64" doc:"With status failed: the kind of failure, such as exit:75, timeout or silent."`
	Retryable bool          `json:"retryable,omitempty" doc:"A failed attempt may be tried again."`
	Release   bool          `json:"release,omitempty" doc:"Gives the lease back with the work undone: the task waits for another worker (worker-lost) and is offered at once."`
	Resume    *Suspension   `json:"resume,omitempty" doc:"With release, of an attempt that waits for people: the task goes on waiting for them, without a worker, and is offered once they have answered."`
	Message   string        `json:"message,omitempty" maxLength:"16384" doc:"A line for whoever watches the stream."`
}

// ReportEvent is one event in a Report.
type ReportEvent struct {
	Type     EventType       `json:"type" enum:"progress,output,log"`
	Message  string          `json:"message,omitempty" maxLength:"16384"`
	Progress *int            `json:"progress,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
}
