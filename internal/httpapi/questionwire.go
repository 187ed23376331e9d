package httpapi

import (
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/task"
)

// WireQuestion is a question as clients see it.
func WireQuestion(q task.Question) api.Question {
	w := api.Question{
		ID: q.ID.String(), TaskID: q.TaskID.String(), ProjectID: q.ProjectID, Kind: api.QuestionKind(q.Kind), Text: q.Text,
		Schema: q.Schema, SkillID: q.SkillID, Risk: api.Risk(q.Risk), AskedAt: q.AskedAt.UTC(), ExpiresAt: q.ExpiresAt.UTC(),
		Remember: q.Remember, Tool: wireToolCall(q.Tool), Status: api.QuestionStatus(q.Status), AnsweredBy: q.AnsweredBy,
	}
	for _, c := range q.Choices {
		w.Choices = append(w.Choices, api.Choice(c))
	}
	if b := q.Budget; b != nil {
		w.Budget = &api.BudgetStanding{Scope: string(b.Scope), Name: b.Name, Period: b.Period, Unit: b.Unit, Used: b.Used, Limit: b.Limit}
	}
	if a := q.Answer; a != nil {
		w.Answer = &api.Answer{Input: a.Text, Data: a.Data, Approve: a.Approve, Reason: a.Reason, Remember: api.GrantScope(a.Remember), RaiseBy: a.RaiseBy}
	}
	if q.AnsweredAt != nil {
		at := q.AnsweredAt.UTC()
		w.AnsweredAt = &at
	}
	return w
}

// NewQuestion reads a question to be asked.
func NewQuestion(q api.NewQuestion) (task.NewQuestion, error) {
	id, err := parseID(q.ID, "body.id")
	n := task.NewQuestion{
		ID: id, Kind: task.QuestionKind(q.Kind), Text: q.Text, Schema: q.Schema, Tool: NewToolCall(q.Tool),
		SkillID: q.SkillID, Risk: string(q.Risk), Remember: q.Remember, Expires: time.Duration(q.ExpiresSeconds) * time.Second,
	}
	for _, c := range q.Choices {
		n.Choices = append(n.Choices, task.Choice(c))
	}
	return n, err
}

// NewToolCall reads what an agent wants to do, or nil.
func NewToolCall(c *api.ToolCall) *task.ToolCall {
	if c == nil {
		return nil
	}
	return &task.ToolCall{Name: c.Name, Title: c.Title, Input: c.Input}
}

func wireToolCall(c *task.ToolCall) *api.ToolCall {
	if c == nil {
		return nil
	}
	return &api.ToolCall{Name: c.Name, Title: c.Title, Input: c.Input}
}

// WireSkillDecision is a decision as clients see it.
func WireSkillDecision(d task.SkillDecision) api.SkillDecision {
	w := api.SkillDecision{Decision: api.SkillVerdict(d.Verdict), Reason: d.Reason}
	if d.QuestionID != uuid.Nil {
		w.QuestionID = d.QuestionID.String()
	}
	return w
}

func newAnswer(a api.Answer) task.Answer {
	return task.Answer{Text: a.Input, Data: a.Data, Approve: a.Approve, Reason: a.Reason, Remember: task.GrantScope(a.Remember), RaiseBy: a.RaiseBy}
}
