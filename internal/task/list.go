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
	ScheduleID   *uuid.UUID
	Labels       map[string]string // all of them
	CreatedAfter time.Time
	Query        string // part of the description, in any case
}

// empty reports whether f selects all.
func (f Filter) empty() bool {
	return len(f.Status) == 0 && f.AgentID == "" && f.SessionID == "" && f.ProjectID == "" && f.ParentTaskID == nil &&
		f.ScheduleID == nil && len(f.Labels) == 0 && f.CreatedAfter.IsZero() && f.Query == ""
}

// Matches reports whether c sees the entry and the filter selects it, whose
// task had its status.
func (f Filter) Matches(c policy.Caller, e LogEntry) bool {
	t := e.Task
	if !c.Sees(t.ProjectID, t.UserID) || len(f.Status) > 0 && !slices.Contains(f.Status, e.Status) ||
		f.AgentID != "" && t.AgentID != f.AgentID ||
		f.SessionID != "" && t.SessionID != f.SessionID ||
		f.ProjectID != "" && t.ProjectID != f.ProjectID ||
		f.ParentTaskID != nil && (t.ParentTaskID == nil || *t.ParentTaskID != *f.ParentTaskID) ||
		f.ScheduleID != nil && (t.ScheduleID == nil || *t.ScheduleID != *f.ScheduleID) ||
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
func (s *Service) Get(ctx context.Context, c policy.Caller, id uuid.UUID) (t Task, err error) {
	err = s.read(ctx, c, `SELECT `+columns+` FROM tasks t WHERE t.id = @id AND `+confined,
		pgx.NamedArgs{"id": id}, func(rows pgx.Rows) (err error) {
			t, err = pgx.CollectExactlyOneRow(rows, toTask)
			return err
		})
	if errors.Is(err, pgx.ErrNoRows) {
		return Task{}, noTask(id)
	}
	if err != nil {
		return Task{}, fmt.Errorf("read task %s: %w", id, err)
	}
	return t, nil
}

// bytes is how much the task holds of what can be large.
func (t *Task) bytes() int { return len(t.Input) + len(t.Output) + len(t.Error) + len(t.Metadata) }

// maxListBytes bounds what one page holds of inputs, outputs and metadata.
const maxListBytes = 8 << 20

// nearby is among how many tasks those with a label are looked for one by one,
// the newest first, before the index of labels is asked, which knows no order.
const nearby = 2000

// List returns up to limit tasks that c sees and the filter selects, newest first, that
// are older than the one with the id before; uuid.Max begins. Where tasks are
// large it returns fewer. more says that there are further ones.
func (s *Service) List(ctx context.Context, c policy.Caller, f Filter, before uuid.UUID, limit int) (tasks []Task, more bool, err error) {
	where, args := f.conditions(c, before)
	args["limit"] = limit + 1
	if len(f.Labels) > 0 {
		if args["ids"], err = s.labelled(ctx, f.Labels, where, args); err != nil {
			return nil, false, err
		}
		where += " AND t.id = ANY (@ids)"
	}
	err = s.read(ctx, c, `SELECT `+columns+` FROM tasks t
		WHERE `+where+` ORDER BY t.id DESC LIMIT @limit`, args, func(rows pgx.Rows) error {
		for bytes := 0; rows.Next(); {
			if more = len(tasks) == limit || bytes > maxListBytes; more {
				return nil
			}
			t, err := toTask(rows)
			if err != nil {
				return err
			}
			tasks = append(tasks, t)
			bytes += t.bytes()
		}
		return rows.Err()
	})
	if err != nil {
		return nil, false, fmt.Errorf("list tasks: %w", err)
	}
	return tasks, more, nil
}

// labelled returns the ids of the newest tasks that have the labels and for which
// the condition holds, up to the limit of args. The server looks for them, and the
// caller reads them with its own rights: the database lets nobody who is confined
// use the index of labels, lest their comparison tell what the rows hold that are
// not the caller's.
func (s *Service) labelled(ctx context.Context, labels map[string]string, where string, args pgx.NamedArgs) (ids []uuid.UUID, err error) {
	encoded, err := json.Marshal(labels)
	if err != nil {
		return nil, fmt.Errorf("encode labels: %w", err)
	}
	args["labels"], args["nearby"] = string(encoded), nearby
	const has = `t.labels @> @labels::jsonb AND t.labels <> '{}'`
	rows, _ := s.pool.Query(ctx, `
		WITH near AS MATERIALIZED (
			SELECT t.id, `+has+` AS found FROM tasks t WHERE `+where+` ORDER BY t.id DESC LIMIT @nearby
		), far AS MATERIALIZED (
			SELECT t.id FROM tasks t WHERE `+has+` AND `+where+`
				AND (SELECT count(*) = @nearby AND count(*) FILTER (WHERE found) < @limit FROM near)
		)
		SELECT id FROM near WHERE found UNION SELECT id FROM far ORDER BY id DESC LIMIT @limit`, args)
	if ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return nil, postgres.Fault(fmt.Errorf("look for tasks by their labels: %w", err))
	}
	return ids, nil
}

// idSlack is by how much the clock of a server, from which ids are, may differ
// from that of the database, from which the times of tasks are.
const idSlack = time.Hour

// conditions returns the condition on a task t that it is older than before, that c
// sees it and that the filter selects it, its labels aside.
func (f Filter) conditions(c policy.Caller, before uuid.UUID) (string, pgx.NamedArgs) {
	where, args := []string{"t.id < @before"}, pgx.NamedArgs{"before": before}
	add := func(condition, name string, value any) {
		where = append(where, condition)
		args[name] = value
	}
	switch {
	case c.AllProjects:
	case c.ProjectID != "":
		add("t.project_id = @own AND t.project_id <> ''", "own", c.ProjectID)
	default:
		add("t.project_id = '' AND t.user_id = @user", "user", c.UserID)
	}
	switch len(f.Status) {
	case 0:
	case 1: // whose tasks stand in the index in the order that is asked for
		add("t.status = @status", "status", f.Status[0])
	default:
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
	if f.ScheduleID != nil {
		add("t.schedule_id = @schedule", "schedule", *f.ScheduleID)
	}
	if !f.CreatedAfter.IsZero() {
		add("t.created_at > @created", "created", f.CreatedAfter)
		add("t.id >= @earliest", "earliest", postgres.FirstID(f.CreatedAfter.Add(-idSlack)))
	}
	if f.Query != "" {
		// position, not LIKE: the text has no wildcards.
		add("position(lower(@query) in lower(t.description)) > 0", "query", f.Query)
	}
	return strings.Join(where, " AND "), args
}
