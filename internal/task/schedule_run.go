package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// maxDue bounds how many schedules are dealt with in one sweep.
const maxDue = 100

// readySQL is the condition that a schedule s has something to be done: a tick
// has come, or the one that waits has nothing to wait for any more.
const readySQL = `(s.next_at <= clock_timestamp() OR s.queued_at IS NOT NULL
	AND NOT EXISTS (SELECT FROM tasks t WHERE t.schedule_id = s.id AND t.completed_at IS NULL))`

// runDue deals with the schedules that have something to be done. It reports
// whether this server did something: there may be more.
func (s *Service) runDue(ctx context.Context) (some bool, err error) {
	type row struct {
		Schedule
		Now time.Time
	}
	rows, err := s.pool.Query(ctx, `SELECT `+scheduleColumns+`, clock_timestamp() AS now FROM schedules s
		WHERE s.next_at <= clock_timestamp() UNION ALL
		SELECT `+scheduleColumns+`, clock_timestamp() FROM schedules s WHERE s.queued_at IS NOT NULL
			AND (s.next_at > clock_timestamp() OR s.next_at IS NULL) AND `+readySQL+`
		ORDER BY next_at LIMIT $1`, maxDue)
	if err != nil {
		return false, postgres.Fault(fmt.Errorf("read due schedules: %w", err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		return false, postgres.Fault(fmt.Errorf("read due schedules: %w", err))
	}
	var faults []error
	for _, r := range all {
		ran, err := s.run(ctx, r.Schedule, r.Now)
		if some = some || ran; err != nil {
			faults = append(faults, fmt.Errorf("run schedule %s: %w", r.ID, err))
		}
	}
	return some, errors.Join(faults...)
}

// verdict is whether a schedule's task may be submitted now.
type verdict struct {
	caller   policy.Caller
	request  policy.Request
	decision policy.Decision
	orphaned bool  // whoever it belongs to is gone
	trouble  error // why nothing can run it
}

// judge decides by the rights that the schedule's owner has by now.
func (s *Service) judge(ctx context.Context, sc Schedule) (v verdict, err error) {
	v.request = sc.task().wants()
	v.caller, err = s.submitters.Submitter(ctx, sc.UserID, sc.SessionID, sc.ProjectID)
	switch {
	case fault.CodeOf(err) == fault.Unauthenticated:
		v.caller = policy.Caller{UserID: sc.UserID, SessionID: sc.SessionID, ProjectID: sc.ProjectID}
		v.decision, v.orphaned = policy.Decision{Layer: policy.LayerSession, Reason: err.Error()}, true
		return v, nil
	case err != nil:
		return v, err
	}
	if v.decision, err = s.access.Decide(ctx, v.caller, v.request); err != nil {
		return v, err
	}
	v.trouble = s.runnable(ctx, sc.Task)
	if code := fault.CodeOf(v.trouble); v.trouble != nil && code != fault.NotFound && code != fault.AgentUnavailable {
		return v, v.trouble
	}
	return v, nil
}

// run deals with one tick of a schedule, as it was read at now. The tick is
// claimed by moving the schedule on, in the transaction of what it does:
// another server, or this one after a crash, finds it either done or untouched.
// run reports whether the schedule was this server's to move.
func (s *Service) run(ctx context.Context, sc Schedule, now time.Time) (ran bool, err error) {
	g, err := sc.timing()
	if err != nil {
		return false, err
	}
	v, err := s.judge(ctx, sc)
	if err != nil {
		return false, err
	}
	ran, err = s.runOnce(ctx, sc, g, v, now)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(pgErr.Code, "22") || strings.HasPrefix(pgErr.Code, "23")) {
		// What the database takes for wrong now it will not take later.
		s.log.WarnContext(ctx, "the task of a schedule cannot be kept", "schedule", sc.ID, "error", err)
		v.trouble = errors.New("the database does not take the task")
		ran, err = s.runOnce(ctx, sc, g, v, now)
	}
	return ran, err
}

func (s *Service) runOnce(ctx context.Context, sc Schedule, g timing, v verdict, now time.Time) (ran bool, err error) {
	var after aftermath
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		after, ran = aftermath{}, false
		err := tx.QueryRow(ctx, `SELECT true FROM schedules
			WHERE id = $1 AND updated_at = $2 AND next_at IS NOT DISTINCT FROM $3 AND queued_at IS NOT DISTINCT FROM $4
			FOR UPDATE SKIP LOCKED`, sc.ID, sc.UpdatedAt, sc.NextAt, sc.QueuedAt).Scan(&ran)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("claim the tick: %w", err)
		}
		after, err = s.runTick(ctx, tx, sc, g, v, now)
		return err
	})
	if err != nil || !ran {
		return false, err
	}
	s.announceCancelled(after.cancelled)
	s.announce(after.submitted)
	s.followUp(ctx, after.touched)
	return true, nil
}

