package task

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// insert writes the tasks, each with its first event and its audit entry, and
// fills in what the database decides. A single task without relatives, the usual case, shares its
// statement with others that come at the same time.
func (s *Service) insert(ctx context.Context, c policy.Caller, tasks []Task, news []*insertion, at func(i int) string) error {
	var relatives []uuid.UUID
	for _, t := range tasks {
		relatives = append(relatives, t.DependsOn...)
		if t.ParentTaskID != nil {
			relatives = append(relatives, *t.ParentTaskID)
		}
	}
	if len(relatives) == 0 && len(tasks) == 1 && tasks[0].RetryOf == nil {
		return s.insertShared(ctx, news[0])
	}
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		known, err := lockRelatives(ctx, tx, c, relatives)
		if err != nil {
			return err
		}
		if err := checkRelatives(tasks, at, known); err != nil {
			return err
		}
		if err := checkTree(ctx, tx, tasks, at); err != nil {
			return err
		}
		if err := insertTasks(ctx, tx, news, known); err != nil {
			return err
		}
		for _, n := range news {
			if n.err != nil {
				return n.err // all or none
			}
			if err := n.task.link(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.announce(tasks)
	}
	return err
}

// insertion is a task on its way into the database.
type insertion struct {
	task  *Task
	entry audit.Entry
	key   string
	index int // in its batch
	hash  []byte
	err   error // errKeyUsed, or nil
	done  chan error
}

// About is the task that is written.
func (n *insertion) About() uuid.UUID { return n.task.ID }

// Size is how many bytes its texts have.
func (n *insertion) Size() int {
	return len(n.task.Description) + len(n.task.Input) + len(n.task.Metadata)
}

// insertShared inserts one task together with others that come at the same
// time. A caller who leaves does not take the others along; its task may have
// been kept, as whenever no answer arrives.
func (s *Service) insertShared(ctx context.Context, n *insertion) error {
	// The caller may leave while the flush still fills in the task.
	mine := *n.task
	shared := *n
	shared.task, shared.done = &mine, make(chan error, 1)
	if err := s.inserts.Add(&shared); err != nil {
		return err
	}
	select {
	case err := <-shared.done:
		*n.task = mine
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flushInserts writes a group of tasks that know nothing of each other, and
// tells of them, for a caller may have left. If it fails as a whole each is
// tried alone, so that a bad one fails alone.
func (s *Service) flushInserts(group []*insertion) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	// Whoever holds a key makes others wait for it: in one order, so that two
	// groups with the same keys do not wait for each other.
	slices.SortFunc(group, func(a, b *insertion) int {
		return cmp.Or(cmp.Compare(a.task.UserID, b.task.UserID), cmp.Compare(a.key, b.key))
	})
	err := postgres.Retry(ctx, func() error { return insertTasks(ctx, s.pool, group, nil) })
	if err != nil && len(group) > 1 && fault.CodeOf(err) != fault.Unavailable && ctx.Err() == nil {
		for _, n := range group {
			s.flushInserts([]*insertion{n})
		}
		return
	}
	var kept []Task
	for _, n := range group {
		if err == nil && n.err == nil {
			kept = append(kept, *n.task)
		}
		n.done <- cmp.Or(err, n.err)
	}
	s.announce(kept)
}

// flushTimeout bounds a write that no caller's context bounds.
const flushTimeout = 15 * time.Second

var insertSQL = `
WITH input AS (
	SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
		$8::text[], $9::text[], $10::uuid[], $11::text[], $12::text[], $13::int[], $14::timestamptz[], $15::int[],
		$16::int[], $17::text[], $18::text[], $19::int[], $20::text[], $21::text[], $22::int[], $23::bytea[], $24::text[], $26::text[], $27::int[], $28::uuid[], $29::timestamptz[], $30::timestamptz[], $31::int[], $32::text[], $33::text[])
	AS i (id, description, input, agent_id, skill_id, model, thinking,
		session_id, project_id, parent_task_id, depends_on, dispatch, priority, run_after, timeout_seconds,
		max_attempts, labels, metadata, blocked_by, user_id, key, index, hash, requires, concurrency_key, concurrency_limit, schedule_id,
		expires_at, deadline_at, silence_seconds, retry_on, budget)
), ` + queuesSQL + `, inserted AS (
	INSERT INTO tasks (id, status, description, input, agent_id, skill_id, model, thinking,
		session_id, project_id, parent_task_id, depends_on, dispatch, priority, run_after, timeout_seconds,
		max_attempts, labels, metadata, blocked_by, requires, concurrency_key, concurrency_limit, tag, rank, schedule_id,
		expires_at, deadline_at, silence_seconds, retry_on, budget,
		claimable, user_id, idempotency_key, idempotency_index, idempotency_hash,
		created_at, updated_at, last_seq, last_txid)
	SELECT id, 'pending', description, input, agent_id, skill_id, model, thinking,
		session_id, project_id, parent_task_id, depends_on::uuid[], dispatch, priority, run_after, timeout_seconds,
		max_attempts, labels::jsonb, metadata::json, blocked_by, requires::jsonb, concurrency_key, concurrency_limit, tag, tag - ` + strconv.Itoa(priorityWorth) + ` * priority, schedule_id,
		expires_at, deadline_at, silence_seconds, retry_on::text[], budget::jsonb,
		dispatch = 'auto' AND blocked_by = 0 AND (run_after IS NULL OR run_after <= now()),
		user_id, nullif(key, ''), CASE WHEN key <> '' THEN index END, hash,
		now(), now(), 1, pg_current_xact_id()
	FROM queued
	ON CONFLICT (user_id, project_id, idempotency_key, idempotency_index) WHERE idempotency_key IS NOT NULL DO NOTHING
	RETURNING id, created_at, last_txid, depends_on
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status)
	SELECT id, 1, last_txid, created_at, 'status', 'pending' FROM inserted
), awaited AS (
	INSERT INTO task_dependencies (depends_on_id, task_id)
	SELECT DISTINCT d, id FROM inserted, unnest(depends_on) AS d
	WHERE d <> ALL ($25::uuid[])
), audited AS (
	` + audit.InsertSQL(34, `WHERE entry.resource_id IN (SELECT id::text FROM inserted)`, nil) + `
)
SELECT id, created_at FROM inserted`

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// insertTasks writes the tasks. Those whose key was used before are not
// written and get errKeyUsed as their err. known are the tasks that they depend
// on.
func insertTasks(ctx context.Context, db querier, news []*insertion, known map[uuid.UUID]relative) error {
	n := len(news)
	ids := make([]uuid.UUID, n)
	parents, schedules := make([]*uuid.UUID, n), make([]*uuid.UUID, n)
	runAfter, expiries, deadlines := make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n)
	metadata, budgets := make([]*string, n), make([]*string, n)
	hashes := make([][]byte, n)
	numbers := make([]int, 7*n)
	priority, timeout, attempts, blocked, index, atOnce, silence := numbers[:n], numbers[n:2*n], numbers[2*n:3*n], numbers[3*n:4*n], numbers[4*n:5*n], numbers[5*n:6*n], numbers[6*n:]
	text := make([][]string, 16)
	for i := range text {
		text[i] = make([]string, n)
	}
	settled := []uuid.UUID{} // not nil, which would be NULL and compare with nothing
	entries := make([]audit.Entry, n)
	for i, in := range news {
		t := in.task
		entries[i] = in.entry
		ids[i], parents[i], runAfter[i], schedules[i], hashes[i], index[i] = t.ID, t.ParentTaskID, t.RunAfter, t.ScheduleID, in.hash, in.index
		priority[i], timeout[i], attempts[i], atOnce[i], silence[i] = t.Priority, t.TimeoutSeconds, t.MaxAttempts, t.ConcurrencyLimit, t.SilenceSeconds
		expiries[i], deadlines[i] = t.ExpiresAt, t.DeadlineAt
		for _, d := range t.DependsOn {
			if known[d].Status == Completed {
				settled = append(settled, d)
			} else {
				blocked[i]++
			}
		}
		labels, err := encodeLabels(t.Labels)
		if err != nil {
			return err
		}
		requires, err := encodeLabels(t.Requires)
		if err != nil {
			return err
		}
		if t.Budget != nil {
			budgets[i] = new(string(encoded(t.Budget)))
		}
		if t.Metadata != nil {
			m := string(t.Metadata)
			metadata[i] = &m
		}
		for f, v := range [...]string{
			t.Description, t.Input, t.AgentID, t.SkillID, t.Model, t.Thinking, t.SessionID, t.ProjectID,
			arrayLiteral(t.DependsOn), string(t.Dispatch), labels, t.UserID, in.key, requires, t.ConcurrencyKey, arrayOf(t.RetryOn),
		} {
			text[f][i] = v
		}
	}
	rows, err := db.Query(ctx, insertSQL, append([]any{
		ids, text[0], text[1], text[2], text[3], text[4], text[5],
		text[6], text[7], parents, text[8], text[9], priority, runAfter, timeout,
		attempts, text[10], metadata, blocked, text[11], text[12], index, hashes, text[13], settled, text[14], atOnce, schedules,
		expiries, deadlines, silence, text[15], budgets,
	}, audit.Args(entries...)...)...)
	if err != nil {
		return audit.Fault(fmt.Errorf("insert tasks: %w", err))
	}
	created := make(map[uuid.UUID]time.Time, n)
	var id uuid.UUID
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { created[id] = at; return nil }); err != nil {
		return audit.Fault(fmt.Errorf("insert tasks: %w", err))
	}
	for _, in := range news {
		at, written := created[in.task.ID]
		if in.err = nil; !written {
			in.err = errKeyUsed
		}
		in.task.CreatedAt, in.task.UpdatedAt = at, at
	}
	return nil
}

func encodeLabels(labels map[string]string) (string, error) {
	if len(labels) == 0 {
		return "{}", nil
	}
	text, err := json.Marshal(labels)
	if err != nil {
		return "", fmt.Errorf("encode labels: %w", err)
	}
	return string(text), nil
}

// arrayLiteral writes ids as PostgreSQL reads an array: unnest would flatten
// an array of arrays.
func arrayLiteral(ids []uuid.UUID) string {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(id.String())
	}
	b.WriteByte('}')
	return b.String()
}

// arrayOf is arrayLiteral for words, which need no quotes.
func arrayOf[T ~string](words []T) string {
	n := 2
	for _, w := range words {
		n += len(w) + 1
	}
	b := make([]byte, 1, n)
	b[0] = '{'
	for i, w := range words {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, w...)
	}
	return string(append(b, '}'))
}
