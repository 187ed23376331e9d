package api

import (
	"encoding/json"
	"time"
)

// EventType is the kind of a stream event, the "event:" line of a Server-Sent
// Event.
type EventType string

// The event types. EventSnapshot and EventReset are made for one stream and
// not kept in a task's history.
const (
	EventSnapshot EventType = "snapshot" // the task as it is now, in Data
	EventStatus   EventType = "status"
	EventProgress EventType = "progress"
	EventOutput   EventType = "output"   // a piece of output as it is made, in Message
	EventLog      EventType = "log"      // a line of what the agent says meanwhile
	EventQuestion EventType = "question" // a person is asked
	EventArtifact EventType = "artifact"
	EventReset    EventType = "reset" // what was asked for is gone; a snapshot follows
)

// Event is one entry of a task's history and the data of one stream event.
type Event struct {
	Type      EventType       `json:"type" enum:"snapshot,status,progress,output,log,question,artifact,reset"`
	TaskID    string          `json:"taskId" format:"uuid"`
	Seq       int64           `json:"seq" doc:"1, 2, 3, … within the task, without gaps."`
	Status    TaskStatus      `json:"status" enum:"pending,planning,running,waiting,completed,failed,cancelled" doc:"The task's status after the event."`
	Timestamp time.Time       `json:"timestamp"`
	Message   string          `json:"message,omitempty"`
	Progress  *int            `json:"progress,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
}

// EventList is one page of a task's history, oldest first.
type EventList struct {
	Items      []Event `json:"items"`
	NextCursor string  `json:"nextCursor,omitempty" doc:"Ask for the next page with ?cursor=. Absent on the last page."`
}
