package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// TaskLog is what streams are made from.
type TaskLog interface {
	EventsAfter(ctx context.Context, after map[uuid.UUID]int64) (map[uuid.UUID]task.History, error)
	ReadLog(ctx context.Context, after task.Position) (entries []task.LogEntry, more, unsettled bool, err error)
	Ends(ctx context.Context) (head, oldest task.Position, err error)
}

// frame is an event of one task, encoded once for all its followers.
type frame struct {
	text []byte
	last bool // the event is terminal: nothing follows
}

// logFrame is an event of any task, with what filters look at.
type logFrame struct {
	text  []byte
	entry task.LogEntry
}

// readTasks is the source of the hub of single tasks, whose keys are ids.
func (s *Server) readTasks(ctx context.Context, after map[string]stream.Cursor) (map[string]stream.Batch[frame], error) {
	ids := make(map[uuid.UUID]int64, len(after))
	for key, c := range after {
		ids[uuid.MustParse(key)] = c.Pos
	}
	found, err := s.tasks.EventsAfter(ctx, ids)
	if err != nil {
		return nil, err
	}
	batches := make(map[string]stream.Batch[frame], len(found))
	for id, history := range found {
		b := stream.Batch[frame]{Items: make([]stream.Item[frame], len(history.Events)), More: history.More}
		for i, e := range history.Events {
			text := encodeFrame(strconv.FormatInt(e.Seq, 10), wireEvent(e))
			last := e.Type == task.StatusEvent && e.Status.Terminal()
			b.Items[i] = stream.Item[frame]{Cursor: stream.Cursor{Pos: e.Seq}, Entry: frame{text, last}, Size: len(text)}
		}
		batches[id.String()] = b
	}
	return batches, nil
}

// allTasks is the one key of the hub of the log of all tasks.
const allTasks = ""

func (s *Server) readLog(ctx context.Context, after map[string]stream.Cursor) (map[string]stream.Batch[logFrame], error) {
	c, asked := after[allTasks]
	if !asked {
		return nil, nil
	}
	entries, more, unsettled, err := s.tasks.ReadLog(ctx, task.Position(c))
	if err != nil {
		return nil, err
	}
	b := stream.Batch[logFrame]{Items: make([]stream.Item[logFrame], len(entries)), More: more, Unsettled: unsettled}
	for i, e := range entries {
		text := encodeFrame(formatCursor(e.Position), wireEvent(e.Event))
		e.Message, e.Data = "", nil // they are in the text
		b.Items[i] = stream.Item[logFrame]{Cursor: stream.Cursor(e.Position), Entry: logFrame{text, e}, Size: len(text)}
	}
	return map[string]stream.Batch[logFrame]{allTasks: b}, nil
}

// encodeFrame writes a Server-Sent Event; control frames have no id.
func encodeFrame(id string, e api.Event) []byte {
	data, err := json.Marshal(e) // one line: JSON strings hold no raw line ends
	if err != nil {
		// Data comes from the database as JSON and nothing else can fail.
		panic(fmt.Sprintf("httpapi: encode event: %v", err))
	}
	var b bytes.Buffer
	b.Grow(len(data) + 64)
	b.WriteString("event: " + string(e.Type) + "\n")
	if id != "" {
		b.WriteString("id: " + id + "\n")
	}
	b.WriteString("data: ")
	b.Write(data)
	b.WriteString("\n\n")
	return b.Bytes()
}

func formatCursor(p task.Position) string {
	return strconv.FormatUint(p.Tx, 36) + "-" + strconv.FormatInt(p.Pos, 36)
}

func parseCursor(s string) (p task.Position, ok bool) {
	if s == "0" {
		return p, true
	}
	tx, pos, found := strings.Cut(s, "-")
	var err, err2 error
	p.Tx, err = strconv.ParseUint(tx, 36, 64)
	p.Pos, err2 = strconv.ParseInt(pos, 36, 64)
	return p, found && err == nil && err2 == nil && p.Pos >= 0 && formatCursor(p) == s
}

// ResumeInput says where a stream goes on.
type ResumeInput struct {
	LastEventID string `header:"Last-Event-ID" maxLength:"64" doc:"The id of the last event that was seen; what follows it is sent, without a snapshot. EventSource sends it by itself when it reconnects."`
	After       string `query:"after" maxLength:"64" doc:"As Last-Event-ID, which wins if both are given. 0 replays all."`
	Ticket      string `query:"ticket" maxLength:"128" doc:"Of POST /v1/stream-tickets, instead of a credential in a header."`
}

// from is the id to resume after, or "" for a new follower, and where it came
// from.
func (in *ResumeInput) from() (id, path string) {
	if in.LastEventID != "" {
		return in.LastEventID, "header.Last-Event-ID"
	}
	return in.After, "query.after"
}

