package task

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/adhocore/gronx"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Overlap says what becomes of a tick while a run before has not ended.
type Overlap string

// The overlaps.
const (
	OverlapSkip    Overlap = "skip"    // it is left out
	OverlapQueue   Overlap = "queue"   // it is run when the one before has ended; one waits, no more
	OverlapReplace Overlap = "replace" // the one before is cancelled
)

// RunResult says what came of a tick.
type RunResult string

// The results.
const (
	RunSubmitted RunResult = "submitted"
	RunSkipped   RunResult = "skipped"
	RunQueued    RunResult = "queued"
	RunDenied    RunResult = "denied" // whoever the schedule belongs to may not have it done any more
	RunFailed    RunResult = "failed" // nothing can run the agent
)

// The limits of schedules.
const (
	MaxNameChars       = 200
	MaxCronBytes       = 200
	MinIntervalSeconds = 10
	MaxIntervalSeconds = 366 * 24 * 3600
	MinDeadlineSeconds = 10
	MaxDeadlineSeconds = 24 * 3600

	defaultDeadlineSeconds = 3600
)

// Schedule submits a task again and again.
type Schedule struct {
	ID              uuid.UUID
	Name            string
	Cron            string // five fields; or else
	TimeZone        string // with Cron: an IANA name
	IntervalSeconds int
	Overlap         Overlap
	// DeadlineSeconds is how late a tick may still be run.
	DeadlineSeconds int
	Paused          bool
	PausedReason    string // why the server has paused it; "": somebody has
	Task            New
	// Its tasks are submitted by the rights of this user, in this session.
	UserID    string
	SessionID string
	ProjectID string
	CreatedAt time.Time
	UpdatedAt time.Time // the last change by a caller, or when the server has paused it
	NextAt    *time.Time
	QueuedAt  *time.Time // a tick that waits for the run before to end
	// What came of the last tick. LastTickAt is nil if somebody triggered it.
	LastTickAt *time.Time
	LastRunAt  *time.Time
	LastResult RunResult
	LastReason string
	// LastTaskID is the last task that it submitted.
	LastTaskID *uuid.UUID
	// Missed is how many ticks were not run because no server was there in time.
	Missed int64
}

// scheduleColumns are the fields of Schedule, qualified with s. Its task is kept
// as the JSON of a New.
const scheduleColumns = `s.id, s.name, s.cron, s.time_zone, s.interval_seconds, s.overlap, s.deadline_seconds, s.paused, s.paused_reason, s.task,
	s.user_id, s.session_id, s.project_id, s.created_at, s.updated_at, s.next_at, s.queued_at,
	s.last_tick_at, s.last_run_at, s.last_result, s.last_reason, s.last_task_id, s.missed`

var toSchedule = pgx.RowToStructByName[Schedule]

// NewSchedule is a schedule to be made. What is left zero takes its default.
type NewSchedule struct {
	Name            string
	Cron            string
	TimeZone        string // default, with Cron: UTC
	IntervalSeconds int
	Overlap         Overlap // default: OverlapSkip
	DeadlineSeconds int     // default: an hour
	Paused          bool
	Task            New
}

// SchedulePatch is a change of a schedule. What is nil stays as it is.
type SchedulePatch struct {
	Name            *string
	Cron            *string // takes the place of an interval
	TimeZone        *string
	IntervalSeconds *int // takes the place of a cron expression
	Overlap         *Overlap
	DeadlineSeconds *int
	Paused          *bool
	Task            *New
}

// onlyPauses reports whether nothing but Paused is changed.
func (p SchedulePatch) onlyPauses() bool {
	return p == SchedulePatch{Paused: p.Paused}
}

// What the audit log says of schedules. What a tick submits is recorded as any
// submission.
const (
	scheduleResource     = "schedule"
	actionCreateSchedule = "schedule.create"
	actionUpdateSchedule = "schedule.update"
	actionDeleteSchedule = "schedule.delete"
	actionRunSchedule    = "schedule.run"
	actionPauseSchedule  = "schedule.pause"
)