// aftermath is what is to be told after the commit.
type aftermath struct {
	submitted []Task
	cancelled []cancelled
	touched   []settled
}

// outcome is how a schedule goes on after a tick.
type outcome struct {
	due
	queued *time.Time
	result RunResult // "": there was nothing to run
	reason string
	taskID *uuid.UUID
	paused string // why it is paused from now on; "": it is not
}

// runTick does what is to be done for a schedule that the transaction holds.
func (s *Service) runTick(ctx context.Context, tx pgx.Tx, sc Schedule, g timing, v verdict, now time.Time) (after aftermath, err error) {
	open, err := openRuns(ctx, tx, sc.ID)
	if err != nil {
		return after, err
	}
	o := outcome{due: due{next: sc.NextAt}, queued: sc.QueuedAt}
	switch {
	case sc.QueuedAt != nil && len(open) == 0:
		// Its turn comes before that of a tick that has come meanwhile.
		o.tick, o.queued = *sc.QueuedAt, nil
	case sc.NextAt != nil && !sc.NextAt.After(now):
		o.due = g.due(*sc.NextAt, now, time.Duration(sc.DeadlineSeconds)*time.Second)
	}
	switch {
	case o.tick.IsZero():
	case !v.decision.Allowed:
		o.result, o.reason = RunDenied, v.decision.Reason
		entry := audit.NewEntry(v.caller, actionRunSchedule, scheduleResource, sc.ID.String(), v.decision)
		entry.ProjectID = sc.ProjectID
		entries := []audit.Entry{entry}
		if v.orphaned { // for good: nothing would come of any later tick
			o.next, o.queued, o.paused = nil, nil, fmt.Sprintf("%s, by whose rights its task is submitted, is gone: %s", sc.UserID, v.decision.Reason)
			d := policy.Decision{Allowed: true, Layer: policy.LayerSession, Reason: o.paused}
			pause := audit.NewEntry(policy.Caller{UserID: "system"}, actionPauseSchedule, scheduleResource, sc.ID.String(), d)
			pause.ProjectID = sc.ProjectID
			entries = append(entries, pause)
		}
		err = audit.Append(ctx, tx, entries...)
	case v.trouble != nil:
		o.result, o.reason = RunFailed, v.trouble.Error()
	case len(open) > 0 && sc.Overlap == OverlapQueue && o.queued == nil:
		o.queued, o.result, o.reason = &o.tick, RunQueued, fmt.Sprintf("task %s has not ended", open[0])
	case len(open) > 0 && sc.Overlap != OverlapReplace:
		o.result, o.reason = RunSkipped, fmt.Sprintf("task %s has not ended", open[0])
	default:
		for _, id := range open {
			all, touched, err := endTree(ctx, tx, id)
			if err != nil {
				return after, err
			}
			d := policy.Decision{Allowed: true, Layer: policy.LayerPermission, Reason: fmt.Sprintf("replaced by the next run of schedule %s", sc.ID)}
			entry := audit.NewEntry(v.caller, actionCancel, resourceType, id.String(), d)
			entry.ProjectID = sc.ProjectID
			if err := audit.Append(ctx, tx, entry); err != nil {
				return after, err
			}
			after.cancelled, after.touched = append(after.cancelled, all...), append(after.touched, touched...)
		}
		t, err := insertRun(ctx, tx, sc, v)
		if err != nil {
			return after, err
		}
		o.result, o.taskID = RunSubmitted, &t.ID
		after.submitted = []Task{t}
	}
	if err != nil {
		return after, err
	}
	return after, record(ctx, tx, sc.ID, o)
}

