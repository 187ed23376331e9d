package executor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"github.com/coderclaw/runtime/api"
)

// inquiry is what a program that has ended wants to know before it goes on.
type inquiry struct {
	question api.NewQuestion
	state    string // what it goes on from, as it wrote it
}

// left is an inquiry in the state of a suspended attempt.
type left struct {
	Resume string `json:"resume"`
}

// put asks people and returns what the program is told of the outcome.
func (i *inquiry) put(ctx context.Context, sink Sink) (input string, err error) {
	q := i.question
	q.Kind = cmp.Or(q.Kind, api.QuestionInput)
	state, err := json.Marshal(left{i.state})
	if err != nil {
		return "", fmt.Errorf("encode what the program goes on from: %w", err)
	}
	sink.Resumable(func() string { return string(state) })
	outcome, err := sink.Ask(ctx, q)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", &Failure{Message: "what the program asks cannot be put to people: " + shortened(err.Error(), maxComplaint)}
	}
	return told(i.state, outcome)
}

// recall returns what a suspended attempt had asked, and what the program is told
// of the outcome.
func recall(r Resume) (*inquiry, string, error) {
	var l left
	if err := json.Unmarshal([]byte(r.State), &l); err != nil {
		return nil, "", fmt.Errorf("read what the program goes on from: %w", err)
	}
	if len(r.Outcomes) != 1 { // for it asks one thing at a time
		return nil, "", fmt.Errorf("what the program asked has %d outcomes", len(r.Outcomes))
	}
	input, err := told(l.Resume, r.Outcomes[0])
	return &inquiry{state: l.Resume}, input, err
}

// told is the input of a program that goes on.
func told(state string, outcome api.Question) (string, error) {
	text, err := json.Marshal(struct {
		Resume string             `json:"resume"`
		Status api.QuestionStatus `json:"status"`
		Answer *api.Answer        `json:"answer,omitempty"`
	}{state, outcome.Status, outcome.Answer})
	if err != nil {
		return "", fmt.Errorf("encode the answer: %w", err)
	}
	return string(text) + "\n", nil
}

// usedSoFar is a sink that adds what the programs before have used to what one
// uses: each counts from its own beginning.
type usedSoFar struct {
	Sink
	mu          sync.Mutex
	before, now api.Usage // the latter also of the one that runs
}

// Used implements Sink.
func (u *usedSoFar) Used(source string, total api.Usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now = api.Usage{Costs: slices.Clone(total.Costs), Tokens: u.before.Tokens + total.Tokens, ToolCalls: u.before.ToolCalls + total.ToolCalls}
	for _, c := range u.before.Costs {
		if i := slices.IndexFunc(u.now.Costs, func(n api.Cost) bool { return n.Currency == c.Currency }); i >= 0 {
			u.now.Costs[i].Amount = sum(u.now.Costs[i].Amount, c.Amount)
		} else {
			u.now.Costs = append(u.now.Costs, c)
		}
	}
	u.Sink.Used(source, u.now)
}

// sum adds two decimal amounts; what is none counts as nothing.
func sum(a, b string) string {
	x, y := new(big.Rat), new(big.Rat)
	_, _ = x.SetString(a)
	_, _ = y.SetString(b)
	return x.Add(x, y).FloatString(6)
}

// resumption is how a program that has asked goes on.
func resumption(p api.Process) *api.Process {
	p.Command, p.Input = p.Resume, "none"
	return &p
}
