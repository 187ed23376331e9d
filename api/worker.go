package api

import (
	"encoding/json"
	"time"
)

// WorkerRegistration is what a worker says of itself when it starts.
type WorkerRegistration struct {
	ID       string   `json:"id" doc:"Chosen by the worker and kept over restarts: a worker that registers again holds no lease from before."`
	Agents   []string `json:"agents" doc:"Ids of the agents it can run."`
	Capacity int      `json:"capacity" doc:"How many tasks it runs at once."`
	Version  string   `json:"version"`
}

// ClaimRequest asks for work.
type ClaimRequest struct {
	Max         int `json:"max" minimum:"1" maximum:"100" doc:"At most so many leases."`
	WaitSeconds int `json:"waitSeconds" minimum:"0" maximum:"60" doc:"How long to wait when there is no work."`
}

// Lease is a worker's time-limited right to run one attempt of a task. Each
// write names its token; once the lease is lost the token is worth nothing.
type Lease struct {
	Task           Task      `json:"task"`
	LeaseToken     string    `json:"leaseToken"`
	LeaseExpiresAt time.Time `json:"leaseExpiresAt" doc:"By the database's clock; less the task's updatedAt it is how long the lease lasts."`
	Attempt        int       `json:"attempt"`
}

// Heartbeat renews leases. The answer comes at once when one of them is lost
// or its task cancelled, else after WaitSeconds.
type Heartbeat struct {
	LeaseTokens []string `json:"leaseTokens"`
	WaitSeconds int      `json:"waitSeconds" minimum:"0" maximum:"60"`
}

// HeartbeatAnswer tells which leases the worker holds no more.
type HeartbeatAnswer struct {
	Lost []string `json:"lost" doc:"Lease tokens: stop their work, nothing more can be reported."`
}

// Report is what a worker says of the task that it runs: events for whoever
// watches and, optionally, a change of the task. All of it is kept, or nothing.
type Report struct {
	Events   []ReportEvent `json:"events,omitempty"`
	Status   TaskStatus    `json:"status,omitempty"`
	Progress *int          `json:"progress,omitempty"`
	Output   *string       `json:"output,omitempty"`
	Error    string        `json:"error,omitempty"`
	// Retryable says that a failed attempt may be tried again.
	Retryable bool `json:"retryable,omitempty"`
	// Release gives the lease back with the work undone: the task waits for
	// another worker (worker-lost) and is offered at once.
	Release bool   `json:"release,omitempty"`
	Message string `json:"message,omitempty"`
}

// ReportEvent is one event in a Report.
type ReportEvent struct {
	Type     EventType       `json:"type"`
	Message  string          `json:"message,omitempty"`
	Progress *int            `json:"progress,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
}
