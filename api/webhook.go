package api

import "time"

// NewWebhook is the body of POST /v1/webhooks.
type NewWebhook struct {
	URL         string            `json:"url" minLength:"1" maxLength:"2048" doc:"Where events are posted: https, at a public address on port 443, unless the server allows private networks." example:"https://example.com/hooks/coderclaw"`
	ProjectID   string            `json:"projectId,omitempty" maxLength:"128" doc:"Whose tasks it is about. Default: the caller's project, or all projects for whoever is confined to none."`
	Description string            `json:"description,omitempty" maxLength:"500"`
	Statuses    []TaskStatus      `json:"statuses,omitempty" maxItems:"7" enum:"pending,planning,running,waiting,completed,failed,cancelled" doc:"Which statuses it is told of. Default: all."`
	AgentID     string            `json:"agentId,omitempty" maxLength:"128" doc:"Only tasks of this agent."`
	Labels      map[string]string `json:"labels,omitempty" maxProperties:"64" doc:"Only tasks that have all of these labels."`
	Disabled    bool              `json:"disabled,omitempty" doc:"Made so that it is not sent anything yet."`
}

// WebhookPatch is the body of PATCH /v1/webhooks/{id}. What is absent stays as
// it is.
type WebhookPatch struct {
	URL         *string            `json:"url,omitempty" minLength:"1" maxLength:"2048"`
	Description *string            `json:"description,omitempty" maxLength:"500"`
	Statuses    *[]TaskStatus      `json:"statuses,omitempty" maxItems:"7" enum:"pending,planning,running,waiting,completed,failed,cancelled"`
	AgentID     *string            `json:"agentId,omitempty" maxLength:"128"`
	Labels      *map[string]string `json:"labels,omitempty" maxProperties:"64"`
	Enabled     *bool              `json:"enabled,omitempty" doc:"What happens while it is disabled is not queued; what was queued before waits."`
}

