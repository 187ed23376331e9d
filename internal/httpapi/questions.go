package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// Questions is the part of the task engine by which people answer agents.
type Questions interface {
	Questions(ctx context.Context, c policy.Caller, f task.QuestionFilter, before int64, limit int) (questions []task.Question, more bool, err error)
	Answer(ctx context.Context, c policy.Caller, id uuid.UUID, a task.Answer) (task.Question, error)
	AnswerTask(ctx context.Context, c policy.Caller, id uuid.UUID, a task.Answer) (task.Task, error)
}

// QuestionFilterInput selects questions.
type QuestionFilterInput struct {
	TaskID string   `query:"taskId" format:"uuid" doc:"Those of one task."`
	Kind   string   `query:"kind" enum:"input,approval"`
	Status []string `query:"status,explode" doc:"Any of these statuses; repeat it or separate by commas. Default: open."`
}

func (s *Server) registerQuestions() {
	handle(s, operation{
		id: "answerTask", action: "task.answer", method: http.MethodPost, path: "/v1/tasks/{id}/input", permission: policy.TaskSubmit, tag: "People",
		summary: "Answer what a task waits for", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "Answers the one open question of the task, or a manual task that waits for input or an approval. With several open questions, or none, it is answered with 409.",
	}, s.answerTask)
	handle(s, operation{
		id: "listApprovals", action: "approval.list", method: http.MethodGet, path: "/v1/approvals", permission: policy.TaskRead, tag: "People",
		summary: "List what agents ask of people, newest first", errors: []int{http.StatusUnprocessableEntity},
		detail: "Questions for input and requests for approval; without a filter, those that are open.",
	}, s.listApprovals)
	handle(s, operation{
		id: "answerQuestion", action: "approval.decide", method: http.MethodPost, path: "/v1/approvals/{id}", permission: policy.TaskSubmit, tag: "People",
		summary: "Approve, deny or answer", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "A question is answered once, and not after it has expired: 409 from then on. The policy may demand that somebody else than the submitter of the task approves.",
	}, s.answerQuestion)
}

func (s *Server) answerTask(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	Body api.Answer
}) (*taskOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	t, err := s.tasks.AnswerTask(ctx, c, id, newAnswer(in.Body))
	return &taskOutput{WireTask(t)}, err
}

func (s *Server) listApprovals(ctx context.Context, c policy.Caller, in *struct {
	QuestionFilterInput
	PageInput
}) (*struct{ Body api.QuestionList }, error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	before := int64(task.NewestQuestion)
	if in.Cursor != "" {
		if before, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil {
			return nil, badCursor()
		}
	}
	questions, more, err := s.tasks.Questions(ctx, c, f, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.QuestionList{Items: make([]api.Question, len(questions))}
	for i, q := range questions {
		list.Items[i] = WireQuestion(q)
	}
	if more {
		list.NextCursor = strconv.FormatInt(questions[len(questions)-1].Number, 10)
	}
	return &struct{ Body api.QuestionList }{list}, nil
}

func (in *QuestionFilterInput) filter() (task.QuestionFilter, error) {
	f := task.QuestionFilter{Kind: task.QuestionKind(in.Kind)}
	if in.TaskID != "" {
		id, err := parseID(in.TaskID, "query.taskId")
		if err != nil {
			return f, err
		}
		f.TaskID = &id
	}
	for _, list := range in.Status {
		for name := range strings.SplitSeq(list, ",") {
			st := task.QuestionStatus(strings.TrimSpace(name))
			if !slices.Contains(task.QuestionStatuses, st) {
				return f, fault.InvalidFields([]fault.Field{{Path: "query.status", Message: "must name statuses of questions"}})
			}
			f.Status = append(f.Status, st)
		}
	}
	if f.Status == nil {
		f.Status = []task.QuestionStatus{task.Open}
	}
	return f, nil
}

func (s *Server) answerQuestion(ctx context.Context, c policy.Caller, in *struct {
	ID   string `path:"id" format:"uuid" doc:"The question's id."`
	Body api.Answer
}) (*struct{ Body api.Question }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	q, err := s.tasks.Answer(ctx, c, id, newAnswer(in.Body))
	return &struct{ Body api.Question }{WireQuestion(q)}, err
}
