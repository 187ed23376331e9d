package executor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/coder/acp-go-sdk"

	"github.com/coderclaw/runtime/api"
)

// maxQuestionInput is the most that a question shows of what is to be approved,
// in bytes.
const maxQuestionInput = 60 << 10

// permit asks a person whether the agent may do what it wants to. Nothing but
// an approval allows it, and if the agent offers that, it allows it once.
func (c *conversation) permit(ctx context.Context, q acp.RequestPermissionRequest) (acp.RequestPermissionResponse, error) {
	// A turn that is being cancelled waits for nobody.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.asking, cancel)()

	allow, ok := choose(q.Options, acp.PermissionOptionKindAllowOnce, acp.PermissionOptionKindAllowAlways)
	if !ok {
		return denied(q), nil
	}
	n, whole := leaveFor(q, allow)
	_, always := choose(q.Options, acp.PermissionOptionKindAllowAlways)
	n.Remember = always && whole
	asked, decided := api.Question{}, false
	if whole {
		asked, decided = c.pending.take(n)
	}
	var err error
	if !decided {
		asked, err = c.sink.Ask(ctx, n)
	}
	switch {
	case ctx.Err() != nil:
		return acp.RequestPermissionResponse{Outcome: acp.NewRequestPermissionOutcomeCancelled()}, nil
	case err != nil:
		c.sink.Note("nobody can be asked, so the agent does not get leave: "+shortened(err.Error(), maxComplaint), nil)
	case asked.Status == api.QuestionApproved:
		return acp.RequestPermissionResponse{Outcome: acp.NewRequestPermissionOutcomeSelected(allow.OptionId)}, nil
	}
	return denied(q), nil
}

// exactly is a request with the input of the tool as the agent wrote it: the kit
// rounds large numbers.
func exactly(q acp.RequestPermissionRequest, params json.RawMessage) acp.RequestPermissionRequest {
	var of struct {
		ToolCall struct {
			RawInput json.RawMessage `json:"rawInput"`
		} `json:"toolCall"`
	}
	if json.Unmarshal(params, &of) == nil && q.ToolCall.RawInput != nil {
		q.ToolCall.RawInput = of.ToolCall.RawInput
	}
	return q
}

// choose returns the first option that is of the kind, or of the next one.
func choose(options []acp.PermissionOption, kinds ...acp.PermissionOptionKind) (acp.PermissionOption, bool) {
	for _, kind := range kinds {
		for _, o := range options {
			if o.Kind == kind {
				return o, true
			}
		}
	}
	return acp.PermissionOption{}, false
}

func denied(q acp.RequestPermissionRequest) acp.RequestPermissionResponse {
	if o, ok := choose(q.Options, acp.PermissionOptionKindRejectOnce, acp.PermissionOptionKindRejectAlways); ok {
		return acp.RequestPermissionResponse{Outcome: acp.NewRequestPermissionOutcomeSelected(o.OptionId)}
	}
	return acp.RequestPermissionResponse{Outcome: acp.NewRequestPermissionOutcomeCancelled()}
}

// leaveFor is the question whether the agent may do what it wants to, of which
// approval means the option, and whether it shows all of that.
func leaveFor(q acp.RequestPermissionRequest, option acp.PermissionOption) (n api.NewQuestion, whole bool) {
	call := q.ToolCall
	var title string
	var kind acp.ToolKind
	if call.Title != nil {
		title = *call.Title
	}
	if call.Kind != nil {
		kind = *call.Kind
	}
	kind = cmp.Or(kind, acp.ToolKindOther)
	text := "The agent asks for leave: " + shortened(cmp.Or(title, string(kind)), 1000)
	n = api.NewQuestion{
		Kind: api.QuestionApproval, Risk: riskOf(kind),
		Tool: &api.ToolCall{Name: shortened(string(kind), 200), Title: shortened(title, 1000)},
	}
	if n.Tool.Input, whole = inputOf(call); !whole {
		text += "\n\nWhat it wants to do is too long to be shown here in full."
	}
	if option.Kind == acp.PermissionOptionKindAllowAlways {
		// The agent offers no less, and what it makes of it is up to the agent.
		text += fmt.Sprintf("\n\nIt can be allowed once and for all only (%q): the agent may not ask again.", shortened(option.Name, 200))
		n.Risk = "high"
	}
	n.Text = text
	return n, whole && len(title) <= 1000
}

func riskOf(kind acp.ToolKind) api.Risk {
	switch kind {
	case acp.ToolKindRead, acp.ToolKindSearch, acp.ToolKindThink:
		return "low"
	case acp.ToolKindExecute, acp.ToolKindDelete:
		return "high"
	}
	return "medium"
}

// inputOf is what a tool is called with, as a JSON object of bounded size, and
// whether that is all of it.
func inputOf(call acp.ToolCallUpdate) (json.RawMessage, bool) {
	type change struct {
		Path string  `json:"path"`
		Old  *string `json:"old,omitempty"`
		New  string  `json:"new"`
	}
	var shown struct {
		Input   any      `json:"input,omitempty"`
		Paths   []string `json:"paths,omitempty"`
		Changes []change `json:"changes,omitempty"`
		Cut     string   `json:"beginning,omitempty"`
	}
	shown.Input = call.RawInput
	for _, l := range call.Locations {
		shown.Paths = append(shown.Paths, l.Path)
	}
	for _, part := range call.Content {
		if d := part.Diff; d != nil {
			shown.Changes = append(shown.Changes, change{Path: d.Path, Old: d.OldText, New: d.NewText})
		}
	}
	whole, err := json.Marshal(shown)
	if err == nil && len(whole) <= maxQuestionInput {
		return whole, true
	}
	shown.Input, shown.Paths, shown.Changes = nil, nil, nil
	shown.Cut = shortened(string(whole), maxQuestionInput/8) // as JSON a character can take six bytes
	whole, _ = json.Marshal(shown)
	return whole, false
}
