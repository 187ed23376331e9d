package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// Asking is the part of the task engine by which workers ask people, and for
// leave to use a skill.
type Asking interface {
	Ask(ctx context.Context, c policy.Caller, id, lease uuid.UUID, n task.NewQuestion) (task.Question, error)
	Question(ctx context.Context, c policy.Caller, id, lease, questionID uuid.UUID, wait time.Duration) (task.Question, error)
	Authorize(ctx context.Context, c policy.Caller, id, lease uuid.UUID, skillID string, questionID uuid.UUID, tool *task.ToolCall) (task.SkillDecision, error)
}

func (s *Server) registerAsking() {
	handle(s, operation{
		id: "askQuestion", action: "task.ask", method: http.MethodPost, path: "/v1/tasks/{id}/questions", permission: policy.Work, agents: true, tag: "People",
		summary: "Put a question to people, for a leased task",
		detail:  "The task waits until all its questions have an outcome. Asking again with the same id changes nothing.",
		errors:  []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.askQuestion)
	handle(s, operation{
		id: "getQuestion", action: "task.ask", method: http.MethodGet, path: "/v1/tasks/{id}/questions/{questionId}", permission: policy.Work, agents: true, tag: "People", wait: maxWait,
		summary: "Wait for what becomes of a question, for a leased task",
		detail:  "Answers as soon as the question is open no more, else after waitSeconds.",
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.getQuestion)
	handle(s, operation{
		id: "authorizeSkill", action: "skill.authorize", method: http.MethodPost, path: "/v1/tasks/{id}/skills/{skillId}/authorize", permission: policy.Work, tag: "People",
		summary: "Ask whether the agent may use a skill, for a leased task",
		detail:  "Decided by the policies as of now for whoever submitted the task. If the answer is approval, people are asked, and the outcome of that question decides.",
		errors:  []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.authorizeSkill)
}

// LeasedInput names a task and the lease by whose right a worker asks.
type LeasedInput struct {
	IDInput
	LeaseInput
}

func (in *LeasedInput) parse(c policy.Caller) (id, lease uuid.UUID, err error) {
	if id, err = parseID(in.ID, "path.id"); err != nil {
		return id, lease, err
	}
	lease, err = in.required(c)
	return id, lease, err
}

func (s *Server) askQuestion(ctx context.Context, c policy.Caller, in *struct {
	LeasedInput
	Body api.NewQuestion
}) (*struct{ Body api.Question }, error) {
	id, lease, err := in.parse(c)
	if err != nil {
		return nil, err
	}
	n, err := NewQuestion(in.Body)
	if err != nil {
		return nil, err
	}
	q, err := s.workers.Ask(ctx, c, id, lease, n)
	return &struct{ Body api.Question }{WireQuestion(q)}, err
}

func (s *Server) getQuestion(ctx context.Context, c policy.Caller, in *struct {
	LeasedInput
	QuestionID  string `path:"questionId" format:"uuid"`
	WaitSeconds int    `query:"waitSeconds" minimum:"0" maximum:"60" doc:"How long to wait while the question is open."`
}) (*struct{ Body api.Question }, error) {
	id, lease, err := in.parse(c)
	if err != nil {
		return nil, err
	}
	question, err := parseID(in.QuestionID, "path.questionId")
	if err != nil {
		return nil, err
	}
	waiting, stop := s.untilStopping(ctx)
	defer stop()
	q, err := s.workers.Question(waiting, c, id, lease, question, time.Duration(in.WaitSeconds)*time.Second)
	return &struct{ Body api.Question }{WireQuestion(q)}, err
}

func (s *Server) authorizeSkill(ctx context.Context, c policy.Caller, in *struct {
	LeasedInput
	SkillID string `path:"skillId" maxLength:"128"`
	Body    api.SkillUse
}) (*struct{ Body api.SkillDecision }, error) {
	id, lease, err := in.parse(c)
	if err != nil {
		return nil, err
	}
	question, err := parseID(in.Body.QuestionID, "body.questionId")
	if err != nil {
		return nil, err
	}
	d, err := s.workers.Authorize(ctx, c, id, lease, in.SkillID, question, NewToolCall(in.Body.Tool))
	return &struct{ Body api.SkillDecision }{WireSkillDecision(d)}, err
}
