package executor

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"

	"github.com/coderclaw/runtime/api"
)

// outcomes are those of questions that an agent had asked before its attempt was
// suspended. Each is good for one time that the agent asks the very same again.
type outcomes struct {
	mu  sync.Mutex
	all []api.Question
}

func (o *outcomes) fill(all []api.Question) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = slices.Clone(all)
}

// take returns the outcome of a question that asks what n does, of the same kind
// and to the last byte of what is to be approved.
func (o *outcomes) take(n api.NewQuestion) (api.Question, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.all, func(q api.Question) bool {
		return q.Kind == n.Kind && q.Text == n.Text && q.Risk == n.Risk && q.SkillID == n.SkillID && sameCall(q.Tool, n.Tool)
	})
	if i < 0 {
		return api.Question{}, false
	}
	q := o.all[i]
	o.all = slices.Delete(o.all, i, i+1)
	return q, true
}

// sameCall reports whether two calls of a tool are the same, however they are
// written down.
func sameCall(a, b *api.ToolCall) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.Title == b.Title && bytes.Equal(canonical(a.Input), canonical(b.Input))
}

// canonical is a JSON text in the form in which all of the same meaning are
// equal; numbers stay as they are written.
func canonical(text json.RawMessage) []byte {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return text
	}
	form, err := json.Marshal(v)
	if err != nil {
		return text
	}
	return form
}
