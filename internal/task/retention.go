package task

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	actionForget = "task.forget"
	// forgetBatch and orphanBatch are how many tasks, and how many events, go in
	// one transaction.
	forgetBatch = 500
	orphanBatch = 5000
)

// retain forgets the tasks that ended longer ago than they are to be kept, with
// their events and artifacts, once the week in which they were submitted is over
// for that long: so most events go with the partition that they are in. A task
// stays while another one names it as its parent or depends on it.
//
// whole has all weeks looked through for what a process that was killed left
// behind.
func (s *Service) retain(ctx context.Context, whole bool) error {
	if s.retention == 0 {
		return nil
	}
	var now time.Time
	if err := s.pool.QueryRow(ctx, `SELECT now()`).Scan(&now); err != nil {
		return postgres.Fault(fmt.Errorf("read the time: %w", err))
	}
	ended := now.Add(-s.retention)
	end := weekOf(ended)
	weeks, err := s.forgetTasks(ctx, postgres.FirstID(end), ended)
	if err != nil {
		return fmt.Errorf("forget tasks: %w", err)
	}
	if err := s.forgetEvents(ctx, end, weeks, whole); err != nil {
		return postgres.Fault(fmt.Errorf("forget events: %w", err))
	}
	return nil
}

// forgetTasks forgets tasks from before an id that ended before a time, and
// returns the weeks that they were of. Newer ones go first, for they name older
// ones.
func (s *Service) forgetTasks(ctx context.Context, before uuid.UUID, ended time.Time) (weeks map[time.Time]bool, err error) {
	weeks = map[time.Time]bool{}
	for {
		var some, gone []uuid.UUID
		err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
			some, gone, err = forgetSome(ctx, tx, before, ended)
			if err != nil || len(gone) == 0 {
				return err
			}
			d := policy.Decision{Allowed: true, Reason: "retention"}
			e := audit.NewEntry(policy.Caller{UserID: "system"}, actionForget, resourceType, "", d)
			if e.Details, err = json.Marshal(map[string]any{"tasks": len(gone), "endedBefore": ended.UTC()}); err != nil {
				return err
			}
			return audit.Append(ctx, tx, e)
		})
		if err != nil {
			return weeks, err
		}
		for _, id := range gone {
			weeks[weekOf(submitted(id))] = true
		}
		if len(some) < forgetBatch {
			return weeks, nil
		}
		before = some[len(some)-1]
	}
}

// forgetSome looks at a batch of tasks and forgets those that may go. Whoever is
// about to refer to one of them waits, and then finds it gone; one that somebody
// holds is left for later.
func forgetSome(ctx context.Context, tx pgx.Tx, before uuid.UUID, ended time.Time) (some, gone []uuid.UUID, err error) {
	rows, err := tx.Query(ctx, `SELECT id FROM tasks WHERE id < $1 AND completed_at < $2 ORDER BY id DESC LIMIT $3 FOR UPDATE SKIP LOCKED`,
		before, ended, forgetBatch)
	if err != nil {
		return nil, nil, err
	}
	if some, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return nil, nil, err
	}
	for { // until none of those that are left stands in the way of another
		rows, err := tx.Query(ctx, `
			WITH gone AS (
				DELETE FROM tasks t WHERE t.id = ANY ($1)
					AND NOT EXISTS (SELECT FROM tasks c WHERE c.parent_task_id = t.id)
					AND NOT EXISTS (SELECT FROM tasks d WHERE d.depends_on @> ARRAY[t.id] AND d.depends_on <> '{}')
				RETURNING t.id, t.last_txid
			), log AS (
				UPDATE task_log SET forgotten = greatest(forgotten, g.last_txid)
				FROM (SELECT last_txid FROM gone ORDER BY last_txid DESC LIMIT 1) g
			), files AS (
				DELETE FROM artifacts a USING gone WHERE a.task_id = gone.id RETURNING a.content_id
			), contents AS (
				UPDATE artifact_contents SET collect_after = now() + $2::interval WHERE id IN (SELECT content_id FROM files)
			)
			SELECT id FROM gone`, some, 2*TransferTimeout)
		if err != nil {
			return nil, nil, err
		}
		pass, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return nil, nil, err
		}
		if len(pass) == 0 {
			return some, gone, nil
		}
		gone = append(gone, pass...)
	}
}

// submitted is the time in a task's id (RFC 9562, section 5.7).
func submitted(id uuid.UUID) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// forgetEvents drops the partitions from before a week of whose tasks none is
// left, and otherwise deletes the events of tasks that are gone, in those weeks
// or all.
func (s *Service) forgetEvents(ctx context.Context, end time.Time, weeks map[time.Time]bool, whole bool) error {
	rows, err := s.pool.Query(ctx, `SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'task_events'::regclass AND c.relname ~ '^task_events_[0-9]{8}$'`)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	weeks = maps.Clone(weeks)
	var faults []error
	for _, name := range names {
		week, err := time.Parse(partitionLayout, strings.TrimPrefix(name, partitionPrefix))
		if err != nil || !week.Before(end) {
			continue
		}
		var kept bool
		err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tasks WHERE id >= $1 AND id < $2)`, postgres.FirstID(week), postgres.FirstID(week.Add(partitionAge))).Scan(&kept)
		switch {
		case err != nil:
			faults = append(faults, err)
		case kept:
			weeks[week] = weeks[week] || whole
			continue
		default:
			_, err = s.pool.Exec(ctx, `SELECT drop_task_events_partition($1)`, name)
			faults = append(faults, err)
		}
		delete(weeks, week)
	}
	for _, week := range slices.SortedFunc(maps.Keys(weeks), time.Time.Compare) {
		if weeks[week] {
			faults = append(faults, s.deleteOrphans(ctx, week))
		}
	}
	return errors.Join(faults...)
}

// deleteOrphans deletes the events of a week's tasks that are gone.
func (s *Service) deleteOrphans(ctx context.Context, week time.Time) error {
	for {
		tag, err := s.pool.Exec(ctx, `DELETE FROM task_events WHERE task_id >= $1 AND task_id < $2 AND (task_id, seq) IN (
			SELECT e.task_id, e.seq FROM task_events e WHERE e.task_id >= $1 AND e.task_id < $2
				AND NOT EXISTS (SELECT FROM tasks t WHERE t.id = e.task_id) LIMIT $3)`,
			postgres.FirstID(week), postgres.FirstID(week.Add(partitionAge)), orphanBatch)
		if err != nil || tag.RowsAffected() < orphanBatch {
			return err
		}
	}
}
