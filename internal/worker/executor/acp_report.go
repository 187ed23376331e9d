package executor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/coder/acp-go-sdk"

	"github.com/coderclaw/runtime/api"
)

const (
	// maxThought is how much of a thought is gathered before it is passed on,
	// in bytes.
	maxThought = 4 << 10
	// maxTools is how many tool calls are remembered.
	maxTools = 1000
)

// report tells the sink what an agent says of its work.
type report struct {
	sink   Sink
	output tail

	thought strings.Builder
	apart   bool // something was reported since the last words of output
	tools   map[acp.ToolCallId]tool
	notes   int
	context *acp.SessionUsageUpdate
	source  string // of the session's use
	calls   int64  // of tools
}

// tool is what is known of a tool call.
type tool struct {
	title  string
	status acp.ToolCallStatus
}

// toolDetails are those of a tool call's event.
type toolDetails struct {
	ID     acp.ToolCallId     `json:"id"`
	Title  string             `json:"title"`
	Kind   acp.ToolKind       `json:"kind,omitempty"`
	Status acp.ToolCallStatus `json:"status,omitempty"`
	Paths  []string           `json:"paths,omitempty"`
	Input  any                `json:"input,omitempty"`
	Output any                `json:"output,omitempty"`
}

// update takes one update of the session.
func (r *report) update(u acp.SessionUpdate) {
	if u.AgentThoughtChunk != nil {
		if text := u.AgentThoughtChunk.Content.Text; text != nil {
			r.thought.WriteString(text.Text)
		}
		if r.thought.Len() >= maxThought {
			r.think()
		}
		return
	}
	switch {
	case u.AgentMessageChunk != nil:
		r.think()
		r.say(u.AgentMessageChunk.Content)
	case u.ToolCall != nil:
		r.think()
		t := u.ToolCall
		if _, known := r.tools[t.ToolCallId]; !known {
			r.calls++
			r.sink.Used("", api.Usage{ToolCalls: r.calls})
		}
		r.call(toolDetails{ID: t.ToolCallId, Title: t.Title, Kind: t.Kind, Status: cmp.Or(t.Status, acp.ToolCallStatusPending), Paths: paths(t.Locations), Input: t.RawInput, Output: t.RawOutput})
	case u.ToolCallUpdate != nil:
		r.think()
		t := u.ToolCallUpdate
		d := toolDetails{ID: t.ToolCallId, Paths: paths(t.Locations), Input: t.RawInput, Output: t.RawOutput}
		if t.Title != nil {
			d.Title = *t.Title
		}
		if t.Kind != nil {
			d.Kind = *t.Kind
		}
		if t.Status != nil {
			d.Status = *t.Status
		}
		r.call(d)
	case u.Plan != nil:
		r.think()
		r.plan(u.Plan.Entries)
	case u.UsageUpdate != nil:
		r.context = u.UsageUpdate
		r.used(0)
	}
}

// say passes on a piece of what the agent says. Words before and after
// something else are paragraphs of their own.
func (r *report) say(content acp.ContentBlock) {
	if content.Text == nil {
		r.note("the agent showed something that is not text", nil)
		return
	}
	text := content.Text.Text
	if r.apart && r.output.total > 0 && text != "" {
		text = "\n\n" + strings.TrimLeft(text, " ")
	}
	if text == "" {
		return
	}
	r.apart = false
	r.output.write([]byte(text))
	r.sink.Output(text)
}

// think passes on what has been gathered of a thought.
func (r *report) think() {
	if text := strings.TrimSpace(r.thought.String()); text != "" {
		r.note(text, map[string]any{"thought": true})
	}
	r.thought.Reset()
}

// call reports a tool call if something new is to be said of it.
func (r *report) call(d toolDetails) {
	was, known := r.tools[d.ID]
	now := tool{title: cmp.Or(d.Title, was.title, string(d.ID)), status: cmp.Or(d.Status, was.status)}
	if known && now == was {
		return
	}
	if r.tools == nil || len(r.tools) >= maxTools {
		r.tools = map[acp.ToolCallId]tool{}
	}
	now.title = shortened(now.title, 1000)
	r.tools[d.ID] = now
	d.Title, d.Status = now.title, now.status
	r.note(fmt.Sprintf("%s: %s", d.Title, strings.ReplaceAll(string(d.Status), "_", " ")), map[string]any{"toolCall": d})
}

func paths(locations []acp.ToolCallLocation) (paths []string) {
	for _, l := range locations {
		paths = append(paths, l.Path)
	}
	return paths
}

// plan reports how far the agent is with its plan.
func (r *report) plan(entries []acp.PlanEntry) {
	done, now := 0, ""
	for _, e := range entries {
		switch e.Status {
		case acp.PlanEntryStatusCompleted:
			done++
		case acp.PlanEntryStatusInProgress:
			now = cmp.Or(now, e.Content)
		}
	}
	if len(entries) == 0 {
		return
	}
	// Done is the task when the agent says so, not its plan.
	r.sink.Progress(min(100*done/len(entries), 99), now)
	r.note(fmt.Sprintf("plan: %d of %d done", done, len(entries)), map[string]any{"plan": entries})
}

// close passes on what is left to say, and what the turn has cost.
func (r *report) close(usage *acp.Usage) {
	r.think()
	if usage == nil && r.context == nil {
		return
	}
	if usage != nil {
		r.used(usage.TotalTokens)
	}
	var spent struct {
		Usage *acp.Usage `json:"usage,omitempty"`
		Cost  *acp.Cost  `json:"cost,omitempty"`
		// Context says how much of what the model can see at a time is in use.
		Context *contextDetails `json:"context,omitempty"`
	}
	spent.Usage = usage
	if r.context != nil {
		spent.Cost = r.context.Cost
		spent.Context = &contextDetails{Used: r.context.Used, Size: r.context.Size}
	}
	r.sink.Note("tokens used", spent)
}

// used passes on what the session has used in all, as far as it is known: agents
// tell their tokens at the end of a turn.
func (r *report) used(tokens int) {
	total := api.Usage{}
	if tokens > 0 && tokens <= maxCount {
		total.Tokens = int64(tokens)
	}
	if r.context != nil && r.context.Cost != nil {
		if cost, ok := costOf(r.context.Cost.Amount, r.context.Cost.Currency); ok {
			total.Costs = []api.Cost{cost}
		}
	}
	if total.Tokens > 0 || total.Costs != nil {
		r.sink.Used(r.source, total)
	}
}

type contextDetails struct {
	Used int `json:"used"` // tokens
	Size int `json:"size"`
}

// note passes on a remark, with its details if they are not too long.
func (r *report) note(message string, details any) {
	r.apart = true
	r.notes++
	switch {
	case r.notes == maxNotes+1:
		r.sink.Note(fmt.Sprintf("the agent has reported %d things beside its output: further ones are not streamed", maxNotes), nil)
		return
	case r.notes > maxNotes:
		return
	}
	if details != nil {
		encoded, err := json.Marshal(details)
		if err != nil || len(encoded) > maxDetails {
			r.sink.Note(message, map[string]any{"detailsBytes": len(encoded)})
			return
		}
		details = json.RawMessage(encoded)
	}
	r.sink.Note(message, details)
}
