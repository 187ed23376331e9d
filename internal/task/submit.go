package task

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
)

// New is a task to be submitted. What is left zero takes its default.
type New struct {
	Description  string
	Input        string
	AgentID      string // default: general-purpose
	SkillID      string
	Model        string
	Thinking     string
	SessionID    string
	ProjectID    string
	ParentTaskID *uuid.UUID
	DependsOn    []uuid.UUID
	Dispatch     Dispatch // default: Auto
	Priority     int
	// At most ConcurrencyLimit tasks, 1 if it is 0, of the project with the same
	// ConcurrencyKey run at once.
	ConcurrencyKey   string
	ConcurrencyLimit int
	RunAfter         *time.Time
	TimeoutSeconds   int
	ExpiresAt        *time.Time // fails if nothing has begun by then
	DeadlineAt       *time.Time // fails if it has not ended by then
	SilenceSeconds   int        // how long an agent may say nothing; 0: any time
	RetryOn          []string   // the reasons of failures that are tried again; none: all that may be
	MaxAttempts      int        // default: 1
	Budget           *Budget    `json:",omitempty"`
	Labels           map[string]string
	Requires         map[string]string // labels that its worker must have
	Metadata         json.RawMessage   `json:",omitempty"` // none would be read back as null
	// RetryOf is the task that it does again.
	RetryOf *uuid.UUID `json:",omitempty"`
	// By is the permission that submitting it takes. Default: task:submit.
	By policy.Permission
}

// DefaultAgent is asked to do what names no agent.
const DefaultAgent = "general-purpose"

// Submit accepts a task. With a key, the same request by the same user is
// answered with the first answer again, however often and however concurrently
// it comes; another request with that key is refused as IdempotencyMismatch.
//
// It returns Invalid with the fields that are outside their limits,
// AgentUnavailable if nothing can run the agent, Forbidden if the policies do
// not let c have this done, and Conflict if the parent is terminal.
func (s *Service) Submit(ctx context.Context, c policy.Caller, n New, key string) (Task, error) {
	tasks, err := s.submit(ctx, c, []New{n}, func(int) string { return "body" }, key)
	if err != nil {
		return Task{}, err
	}
	return tasks[0], nil
}

// SubmitBatch accepts up to MaxBatch tasks, or none of them. Faults and key are
// as in Submit.
func (s *Service) SubmitBatch(ctx context.Context, c policy.Caller, batch []New, key string) ([]Task, error) {
	if len(batch) == 0 || len(batch) > MaxBatch {
		return nil, fault.InvalidFields([]fault.Field{{Path: "body.tasks", Message: fmt.Sprintf("must hold 1 to %d tasks", MaxBatch)}})
	}
	return s.submit(ctx, c, batch, func(i int) string { return fmt.Sprintf("body.tasks[%d]", i) }, key)
}

func (s *Service) submit(ctx context.Context, c policy.Caller, batch []New, at func(i int) string, key string) ([]Task, error) {
	var faults []fault.Field
	for i := range batch {
		batch[i].setDefaults()
		faults = append(faults, batch[i].place(c, at(i))...)
		faults = append(faults, batch[i].faults(at(i))...)
	}
	faults = append(faults, keyFaults(key)...)
	if err := fault.InvalidFields(faults); err != nil {
		return nil, err
	}
	if key == "" {
		return s.accept(ctx, c, batch, at, "", nil)
	}
	hash, err := requestHash(at(0), batch)
	if err != nil {
		return nil, err
	}
	tasks, err := s.accept(ctx, c, batch, at, key, hash)
	switch {
	case errors.Is(err, errKeyUsed):
		return s.replay(ctx, c.UserID, batch, key, hash)
	case err != nil && fault.CodeOf(err) != fault.Unavailable:
		// What is refused now may have been accepted when it came first.
		if first, err := s.replay(ctx, c.UserID, batch, key, hash); err == nil {
			return first, nil
		}
	}
	return tasks, err
}

// accept checks a submission against the present state and keeps it. It
// returns errKeyUsed if the key was used before.
func (s *Service) accept(ctx context.Context, c policy.Caller, batch []New, at func(i int) string, key string, hash []byte) ([]Task, error) {
	var faults []fault.Field
	checked := map[string]error{} // by agent
	for i := range batch {
		n := &batch[i]
		if n.Dispatch != Auto {
			continue
		}
		if _, done := checked[n.AgentID]; !done {
			checked[n.AgentID] = s.agents.Runnable(ctx, n.AgentID)
		}
		if fault.CodeOf(checked[n.AgentID]) == fault.NotFound {
			faults = append(faults, fault.Field{Path: at(i) + ".agentId", Message: "no agent has this id"})
		}
	}
	if err := fault.InvalidFields(faults); err != nil {
		return nil, err
	}
	for _, err := range checked {
		if err != nil {
			return nil, err
		}
	}
	tasks := make([]Task, len(batch))
	news := make([]*insertion, len(batch))
	for i, n := range batch {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make a task id: %w", err)
		}
		tasks[i] = n.task(id, c.UserID)
		r := tasks[i].wants()
		r.Permission = cmp.Or(n.By, r.Permission)
		entry, err := s.allow(ctx, c, r, id.String())
		if err != nil {
			return nil, err
		}
		news[i] = &insertion{task: &tasks[i], entry: entry, key: key, index: i, hash: hash}
	}
	return tasks, s.insert(ctx, c, tasks, news, at)
}

