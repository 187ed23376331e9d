package clawctl

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/coderclaw/runtime/api"
)

// dialog is what a person at the terminal has said of a question so far. Of some
// approvals it asks for more: by how much to raise the budget, or how far to
// remember it.
type dialog struct {
	q        api.Question
	answer   api.Answer
	approved bool
}

func (d *dialog) prompt() string {
	switch {
	case d.approved && d.q.Budget != nil:
		return "How much more may be used? " + figureOf(d.q.Budget.Unit) + ", or nothing for as much as the budget has: "
	case d.approved:
		return "Also the very same request later, in this task, session or project? One of these, or no: "
	case d.q.Kind == api.QuestionApproval:
		return "Approve? yes or no, and why: "
	}
	return "> "
}

// figureOf says what figures of a budget's unit look like.
func figureOf(unit string) string {
	switch unit {
	case "tokens":
		return "A number of tokens, such as 200000"
	case "toolCalls":
		return "A number of tool calls, such as 50"
	}
	return "An amount in " + cleanLine(unit) + ", such as 1.50"
}

// hear takes a line. It returns true if that makes the answer whole.
func (d *dialog) hear(line string) (whole bool) {
	switch {
	case d.approved && d.q.Budget != nil:
		d.answer.RaiseBy = line
		return true
	case d.approved:
		scope, ok := scopeOf(line)
		d.answer.Remember = scope
		return ok
	}
	var ok bool
	d.answer, ok = answerOf(d.q, line)
	d.approved = ok && d.answer.Approve != nil && *d.answer.Approve && (d.q.Budget != nil || d.q.Remember)
	return ok && !d.approved
}

// scopeOf reads how far an approval is to be remembered; "": not at all.
func scopeOf(line string) (scope api.GrantScope, ok bool) {
	switch word := strings.ToLower(line); word {
	case "", "n", "no":
		return "", true
	case "task", "session", "project":
		return api.GrantScope(word), true
	}
	return "", false
}

// answerOf makes an answer of a line: yes or no and a reason, the number or the id
// of a choice, an object for a form, or a text.
func answerOf(q api.Question, line string) (a api.Answer, ok bool) {
	if q.Kind == api.QuestionApproval {
		word, reason, _ := strings.Cut(line, " ")
		yes := strings.EqualFold(word, "yes") || strings.EqualFold(word, "y")
		no := strings.EqualFold(word, "no") || strings.EqualFold(word, "n")
		return api.Answer{Approve: &yes, Reason: strings.TrimSpace(reason)}, yes || no
	}
	if q.Schema != nil && json.Valid([]byte(line)) {
		return api.Answer{Data: json.RawMessage(line)}, true
	}
	if n, err := strconv.Atoi(line); err == nil && n > 0 && n <= len(q.Choices) {
		line = q.Choices[n-1].ID
	}
	return api.Answer{Input: line}, line != "" && q.Schema == nil
}
