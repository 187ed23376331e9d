package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Filter selects tasks; what is zero selects all.
type Filter struct {
	Status       []Status // any of them
	AgentID      string
	SessionID    string
	ProjectID    string
	ParentTaskID *uuid.UUID
	Labels       map[string]string // all of them
	CreatedAfter time.Time
	Query        string // part of the description, in any case
}

// Matches reports whether the filter selects the entry, whose task had its
// status.
func (f Filter) Matches(e LogEntry) bool {
	t := e.Task
	if len(f.Status) > 0 && !slices.Contains(f.Status, e.Status) ||
		f.AgentID != "" && t.AgentID != f.AgentID ||
		f.SessionID != "" && t.SessionID != f.SessionID ||
		f.ProjectID != "" && t.ProjectID != f.ProjectID ||
		f.ParentTaskID != nil && (t.ParentTaskID == nil || *t.ParentTaskID != *f.ParentTaskID) ||
		!t.TaskCreated.After(f.CreatedAfter) && !f.CreatedAfter.IsZero() {
		return false
	}
	for k, v := range f.Labels {
		if got, ok := t.Labels[k]; !ok || got != v {
			return false
		}
	}
	return f.Query == "" || strings.Contains(strings.ToLower(t.Description), strings.ToLower(f.Query))
}

// Get returns a task, or NotFound.
func (s *Service) Get(ctx context.Context, _ policy.Caller, id uuid.UUID) (Task, error) {
	return s.get(ctx, id)
}

func (s *Service) get(ctx context.Context, id uuid.UUID) (Task, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+columns+` FROM tasks t WHERE t.id = $1`, id)
	if err != nil {
		return Task{}, postgres.Fault(fmt.Errorf("read task %s: %w", id, err))
	}
	t, err := pgx.CollectExactlyOneRow(rows, toTask)
	if errors.Is(err, pgx.ErrNoRows) {
		return Task{}, noTask(id)
	}
	if err != nil {
		return Task{}, postgres.Fault(fmt.Errorf("read task %s: %w", id, err))
	}
	return t, nil
}

// maxListBytes bounds what one page holds of inputs, outputs and metadata.
const maxListBytes = 8 << 20

// List returns up to limit tasks that the filter selects, newest first, that
// are older than the one with the id before; uuid.Max begins. Where tasks are
// large it returns fewer. more says that there are further ones.
func (s *Service) List(ctx context.Context, _ policy.Caller, f Filter, before uuid.UUID, limit int) (tasks []Task, more bool, err error) {
	where := []string{"t.id < @before"}
	args := pgx.NamedArgs{"before": before, "limit": limit + 1}
	add := func(condition, name string, value any) {
		where = append(where, condition)
		args[name] = value
	}
	if len(f.Status) > 0 {
		add("t.status = ANY (@status)", "status", f.Status)
	}
	if f.AgentID != "" {
		add("t.agent_id = @agent", "agent", f.AgentID)
	}
	if f.SessionID != "" {
		add("t.session_id = @session AND t.session_id <> ''", "session", f.SessionID)
	}
	if f.ProjectID != "" {
		add("t.project_id = @project AND t.project_id <> ''", "project", f.ProjectID)
	}
	if f.ParentTaskID != nil {
		add("t.parent_task_id = @parent", "parent", *f.ParentTaskID)
	}
	if len(f.Labels) > 0 {
		labels, err := json.Marshal(f.Labels)
		if err != nil {
			return nil, false, fmt.Errorf("encode labels: %w", err)
		}
		add("t.labels @> @labels::jsonb AND t.labels <> '{}'", "labels", string(labels))
	}
	if !f.CreatedAfter.IsZero() {
		add("t.created_at > @created", "created", f.CreatedAfter)
	}
	if f.Query != "" {
		// position, not LIKE: the text has no wildcards.
		add("position(lower(@query) in lower(t.description)) > 0", "query", f.Query)
	}
	rows, err := s.pool.Query(ctx, `SELECT `+columns+` FROM tasks t
		WHERE `+strings.Join(where, " AND ")+` ORDER BY t.id DESC LIMIT @limit`, args)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list tasks: %w", err))
	}
	defer rows.Close()
	for bytes := 0; rows.Next(); {
		if len(tasks) == limit || bytes > maxListBytes {
			return tasks, true, nil
		}
		t, err := toTask(rows)
		if err != nil {
			return nil, false, fmt.Errorf("list tasks: %w", err)
		}
		tasks = append(tasks, t)
		bytes += len(t.Input) + len(t.Output) + len(t.Error) + len(t.Metadata)
	}
	if err := rows.Err(); err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list tasks: %w", err))
	}
	return tasks, false, nil
}