func (n *New) setDefaults() {
	if n.AgentID == "" {
		n.AgentID = DefaultAgent
	}
	if n.Dispatch == "" {
		n.Dispatch = Auto
	}
	if n.ConcurrencyKey != "" && n.ConcurrencyLimit == 0 {
		n.ConcurrencyLimit = 1
	}
	if n.MaxAttempts == 0 {
		n.MaxAttempts = 1
	}
	if n.Budget != nil && n.Budget.OnExceeded == "" {
		n.Budget = &Budget{Most: n.Budget.Most, OnExceeded: FailExceeded}
	}
	for _, at := range []**time.Time{&n.RunAfter, &n.ExpiresAt, &n.DeadlineAt} {
		if *at != nil {
			*at = new((*at).UTC())
		}
	}
	var once []uuid.UUID
	for _, d := range n.DependsOn {
		if !slices.Contains(once, d) {
			once = append(once, d)
		}
	}
	n.DependsOn = once
}

func (n *New) task(id uuid.UUID, userID string) Task {
	return Task{
		ID: id, Status: Pending, UserID: userID, LastSeq: 1,
		Description: n.Description, Input: n.Input, AgentID: n.AgentID, SkillID: n.SkillID,
		Model: n.Model, Thinking: n.Thinking, SessionID: n.SessionID, ProjectID: n.ProjectID,
		ParentTaskID: n.ParentTaskID, DependsOn: n.DependsOn, Dispatch: n.Dispatch, Priority: n.Priority, ConcurrencyKey: n.ConcurrencyKey, ConcurrencyLimit: n.ConcurrencyLimit,
		RunAfter: n.RunAfter, TimeoutSeconds: n.TimeoutSeconds, ExpiresAt: n.ExpiresAt, DeadlineAt: n.DeadlineAt,
		SilenceSeconds: n.SilenceSeconds, RetryOn: append([]string{}, n.RetryOn...), MaxAttempts: n.MaxAttempts, Budget: n.Budget,
		Labels: n.Labels, Requires: labelsOf(n.Requires), Metadata: n.Metadata, RetryOf: n.RetryOf,
	}
}

// announce tells followers and workers of new tasks.
func (s *Service) announce(tasks []Task) {
	if len(tasks) == 0 {
		return
	}
	signals := make([]stream.Signal, 0, len(tasks)+1)
	for _, t := range tasks {
		signals = append(signals, stream.Signal{Topic: stream.TaskChanged, ID: t.ID.String()})
	}
	if slices.ContainsFunc(tasks, func(t Task) bool { return t.Dispatch == Auto }) {
		signals = append(signals, stream.Signal{Topic: stream.WorkReady})
	}
	s.bus.Publish(signals...)
	if slices.ContainsFunc(tasks, func(t Task) bool { return t.RunAfter != nil || t.ExpiresAt != nil || t.DeadlineAt != nil }) {
		poke(s.sweepSoon)
	}
}

// relative is what a new task must know of a parent or a dependency.
type relative struct {
	ID        uuid.UUID
	Status    Status
	ProjectID string
}

// lockRelatives returns those of the tasks that the caller sees and holds them
// where they are until the transaction ends: none of them can end, or be cancelled with its
// children, before the new task stands beside it.
func lockRelatives(ctx context.Context, tx pgx.Tx, c policy.Caller, ids []uuid.UUID) (map[uuid.UUID]relative, error) {
	rows, err := tx.Query(ctx, `SELECT id, status, project_id FROM tasks t WHERE id = ANY(@ids) AND `+confined+` ORDER BY id FOR SHARE`,
		scopeOf(c).Args(pgx.NamedArgs{"ids": ids}))
	if err != nil {
		return nil, fmt.Errorf("lock relatives: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[relative])
	if err != nil {
		return nil, fmt.Errorf("lock relatives: %w", err)
	}
	known := make(map[uuid.UUID]relative, len(found))
	for _, r := range found {
		known[r.ID] = r
	}
	return known, nil
}

// checkRelatives refuses what is not there, in another project, or past being
// waited for.
func checkRelatives(tasks []Task, at func(i int) string, known map[uuid.UUID]relative) error {
	var faults []fault.Field
	for i, t := range tasks {
		bad := func(place, message string) {
			faults = append(faults, fault.Field{Path: at(i) + place, Message: message})
		}
		if id := t.ParentTaskID; id != nil {
			switch p := known[*id]; {
			case p.Status == "":
				bad(".parentTaskId", "no such task")
			case p.ProjectID != t.ProjectID:
				bad(".parentTaskId", "must be a task of the same project")
			case p.Status.Terminal():
				return fault.New(fault.Conflict, "parent task %s is %s", id, p.Status)
			}
		}
		for j, id := range t.DependsOn {
			switch d := known[id]; {
			case d.Status == "":
				bad(fmt.Sprintf(".dependsOn[%d]", j), "no such task")
			case d.ProjectID != t.ProjectID:
				bad(fmt.Sprintf(".dependsOn[%d]", j), "must be a task of the same project")
			case d.Status == Failed || d.Status == Cancelled:
				return fault.New(fault.Conflict, "task %s, which this one depends on, is %s", id, d.Status)
			}
		}
	}
	return fault.InvalidFields(faults)
}
