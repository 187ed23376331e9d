package task

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// The bounds of trees of tasks.
const (
	MaxDepth    = 16 // levels, that of the root included
	MaxChildren = 1000
	MaxTree     = 1000 // of which one answer tells
)

// checkTree refuses tasks that would make a tree too deep, or give a task too
// many children. Submissions to one parent come one after the other.
func checkTree(ctx context.Context, tx pgx.Tx, tasks []Task, at func(i int) string) error {
	added := map[uuid.UUID]int{}
	var parents []uuid.UUID
	for _, t := range tasks {
		if id := t.ParentTaskID; id != nil {
			if added[*id] == 0 {
				parents = append(parents, *id)
			}
			added[*id]++
		}
	}
	if len(parents) == 0 {
		return nil
	}
	// In one order, so that two submissions do not wait for each other.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('children of ' || id, 0))
		FROM (SELECT unnest($1::uuid[]) AS id ORDER BY 1) parents`, parents); err != nil {
		return fmt.Errorf("lock parents: %w", err)
	}
	rows, err := tx.Query(ctx, `
		WITH RECURSIVE up (leaf, above, depth) AS (
			SELECT id, parent_task_id, 1 FROM tasks WHERE id = ANY ($1)
			UNION ALL
			SELECT up.leaf, t.parent_task_id, up.depth + 1 FROM up JOIN tasks t ON t.id = up.above WHERE up.depth < $2
		)
		SELECT leaf, max(depth), (SELECT count(*) FROM (SELECT FROM tasks c WHERE c.parent_task_id = leaf LIMIT $3) children)
		FROM up GROUP BY leaf`, parents, MaxDepth, MaxChildren)
	if err != nil {
		return fmt.Errorf("measure trees: %w", err)
	}
	depths := map[uuid.UUID]int{}
	var id uuid.UUID
	var depth, children int
	var full error
	_, err = pgx.ForEachRow(rows, []any{&id, &depth, &children}, func() error {
		depths[id] = depth
		if children+added[id] > MaxChildren {
			full = fault.New(fault.Conflict, "task %s has %d children, and may have %d", id, children, MaxChildren)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("measure trees: %w", err)
	}
	var faults []fault.Field
	for i, t := range tasks {
		if t.ParentTaskID != nil && depths[*t.ParentTaskID] >= MaxDepth {
			faults = append(faults, fault.Field{Path: at(i) + ".parentTaskId", Message: fmt.Sprintf("is %d levels below the first task of its tree: that is as deep as trees are", MaxDepth-1)})
		}
	}
	if err := fault.InvalidFields(faults); err != nil {
		return err
	}
	return full
}

// Tree returns a task that c sees, or NotFound, and its descendants, those
// nearest to it first: up to 1,000 tasks, or fewer where they are large. more
// says that there are further ones.
func (s *Service) Tree(ctx context.Context, c policy.Caller, id uuid.UUID) (tasks []Task, more bool, err error) {
	root, err := s.Get(ctx, c, id)
	if err != nil {
		return nil, false, err
	}
	tasks = []Task{root}
	bytes := root.bytes()
	for level := tasks; len(level) > 0 && !more; {
		above := make([]uuid.UUID, len(level))
		for i, t := range level {
			above[i] = t.ID
		}
		from := len(tasks)
		args := pgx.NamedArgs{"above": above, "limit": MaxTree - len(tasks) + 1}
		err = s.read(ctx, c, `SELECT `+columns+` FROM tasks t WHERE t.parent_task_id = ANY (@above) AND `+confined+` ORDER BY t.id LIMIT @limit`,
			args, func(rows pgx.Rows) error {
				for rows.Next() {
					if more = len(tasks) == MaxTree || bytes > maxListBytes; more {
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
			return nil, false, fmt.Errorf("read the tree of task %s: %w", id, err)
		}
		level = tasks[from:]
	}
	return tasks, more, nil
}

// Cancellation is what came of CancelAll.
type Cancellation struct {
	Count  int  // of the selected tasks; their descendants are not counted
	Denied int  // those that the policies do not let the caller cancel
	More   bool // there may be further ones: ask again
}

// maxCancel is how many tasks CancelAll looks at.
const maxCancel = 500

// CancelAll cancels open tasks that c sees and the filter selects, newest first,
// each with its open descendants as Cancel does. A filter that selects
// everything is Invalid.
func (s *Service) CancelAll(ctx context.Context, c policy.Caller, f Filter) (done Cancellation, err error) {
	if f.empty() {
		return done, fault.InvalidFields([]fault.Field{{Path: "query", Message: "must say which tasks, by status for example"}})
	}
	var st []Status
	for _, one := range open {
		if len(f.Status) == 0 || slices.Contains(f.Status, one) {
			st = append(st, one)
		}
	}
	if f.Status = st; len(st) == 0 {
		return done, nil // what has ended is not cancelled
	}
	tasks, more, err := s.List(ctx, c, f, uuid.Max, maxCancel)
	if err != nil {
		return done, err
	}
	done.More = more
	for _, t := range tasks {
		switch _, err := s.Cancel(ctx, c, t.ID); fault.CodeOf(err) {
		case "":
			if err != nil {
				return done, err
			}
			done.Count++
		case fault.Forbidden:
			done.Denied++
		case fault.InvalidTransition, fault.NotFound: // it has ended meanwhile
		default:
			return done, err
		}
	}
	return done, nil
}