// Webhook says who is told of the status changes of tasks.
type Webhook struct {
	ID                string            `json:"id" format:"uuid"`
	URL               string            `json:"url"`
	AllProjects       bool              `json:"allProjects" doc:"It is about the tasks of all projects."`
	ProjectID         string            `json:"projectId,omitempty" doc:"Whose tasks it is about; absent: all, or the maker's that belong to no project."`
	UserID            string            `json:"userId" doc:"Who made it."`
	Description       string            `json:"description,omitempty"`
	Statuses          []TaskStatus      `json:"statuses" enum:"pending,planning,running,waiting,completed,failed,cancelled" doc:"Which statuses it is told of; empty: all."`
	AgentID           string            `json:"agentId,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Enabled           bool              `json:"enabled"`
	DisabledReason    string            `json:"disabledReason,omitempty" doc:"Why the server has disabled it; absent: a caller has."`
	DisabledAt        *time.Time        `json:"disabledAt,omitempty"`
	FailingSince      *time.Time        `json:"failingSince,omitempty" doc:"Since when no attempt has succeeded. After three days it is disabled."`
	FormerSecretUntil *time.Time        `json:"formerSecretUntil,omitempty" doc:"Until when the former secret signs too."`
	CreatedAt         time.Time         `json:"createdAt"`
	UpdatedAt         time.Time         `json:"updatedAt" doc:"When somebody changed it last, or the server disabled it."`
}

// CreatedWebhook answers POST /v1/webhooks.
type CreatedWebhook struct {
	Webhook
	Secret string `json:"secret" doc:"whsec_…, by which what it is sent is signed; shown this once."`
}

// WebhookList is one page of webhooks, newest first.
type WebhookList struct {
	Items      []Webhook `json:"items"`
	NextCursor string    `json:"nextCursor,omitempty" doc:"Ask for the next page with ?cursor=. Absent on the last page."`
}

// RotateWebhookSecret is the body of POST /v1/webhooks/{id}/secret.
type RotateWebhookSecret struct {
	KeepFormerSeconds *int `json:"keepFormerSeconds,omitempty" minimum:"0" maximum:"604800" doc:"For how long the former secret signs too, beside the new one. Default: 86400, a day. 0: it is no good from now on."`
}

// WebhookSecret answers POST /v1/webhooks/{id}/secret.
type WebhookSecret struct {
	Secret      string     `json:"secret" doc:"whsec_…; shown this once."`
	FormerUntil *time.Time `json:"formerUntil,omitempty" doc:"Until when the former secret signs too."`
}

// WebhookAttempt is what came of posting an event.
type WebhookAttempt struct {
	At             time.Time `json:"at"`
	Delivered      bool      `json:"delivered" doc:"It was answered with 2xx."`
	Status         int       `json:"status,omitempty" doc:"Of the answer; absent: there was none."`
	Error          string    `json:"error,omitempty"`
	Response       string    `json:"response,omitempty" doc:"The beginning of the answer's body, up to 1 KiB."`
	DurationMillis int       `json:"durationMillis"`
}

// DeliveryStatus is how far a delivery is.
type DeliveryStatus string

// The statuses of deliveries.
const (
	DeliveryPending   DeliveryStatus = "pending"
	DeliveryDelivered DeliveryStatus = "delivered"
	DeliveryDead      DeliveryStatus = "dead" // given up
)

// WebhookDelivery is an event that a webhook is sent.
type WebhookDelivery struct {
	ID            string          `json:"id" doc:"The webhook-id that it is sent with, at each attempt and when it is replayed." example:"evt_0190b8a100007000800000000000002a_3"`
	Type          string          `json:"type" example:"task.completed"`
	TaskID        string          `json:"taskId" format:"uuid"`
	Seq           int64           `json:"seq" doc:"Of the event within the task."`
	Status        DeliveryStatus  `json:"status" enum:"pending,delivered,dead" doc:"dead: given up."`
	Attempts      int             `json:"attempts"`
	QueuedAt      time.Time       `json:"queuedAt"`
	NextAttemptAt *time.Time      `json:"nextAttemptAt,omitempty"`
	EndedAt       *time.Time      `json:"endedAt,omitempty"`
	LastAttempt   *WebhookAttempt `json:"lastAttempt,omitempty"`
}

// WebhookDeliveryList is one page of deliveries, newest first.
type WebhookDeliveryList struct {
	Items      []WebhookDelivery `json:"items"`
	NextCursor string            `json:"nextCursor,omitempty" doc:"Ask for the next page with ?cursor=. Absent on the last page."`
}

// WebhookReplay is the body of POST /v1/webhooks/{id}/replay.
type WebhookReplay struct {
	Since time.Time  `json:"since" doc:"Events from then on are queued again."`
	Until *time.Time `json:"until,omitempty" doc:"Up to then. Default: now."`
}

// WebhookReplayed answers POST /v1/webhooks/{id}/replay.
type WebhookReplayed struct {
	Queued int        `json:"queued" doc:"How many events were queued; those that still are queued from before are not counted."`
	Next   *time.Time `json:"next,omitempty" doc:"There are more than 10,000: replay again since then."`
}

// WebhookEvent is what a webhook is sent.
type WebhookEvent struct {
	Type      string      `json:"type"` // task. and the status
	Timestamp time.Time   `json:"timestamp"`
	Data      WebhookTask `json:"data"`
}

// WebhookTask is a task, in short, at a change of its status.
type WebhookTask struct {
	TaskID       string     `json:"taskId"`
	Seq          int64      `json:"seq"` // orders the events of a task
	Status       TaskStatus `json:"status"`
	StatusReason string     `json:"statusReason,omitempty"` // why it did not succeed
	Message      string     `json:"message,omitempty"`      // told with the change, up to 1,000 bytes
	AgentID      string     `json:"agentId"`
	ProjectID    string     `json:"projectId,omitempty"`
	SessionID    string     `json:"sessionId,omitempty"`
	UserID       string     `json:"userId"`
	ParentTaskID string     `json:"parentTaskId,omitempty"`
	// Labels are those of the task.
	Labels map[string]string `json:"labels,omitempty"`
}