// CreateSchedule keeps a new schedule of c's. With a key, the same request by the
// same user returns the schedule that it made when it came first, as that is by
// now, for as long as there is one; another request with that key is refused as
// IdempotencyMismatch.
//
// It returns Invalid with the fields that are outside their limits, and for its
// task AgentUnavailable and Forbidden as [Service.Submit] does.
func (s *Service) CreateSchedule(ctx context.Context, c policy.Caller, n NewSchedule, key string) (Schedule, error) {
	if err := fault.InvalidFields(keyFaults(key)); err != nil {
		return Schedule{}, err
	}
	if key == "" {
		return s.createSchedule(ctx, c, n, "", nil)
	}
	hash, err := hashOf(n)
	if err != nil {
		return Schedule{}, err
	}
	sc, err := s.createSchedule(ctx, c, n, key, hash)
	if err == nil || fault.CodeOf(err) == fault.Unavailable {
		return sc, err
	}
	// What is refused now may have been accepted when it came first.
	first, found, replay := s.scheduleOf(ctx, c, n, key, hash)
	switch {
	case replay != nil && (found || errors.Is(err, errKeyUsed)):
		return Schedule{}, replay
	case found:
		return first, nil
	case errors.Is(err, errKeyUsed): // and deleted since
		return Schedule{}, fault.New(fault.Conflict, "the schedule of this Idempotency-Key was deleted meanwhile; try again")
	}
	return Schedule{}, err
}

// scheduleOf returns the schedule that was made with the key, if there is one. It
// returns IdempotencyMismatch if that was another request.
func (s *Service) scheduleOf(ctx context.Context, c policy.Caller, n NewSchedule, key string, hash []byte) (sc Schedule, found bool, err error) {
	type keyed struct {
		Schedule
		IdempotencyHash []byte
	}
	rows, err := s.pool.Query(ctx, `SELECT `+scheduleColumns+`, s.idempotency_hash FROM schedules s
		WHERE s.idempotency_user = $1 AND s.project_id = $2 AND s.idempotency_key = $3`, c.UserID, cmp.Or(n.Task.ProjectID, c.ProjectID), key)
	if err != nil {
		return sc, false, postgres.Fault(fmt.Errorf("read schedule by key: %w", err))
	}
	first, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[keyed])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return sc, false, nil
	case err != nil:
		return sc, false, postgres.Fault(fmt.Errorf("read schedule by key: %w", err))
	case !c.Sees(first.ProjectID, first.UserID) || !bytes.Equal(first.IdempotencyHash, hash):
		return sc, true, keyMismatch()
	}
	return first.Schedule, true, nil
}

func (s *Service) createSchedule(ctx context.Context, c policy.Caller, n NewSchedule, key string, hash []byte) (Schedule, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Schedule{}, fmt.Errorf("make a schedule id: %w", err)
	}
	sc := Schedule{
		ID: id, Name: n.Name, Cron: n.Cron, TimeZone: n.TimeZone, IntervalSeconds: n.IntervalSeconds,
		Overlap: cmp.Or(n.Overlap, OverlapSkip), DeadlineSeconds: cmp.Or(n.DeadlineSeconds, defaultDeadlineSeconds),
		Paused: n.Paused, Task: n.Task,
	}
	entry, err := s.adopt(ctx, c, actionCreateSchedule, &sc)
	if err != nil {
		return Schedule{}, err
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&sc.CreatedAt); err != nil {
			return fmt.Errorf("create schedule: %w", err)
		}
		if sc.UpdatedAt = sc.CreatedAt; !sc.Paused {
			sc.NextAt = sc.first(sc.CreatedAt)
		}
		args := sc.args()
		args["key"], args["hash"] = key, hash
		tag, err := tx.Exec(ctx, `INSERT INTO schedules (id, created_at, updated_at, next_at, interval_seconds, deadline_seconds, paused,
				overlap, user_id, session_id, project_id, name, cron, time_zone, task, idempotency_user, idempotency_key, idempotency_hash)
			VALUES (@id, @created, @created, @next, @interval, @deadline, @paused,
				@overlap, @user, @session, @project, @name, @cron, @zone, @task, CASE WHEN @key <> '' THEN @user END, nullif(@key, ''), @hash)
			ON CONFLICT (idempotency_user, project_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING`, args)
		switch {
		case err != nil:
			return fmt.Errorf("create schedule: %w", err)
		case tag.RowsAffected() == 0:
			return errKeyUsed
		}
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return Schedule{}, err
	}
	poke(s.sweepSoon)
	return sc, nil
}