func (s *Server) registerStreams() {
	events := &huma.Response{
		Description: "Server-Sent Events. The event name is that of the data's type, the id the place to resume after.",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema:  &huma.Schema{Type: huma.TypeString, Description: "A sequence of events; the data of each is an Event in JSON."},
			Example: "retry: 2000\n\nevent: progress\nid: 4\ndata: {\"type\":\"progress\",\"taskId\":\"0190b8a1-0000-7000-8000-000000000000\",\"seq\":4,\"status\":\"running\",\"timestamp\":\"2026-01-01T12:00:00.000Z\",\"progress\":50}\n\n",
		}},
	}
	handle(s, operation{
		id: "streamTask", action: "task.read", method: http.MethodGet, path: "/v1/tasks/{id}/stream", permission: policy.TaskRead, tag: "Streams",
		summary: "Follow a task", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
		detail: "A new follower first gets a snapshot event with the task as it is, then each event as it happens. The response ends after the terminal event; whoever reconnects with its id gets 204, which stops an EventSource.",
		responses: map[string]*huma.Response{
			"200": events,
			"204": {Description: "The task is terminal and the follower has seen everything."},
		},
	}, s.streamTask)
	handle(s, operation{
		id: "streamTasks", action: "task.list", method: http.MethodGet, path: "/v1/stream", permission: policy.TaskRead, tag: "Streams",
		summary: "Follow all tasks", errors: []int{http.StatusUnprocessableEntity}, responses: map[string]*huma.Response{"200": events},
		detail: "The events of all tasks that the filters select, from now on or after a place. The ids are opaque and hold on every server of the same database. A place after which events are past retention is answered with a reset event, and the stream begins anew.",
	}, s.streamTasks)
}

func (s *Server) streamTask(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	ResumeInput
}) (*huma.StreamResponse, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	from, path := in.from()
	after, err := strconv.ParseInt(from, 10, 64)
	if from != "" && (err != nil || after < 0) {
		return nil, fault.InvalidFields([]fault.Field{{Path: path, Message: "must be the id of an event of this task"}})
	}
	t, err := s.tasks.Get(ctx, c, id)
	if err != nil {
		return nil, err
	}
	if from != "" && t.Status.Terminal() && after >= t.LastSeq {
		return &huma.StreamResponse{Body: func(hc huma.Context) { hc.SetStatus(http.StatusNoContent) }}, nil
	}
	var head []byte
	switch {
	case from == "":
		head, after = snapshot(t), t.LastSeq
	case after > t.LastSeq: // seen in a database that was set back since
		head = append(encodeFrame("", api.Event{Type: api.EventReset, TaskID: t.ID.String(), Status: api.TaskStatus(t.Status), Timestamp: time.Now().UTC()}), snapshot(t)...)
		after = t.LastSeq
	}
	return streaming(s, c, &followArgs[frame]{
		hub: s.taskHub, key: t.ID.String(), after: stream.Cursor{Pos: after}, end: stream.Cursor{Pos: t.LastSeq},
		head: head, ended: t.Status.Terminal() && after == t.LastSeq,
		emit: func(f frame) (text []byte, last bool) { return f.text, f.last },
	})
}

func snapshot(t task.Task) []byte {
	w := WireTask(t)
	data, err := json.Marshal(w)
	if err != nil {
		panic(fmt.Sprintf("httpapi: encode task: %v", err)) // its metadata was checked to be JSON
	}
	return encodeFrame(strconv.FormatInt(t.LastSeq, 10), api.Event{
		Type: api.EventSnapshot, TaskID: w.ID, Seq: t.LastSeq, Status: w.Status, Timestamp: w.UpdatedAt, Progress: &w.Progress, Data: data,
	})
}

func (s *Server) streamTasks(ctx context.Context, c policy.Caller, in *struct {
	FilterInput
	ResumeInput
}) (*huma.StreamResponse, error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	now, oldest, err := s.tasks.Ends(ctx)
	if err != nil {
		return nil, err
	}
	var head []byte
	after := now
	from, path := in.from()
	if from != "" {
		var ok bool
		if after, ok = parseCursor(from); !ok {
			return nil, fault.InvalidFields([]fault.Field{{Path: path, Message: "must be the id of an event of this stream, or 0"}})
		}
	}
	gone := after != (task.Position{}) && stream.Cursor(after).Compare(stream.Cursor(oldest)) < 0 // past retention
	if gone || stream.Cursor(after).Compare(stream.Cursor(now)) > 0 {                             // a place in a database that was set back since
		head, after = encodeFrame("", api.Event{Type: api.EventReset, Timestamp: time.Now().UTC()}), now
	}
	if from == "" || after == now {
		// An id without data makes the place known without an event.
		head = fmt.Appendf(head, "id: %s\n\n", formatCursor(after))
	}
	return streaming(s, c, &followArgs[logFrame]{
		hub: s.logHub, key: allTasks, after: stream.Cursor(after), end: stream.Cursor(now), head: head,
		place: func(c stream.Cursor) string { return formatCursor(task.Position(c)) },
		emit: func(l logFrame) (text []byte, last bool) {
			if !f.Matches(c, l.entry) {
				return nil, false
			}
			return l.text, false
		},
	})
}

// streaming is the answer that follows a log.
func streaming[E any](s *Server, c policy.Caller, a *followArgs[E]) (*huma.StreamResponse, error) {
	var err error
	if a.release, err = s.takeStream(c); err != nil {
		return nil, err
	}
	a.caller = &c
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		requestOf(hc.Context()).stream = func(w http.ResponseWriter, r *http.Request) { follow(s, r, w, a) }
	}}, nil
}