// openRuns returns the runs of a schedule that have not ended, and holds them
// where they are.
func openRuns(ctx context.Context, tx pgx.Tx, schedule uuid.UUID) ([]uuid.UUID, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM tasks WHERE schedule_id = $1 AND completed_at IS NULL ORDER BY id FOR UPDATE`, schedule)
	if err != nil {
		return nil, fmt.Errorf("read open runs: %w", err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("read open runs: %w", err)
	}
	return open, nil
}

// insertRun submits the schedule's task, which v allows.
func insertRun(ctx context.Context, tx pgx.Tx, sc Schedule, v verdict) (Task, error) {
	t := sc.task()
	entry := audit.NewEntry(v.caller, v.request.Action, resourceType, t.ID.String(), v.decision)
	entry.ProjectID = t.ProjectID
	var err error
	if entry.Details, err = v.request.Circumstances(v.caller); err != nil {
		return t, fmt.Errorf("encode circumstances: %w", err)
	}
	return t, insertTasks(ctx, tx, []*insertion{{task: &t, entry: entry}}, nil)
}

// record moves the schedule on.
func record(ctx context.Context, tx pgx.Tx, id uuid.UUID, o outcome) error {
	var tick *time.Time
	if !o.tick.IsZero() {
		tick = &o.tick
	}
	_, err := tx.Exec(ctx, `UPDATE schedules SET next_at = @next, queued_at = @queued, missed = missed + @missed,
			last_tick_at = CASE WHEN @result = '' THEN last_tick_at ELSE @tick END,
			last_run_at = CASE WHEN @result = '' THEN last_run_at ELSE clock_timestamp() END,
			last_result = CASE WHEN @result = '' THEN last_result ELSE @result END,
			last_reason = CASE WHEN @result = '' THEN last_reason ELSE @reason END,
			last_task_id = coalesce(@task, last_task_id),
			-- Whoever is about to change it must not let it go on unawares.
			paused = paused OR @paused <> '', paused_reason = CASE WHEN @paused = '' THEN paused_reason ELSE @paused END,
			updated_at = CASE WHEN @paused = '' THEN updated_at ELSE clock_timestamp() END
		WHERE id = @id`, pgx.NamedArgs{
		"id": id, "next": o.next, "queued": o.queued, "missed": o.missed, "tick": tick, "result": o.result, "reason": o.reason, "task": o.taskID, "paused": o.paused,
	})
	if err != nil {
		return fmt.Errorf("record the run of schedule %s: %w", id, err)
	}
	return nil
}

// TriggerSchedule submits a schedule's task at once, also while it is paused and
// whatever runs: by the rights of whoever asks, not of whoever made it. Faults
// are those of [Service.Submit], and NotFound.
func (s *Service) TriggerSchedule(ctx context.Context, c policy.Caller, id uuid.UUID) (Task, error) {
	sc, err := s.Schedule(ctx, c, id)
	if err != nil {
		return Task{}, err
	}
	if c.SessionID != "" || c.UserID != sc.UserID {
		sc.Task.SessionID = c.SessionID
	}
	if err := fault.InvalidFields(sc.Task.place(c, "schedule.task")); err != nil {
		return Task{}, err
	}
	if err := s.runnable(ctx, sc.Task); err != nil {
		return Task{}, err
	}
	sc.UserID = c.UserID
	v := verdict{caller: c, request: sc.task().wants()}
	if v.decision, err = s.access.Decide(ctx, c, v.request); err != nil {
		return Task{}, err
	}
	if !v.decision.Allowed {
		entry := audit.NewEntry(c, actionRunSchedule, scheduleResource, id.String(), v.decision)
		entry.ProjectID = sc.ProjectID
		s.recorder.Record(ctx, entry)
		return Task{}, v.decision.Err()
	}
	var t Task
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// Held, so that a tick at the same moment sees this run or comes before it.
		var o outcome
		err := tx.QueryRow(ctx, `SELECT next_at, queued_at FROM schedules WHERE id = $1 FOR UPDATE`, id).Scan(&o.next, &o.queued)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSchedule(id)
		}
		if err != nil {
			return fmt.Errorf("trigger schedule %s: %w", id, err)
		}
		if t, err = insertRun(ctx, tx, sc, v); err != nil {
			return err
		}
		o.result, o.taskID = RunSubmitted, &t.ID
		return record(ctx, tx, id, o)
	})
	if err != nil {
		return Task{}, err
	}
	s.announce([]Task{t})
	return t, nil
}