func (sc *Schedule) args() pgx.NamedArgs {
	return pgx.NamedArgs{
		"id": sc.ID, "created": sc.CreatedAt, "updated": sc.UpdatedAt, "next": sc.NextAt, "interval": sc.IntervalSeconds,
		"deadline": sc.DeadlineSeconds, "paused": sc.Paused, "overlap": sc.Overlap, "user": sc.UserID, "session": sc.SessionID,
		"project": sc.ProjectID, "name": sc.Name, "cron": sc.Cron, "zone": sc.TimeZone, "task": sc.Task,
	}
}

// Schedule returns a schedule, or NotFound.
func (s *Service) Schedule(ctx context.Context, c policy.Caller, id uuid.UUID) (sc Schedule, err error) {
	err = s.read(ctx, c, `SELECT `+scheduleColumns+` FROM schedules s WHERE s.id = @id AND `+scheduleConfined,
		pgx.NamedArgs{"id": id}, func(rows pgx.Rows) (err error) {
			sc, err = pgx.CollectExactlyOneRow(rows, toSchedule)
			return err
		})
	if errors.Is(err, pgx.ErrNoRows) {
		return Schedule{}, noSchedule(id)
	}
	if err != nil {
		return Schedule{}, fmt.Errorf("read schedule %s: %w", id, err)
	}
	return sc, nil
}

// scheduleConfined is confined for a schedule s.
var scheduleConfined = postgres.Within("s")

func noSchedule(id uuid.UUID) error { return fault.New(fault.NotFound, "no schedule %s", id) }

// Schedules returns up to limit schedules that c sees, newest first, that are
// older than the one with the id before; uuid.Max begins. more says that there
// are further ones.
func (s *Service) Schedules(ctx context.Context, c policy.Caller, before uuid.UUID, limit int) (all []Schedule, more bool, err error) {
	err = s.read(ctx, c, `SELECT `+scheduleColumns+` FROM schedules s WHERE s.id < @before AND `+scheduleConfined+` ORDER BY s.id DESC LIMIT @limit`,
		pgx.NamedArgs{"before": before, "limit": limit + 1}, func(rows pgx.Rows) error {
			for bytes := 0; rows.Next(); {
				if more = len(all) == limit || bytes > maxListBytes; more {
					return nil
				}
				sc, err := toSchedule(rows)
				if err != nil {
					return err
				}
				all = append(all, sc)
				bytes += len(sc.Task.Input) + len(sc.Task.Metadata)
			}
			return rows.Err()
		})
	if err != nil {
		return nil, false, fmt.Errorf("list schedules: %w", err)
	}
	return all, more, nil
}

// UpdateSchedule changes a schedule. Whoever changes more than whether it is
// paused takes it over: from then on its tasks are submitted by their rights.
// A schedule that is resumed, or whose times are changed, begins anew.
//
// Faults are those of CreateSchedule, NotFound, and Conflict if it was changed
// by somebody else meanwhile.
func (s *Service) UpdateSchedule(ctx context.Context, c policy.Caller, id uuid.UUID, p SchedulePatch) (Schedule, error) {
	if p == (SchedulePatch{}) {
		return Schedule{}, fault.InvalidFields([]fault.Field{{Path: "body", Message: "must change something"}})
	}
	sc, err := s.Schedule(ctx, c, id)
	if err != nil {
		return Schedule{}, err
	}
	seen := sc
	sc.apply(p)
	if p.Task == nil && c.SessionID != "" {
		sc.Task.SessionID = c.SessionID
	}
	var entry audit.Entry
	if p.onlyPauses() {
		entry, err = s.allowSchedule(ctx, c, sc, sc.bare(actionUpdateSchedule))
	} else {
		entry, err = s.adopt(ctx, c, actionUpdateSchedule, &sc)
	}
	if err != nil {
		return Schedule{}, err
	}
	anew := seen.Paused && !sc.Paused || seen.Cron != sc.Cron || seen.TimeZone != sc.TimeZone || seen.IntervalSeconds != sc.IntervalSeconds
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var now time.Time
		if err := tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
			return fmt.Errorf("update schedule %s: %w", id, err)
		}
		sc.NextAt = sc.first(now)
		args := sc.args()
		args["now"], args["anew"] = now, anew
		rows, err := tx.Query(ctx, `UPDATE schedules s SET updated_at = @now, interval_seconds = @interval, deadline_seconds = @deadline, paused = @paused,
				overlap = @overlap, user_id = @user, session_id = @session, name = @name, cron = @cron, time_zone = @zone, task = @task,
				paused_reason = CASE WHEN @paused AND @user = s.user_id THEN s.paused_reason ELSE '' END,
				next_at = CASE WHEN @paused THEN NULL WHEN @anew THEN @next ELSE s.next_at END,
				queued_at = CASE WHEN NOT @paused AND @overlap = 'queue' THEN s.queued_at END
			WHERE s.id = @id AND s.updated_at = @updated RETURNING `+scheduleColumns, args)
		if err != nil {
			return fmt.Errorf("update schedule %s: %w", id, err)
		}
		changed, err := pgx.CollectExactlyOneRow(rows, toSchedule)
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.New(fault.Conflict, "schedule %s was changed by somebody else meanwhile; try again", id)
		}
		if err != nil {
			return fmt.Errorf("update schedule %s: %w", id, err)
		}
		seen = changed
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return Schedule{}, err
	}
	poke(s.sweepSoon)
	return seen, nil
}

