package api

import (
	"encoding/json"
	"time"
)

// QuestionKind says what a person is asked for.
type QuestionKind string

// The kinds of questions.
const (
	QuestionInput    QuestionKind = "input"    // something that the agent does not know
	QuestionApproval QuestionKind = "approval" // leave to do something
)

// Risk is how much harm what is to be approved could do.
type Risk string

// NewQuestion is what an agent asks of a person while it runs a task.
type NewQuestion struct {
	ID             string          `json:"id" format:"uuid" doc:"Chosen by whoever asks, so that asking again is safe."`
	Kind           QuestionKind    `json:"kind" enum:"input,approval"`
	Text           string          `json:"text" minLength:"1" maxLength:"8192"`
	Choices        []Choice        `json:"choices,omitempty" maxItems:"32" doc:"If given, the answer to an input is the id of one of them."`
	Schema         json.RawMessage `json:"schema,omitempty" doc:"A JSON Schema, at most 64 KiB, that the data of an answer to an input must meet."`
	Tool           *ToolCall       `json:"tool,omitempty" doc:"What is to be approved."`
	SkillID        string          `json:"skillId,omitempty" maxLength:"128" doc:"The skill that is to be used."`
	Risk           Risk            `json:"risk,omitempty" enum:"low,medium,high"`
	Remember       bool            `json:"remember,omitempty" doc:"Whether the approval of a tool's call can be remembered for the very same; all of the call must be shown."`
	ExpiresSeconds int             `json:"expiresSeconds,omitempty" minimum:"0" maximum:"604800" doc:"How long the person has. 0: a day. Without an answer by then an approval is denied."`
}

// Choice is one of the answers to choose from.
type Choice struct {
	ID    string `json:"id" minLength:"1" maxLength:"128"`
	Label string `json:"label" maxLength:"1024"`
}

// ToolCall is what an agent wants to do.
type ToolCall struct {
	Name  string          `json:"name" maxLength:"256"`
	Title string          `json:"title,omitempty" maxLength:"1024"`
	Input json.RawMessage `json:"input,omitempty" doc:"Any JSON object, at most 64 KiB."`
}

// QuestionStatus says what has become of a question.
type QuestionStatus string

// The question statuses. All but QuestionOpen are final.
const (
	QuestionOpen      QuestionStatus = "open"
	QuestionAnswered  QuestionStatus = "answered"  // an input
	QuestionApproved  QuestionStatus = "approved"  // an approval
	QuestionDenied    QuestionStatus = "denied"    // likewise
	QuestionExpired   QuestionStatus = "expired"   // nobody answered in time; as good as denied
	QuestionWithdrawn QuestionStatus = "withdrawn" // its task has ended, or its attempt
)

// Question is a question and what has become of it.
type Question struct {
	ID         string          `json:"id" format:"uuid"`
	TaskID     string          `json:"taskId" format:"uuid"`
	ProjectID  string          `json:"projectId,omitempty"`
	Kind       QuestionKind    `json:"kind" enum:"input,approval"`
	Text       string          `json:"text"`
	Choices    []Choice        `json:"choices,omitempty"`
	Schema     json.RawMessage `json:"schema,omitempty"`
	Tool       *ToolCall       `json:"tool,omitempty"`
	SkillID    string          `json:"skillId,omitempty"`
	Risk       Risk            `json:"risk,omitempty" enum:"low,medium,high"`
	Remember   bool            `json:"remember,omitempty" doc:"Its approval can be remembered for the very same request."`
	Budget     *BudgetStanding `json:"budget,omitempty" doc:"The budget that is exceeded, of an approval to raise it: as much may then be used again, or what the answer states, from what is used by now."`
	AskedAt    time.Time       `json:"askedAt"`
	ExpiresAt  time.Time       `json:"expiresAt"`
	Status     QuestionStatus  `json:"status" enum:"open,answered,approved,denied,expired,withdrawn"`
	Answer     *Answer         `json:"answer,omitempty"`
	AnsweredAt *time.Time      `json:"answeredAt,omitempty"`
	AnsweredBy string          `json:"answeredBy,omitempty" doc:"The principal that answered."`
}

// Answer is the body of POST /v1/tasks/{id}/input and POST /v1/approvals/{id}:
// Input, with or without Data, answers an input; Approve an approval.
type Answer struct {
	Input   string          `json:"input,omitempty" maxLength:"65536" doc:"The answer, or the id of the choice."`
	Data    json.RawMessage `json:"data,omitempty" doc:"Any JSON object, at most 64 KiB; must meet the question's schema."`
	Approve *bool           `json:"approve,omitempty"`
	Reason  string          `json:"reason,omitempty" maxLength:"2000" doc:"Why, for the record."`
	// Remember goes with an approval of a question that allows it.
	Remember GrantScope `json:"remember,omitempty" enum:"task,session,project" doc:"Approves the very same request of this agent later too: in this task, the task's session or its project, for 30 days."`
	// RaiseBy goes with an approval of a question that has a Budget.
	RaiseBy string `json:"raiseBy,omitempty" pattern:"^[0-9]{1,16}(\\.[0-9]{1,6})?$" doc:"How much more of the budget may be used, from what is used by now: money in its currency, such as 1.50, or a whole number of tokens or tool calls; more than 0. Absent: as much as the budget has."`
}

// QuestionList is one page of questions, newest first.
type QuestionList struct {
	Items      []Question `json:"items"`
	NextCursor string     `json:"nextCursor,omitempty" doc:"Ask for the next page with ?cursor=. Absent on the last page."`
}

// SkillUse is the body of POST /v1/tasks/{id}/skills/{skillId}/authorize: what
// an agent is about to do.
type SkillUse struct {
	QuestionID string    `json:"questionId" format:"uuid" doc:"Chosen by whoever asks, so that asking again is safe: the id of the question that is put to people if it takes an approval."`
	Tool       *ToolCall `json:"tool,omitempty"`
}

// SkillVerdict says whether a skill may be used.
type SkillVerdict string

// The verdicts.
const (
	SkillAllowed  SkillVerdict = "allowed"
	SkillDenied   SkillVerdict = "denied"
	SkillApproval SkillVerdict = "approval" // if a person approves it
)

// SkillDecision answers POST /v1/tasks/{id}/skills/{skillId}/authorize.
type SkillDecision struct {
	Decision   SkillVerdict `json:"decision" enum:"allowed,denied,approval"`
	Reason     string       `json:"reason"`
	QuestionID string       `json:"questionId,omitempty" doc:"With approval: the question whose outcome decides."`
}
