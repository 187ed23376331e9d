package task

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
)

// QuestionFilter selects questions; what is zero selects all.
type QuestionFilter struct {
	TaskID *uuid.UUID
	Kind   QuestionKind
	Status []QuestionStatus // any of them
}

// NewestQuestion is the place from which a list of questions begins with the
// newest.
const NewestQuestion = math.MaxInt64

// Questions returns up to limit questions that c sees and the filter selects,
// newest first, whose Number is below before. Where questions are large it
// returns fewer. more says that there are further ones.
func (s *Service) Questions(ctx context.Context, c policy.Caller, f QuestionFilter, before int64, limit int) (questions []Question, more bool, err error) {
	where := []string{"q.number < @before"}
	args := pgx.NamedArgs{"before": before, "limit": limit + 1}
	add := func(condition, name string, value any) {
		where = append(where, condition)
		args[name] = value
	}
	switch {
	case c.AllProjects:
	case c.ProjectID != "":
		add("q.project_id = @own AND q.project_id <> ''", "own", c.ProjectID)
	default:
		add("q.project_id = '' AND q.user_id = @user", "user", c.UserID)
	}
	if f.TaskID != nil {
		add("q.task_id = @task", "task", *f.TaskID)
	}
	if f.Kind != "" {
		add("q.kind = @kind", "kind", f.Kind)
	}
	if len(f.Status) == 1 && f.Status[0] == Open {
		where = append(where, "q.status = 'open'") // as the index has it
	} else if len(f.Status) > 0 {
		add("q.status = ANY (@status)", "status", f.Status)
	}
	err = s.read(ctx, c, `SELECT `+questionColumns+` FROM questions q
		WHERE `+strings.Join(where, " AND ")+` ORDER BY q.number DESC LIMIT @limit`, args, func(rows pgx.Rows) error {
		for bytes := 0; rows.Next(); {
			if more = len(questions) == limit || bytes > maxListBytes; more {
				return nil
			}
			q, err := toQuestion(rows)
			if err != nil {
				return err
			}
			questions = append(questions, q)
			for _, v := range rows.RawValues() {
				bytes += len(v)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, false, fmt.Errorf("list questions: %w", err)
	}
	return questions, more, nil
}