func (sc *Schedule) apply(p SchedulePatch) {
	sc.Name = *cmp.Or(p.Name, &sc.Name)
	switch {
	case p.Cron != nil && p.IntervalSeconds == nil:
		sc.IntervalSeconds = 0
	case p.IntervalSeconds != nil && p.Cron == nil:
		sc.Cron, sc.TimeZone = "", ""
	}
	sc.Cron = *cmp.Or(p.Cron, &sc.Cron)
	sc.TimeZone = *cmp.Or(p.TimeZone, &sc.TimeZone)
	sc.IntervalSeconds = *cmp.Or(p.IntervalSeconds, &sc.IntervalSeconds)
	sc.Overlap = *cmp.Or(p.Overlap, &sc.Overlap)
	sc.DeadlineSeconds = *cmp.Or(p.DeadlineSeconds, &sc.DeadlineSeconds)
	sc.Paused = *cmp.Or(p.Paused, &sc.Paused)
	sc.Task = *cmp.Or(p.Task, &sc.Task)
}

// DeleteSchedule removes a schedule. Tasks that it submitted go on. It returns
// NotFound, and Forbidden if c may not submit tasks.
func (s *Service) DeleteSchedule(ctx context.Context, c policy.Caller, id uuid.UUID) error {
	sc, err := s.Schedule(ctx, c, id)
	if err != nil {
		return err
	}
	entry, err := s.allowSchedule(ctx, c, sc, sc.bare(actionDeleteSchedule))
	if err != nil {
		return err
	}
	return postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM schedules WHERE id = $1`, id)
		if err != nil {
			return fmt.Errorf("delete schedule %s: %w", id, err)
		}
		if tag.RowsAffected() == 0 {
			return noSchedule(id)
		}
		return audit.Append(ctx, tx, entry)
	})
}

// adopt makes the schedule c's, checks it as a submission of its task would be,
// and returns the entry of the decision.
func (s *Service) adopt(ctx context.Context, c policy.Caller, action string, sc *Schedule) (audit.Entry, error) {
	if len(strings.Fields(sc.Cron)) > 0 {
		sc.Cron, sc.TimeZone = strings.Join(strings.Fields(sc.Cron), " "), cmp.Or(sc.TimeZone, "UTC")
	}
	faults := sc.faults()
	sc.Task.setDefaults()
	if sc.ProjectID != "" && sc.Task.ProjectID == "" {
		sc.Task.ProjectID = sc.ProjectID
	}
	faults = append(faults, sc.Task.place(c, "body.task")...)
	faults = append(faults, sc.Task.faults("body.task")...)
	if action == actionUpdateSchedule && sc.Task.ProjectID != sc.ProjectID {
		faults = append(faults, fault.Field{Path: "body.task.projectId", Message: "must stay the same"})
	}
	if err := fault.InvalidFields(faults); err != nil {
		return audit.Entry{}, err
	}
	if err := s.runnable(ctx, sc.Task); err != nil {
		if fault.CodeOf(err) == fault.NotFound {
			err = fault.InvalidFields([]fault.Field{{Path: "body.task.agentId", Message: "no agent has this id"}})
		}
		return audit.Entry{}, err
	}
	sc.UserID, sc.SessionID, sc.ProjectID = c.UserID, sc.Task.SessionID, sc.Task.ProjectID
	r := sc.task().wants()
	r.Action = action
	return s.allowSchedule(ctx, c, *sc, r)
}

// task is what the schedule submits next.
func (sc *Schedule) task() Task {
	t := sc.Task.task(uuid.Must(uuid.NewV7()), sc.UserID)
	t.ScheduleID = &sc.ID
	return t
}

// bare is what the policies are asked before something is done with a schedule
// that lets it do no more than before.
func (sc *Schedule) bare(action string) policy.Request {
	return policy.Request{Permission: policy.TaskSubmit, Action: action, ProjectID: sc.ProjectID, Labels: sc.Task.Labels}
}

// allowSchedule is allow for a schedule.
func (s *Service) allowSchedule(ctx context.Context, c policy.Caller, sc Schedule, r policy.Request) (audit.Entry, error) {
	return s.allowOn(ctx, c, r, subject{kind: scheduleResource, id: sc.ID.String()})
}

// runnable returns why nothing can run the task, or nil.
func (s *Service) runnable(ctx context.Context, n New) error {
	if n.Dispatch != Auto {
		return nil
	}
	return s.agents.Runnable(ctx, n.AgentID)
}

// faults lists what is outside its limits, besides the task's own.
func (sc *Schedule) faults() (found []fault.Field) {
	bad := func(field, format string, args ...any) {
		found = append(found, fault.Field{Path: "body." + field, Message: fmt.Sprintf(format, args...)})
	}
	if n := utf8.RuneCountInString(sc.Name); n < 1 || n > MaxNameChars {
		bad("name", "must have 1 to %d characters, has %d", MaxNameChars, n)
	}
	switch {
	case (sc.Cron == "") == (sc.IntervalSeconds == 0):
		bad("cron", "give either cron or intervalSeconds")
	case sc.IntervalSeconds != 0 && (sc.IntervalSeconds < MinIntervalSeconds || sc.IntervalSeconds > MaxIntervalSeconds):
		bad("intervalSeconds", "must be between %d and %d", MinIntervalSeconds, MaxIntervalSeconds)
	case sc.IntervalSeconds != 0 && sc.TimeZone != "":
		bad("timeZone", "goes with cron")
	case sc.Cron != "":
		if _, err := loadZone(sc.TimeZone); err != nil {
			bad("timeZone", "must be the IANA name of a time zone, such as Europe/Berlin")
		} else if len(sc.Cron) > MaxCronBytes || len(strings.Fields(sc.Cron)) != 5 || !gronx.IsValid(sc.Cron) {
			bad("cron", "must be five fields (minute, hour, day of the month, month, day of the week) in at most %d bytes", MaxCronBytes)
		} else if sc.first(time.Now()) == nil {
			bad("cron", "never comes")
		}
	}
	switch sc.Overlap {
	case OverlapSkip, OverlapQueue, OverlapReplace:
	default:
		bad("overlap", "must be skip, queue or replace")
	}
	if sc.DeadlineSeconds < MinDeadlineSeconds || sc.DeadlineSeconds > MaxDeadlineSeconds {
		bad("startingDeadlineSeconds", "must be between %d and %d", MinDeadlineSeconds, MaxDeadlineSeconds)
	}
	for field, given := range map[string]bool{
		"runAfter": sc.Task.RunAfter != nil, "parentTaskId": sc.Task.ParentTaskID != nil, "dependsOn": len(sc.Task.DependsOn) > 0,
	} {
		if given {
			bad("task."+field, "makes no sense in a task that is submitted again and again")
		}
	}
	return found
}

// loadZone refuses the server's own zone, which is nobody's business.
func loadZone(name string) (*time.Location, error) {
	if name == "Local" || name == "" {
		return nil, fmt.Errorf("time zone %q is not one of IANA's", name)
	}
	return time.LoadLocation(name)
}

// timing returns when the schedule is due.
func (sc *Schedule) timing() (timing, error) {
	if sc.IntervalSeconds > 0 {
		return timing{every: time.Duration(sc.IntervalSeconds) * time.Second}, nil
	}
	zone, err := loadZone(sc.TimeZone)
	if err != nil {
		return timing{}, fmt.Errorf("read the times of schedule %s: %w", sc.ID, err)
	}
	return timing{cron: sc.Cron, zone: zone}, nil
}

// first returns the first tick of a schedule that begins now; nil: none.
func (sc *Schedule) first(now time.Time) *time.Time {
	g, err := sc.timing()
	if err != nil {
		return nil
	}
	if at, ok := g.after(now); ok {
		return &at
	}
	return nil
}

// Upcoming returns the next n ticks; none while it is paused.
func (sc *Schedule) Upcoming(n int) []time.Time {
	g, err := sc.timing()
	if err != nil {
		return nil
	}
	return g.upcoming(sc.NextAt, n)
}
