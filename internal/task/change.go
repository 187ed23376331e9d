package task

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Patch is a change of a manual or a leased task. What is zero or nil stays as
// it is.
type Patch struct {
	Lease         *uuid.UUID // by whose right; nil: the submitter's
	Status        Status
	WaitingReason WaitingReason // with Waiting; default ForInput
	Progress      *int          // clamped to 0-100
	Output        *string       // replaces the output
	Error         *string       // sets the status to Failed
	Message       string
	Data          json.RawMessage
}

// Report is what a worker says of a task that it holds a lease of.
type Report struct {
	Events   []ReportEvent
	Status   Status
	Progress *int
	Output   *string
	Error    string // with Failed
	Message  string // told with the change of status
	// Retryable says that a failed attempt may be tried again: while attempts
	// remain the task then waits for the next one.
	Retryable bool
	// Release gives the lease back with the work undone.
	Release bool
	// Reason names why a failed attempt did: timeout, silent, exit:75, ….
	Reason string
}

// ReportEvent is one event of a Report.
type ReportEvent struct {
	Type     EventType
	Message  string
	Progress *int
	Data     json.RawMessage
}

// change is one write: new values and the events that tell of it.
type change struct {
	id            uuid.UUID
	lease         *uuid.UUID    // by which worker's right; nil: the caller's
	caller        policy.Caller // whose the lease's worker must be; with lease nil: who must have submitted it
	entries       []audit.Entry // kept if the change applies
	status        Status        // "": as it is
	waitingReason WaitingReason
	progress      *int
	output        *string
	errorText     *string
	retryable     bool
	release       bool
	reason        string
	events        []ReportEvent
}

// allowed returns the statuses that the change may find.
func (ch *change) allowed() []Status {
	if ch.status == "" || ch.release {
		return open
	}
	return before(ch.status)
}

// Update changes a manual task on behalf of its submitter or, by the right of a
// lease, one that a worker of the caller's holds.
//
// It returns InvalidTransition for a step that the status machine does not
// have (a terminal task has none), NotFound if c does not see the task,
// Forbidden if it is not c's to drive, LeaseLost if the lease is held no more,
// and Conflict while tasks that it depends on are open.
func (s *Service) Update(ctx context.Context, c policy.Caller, id uuid.UUID, p Patch) (Task, error) {
	if err := p.check(); err != nil {
		return Task{}, err
	}
	ch := change{
		id: id, lease: p.Lease, caller: c,
		status: p.Status, waitingReason: p.WaitingReason,
		progress: clamped(p.Progress), output: p.Output, errorText: p.Error,
	}
	if p.Error != nil {
		ch.status = Failed
	}
	if ch.status == Waiting && ch.waitingReason == "" {
		ch.waitingReason = ForInput
	}
	ev := ReportEvent{Type: LogEvent, Message: p.Message, Progress: ch.progress, Data: p.Data}
	switch {
	case ch.status != "":
		ev.Type = StatusEvent
	case p.Output != nil:
		ev.Type = OutputEvent
		if ev.Message == "" {
			ev.Message = cut(*p.Output, MaxMessageBytes)
		}
	case p.Progress != nil:
		ev.Type = ProgressEvent
	}
	ch.events = []ReportEvent{ev}
	d := policy.Decision{Allowed: true, Layer: policy.LayerPermission, Reason: "submitted by the caller"}
	if p.Lease != nil {
		d.Reason = "leased to a worker of the caller's"
	}
	ch.entries = []audit.Entry{audit.NewEntry(c, actionUpdate, resourceType, id.String(), d)}
	return s.apply(ctx, ch)
}

// Report records what a worker says under a lease. It returns LeaseLost, and
// changes nothing, if the lease is held no more, or by another principal's
// worker.
func (s *Service) Report(ctx context.Context, c policy.Caller, id, lease uuid.UUID, r Report) error {
	ch := change{
		id: id, lease: &lease, caller: c, status: r.Status, progress: clamped(r.Progress), output: r.Output,
		retryable: r.Retryable, release: r.Release, events: slices.Clone(r.Events),
	}
	switch {
	case r.Release:
		ch.status, ch.waitingReason = Waiting, ForWorker
	case r.Status == Waiting:
		ch.waitingReason = ForInput
	}
	switch {
	case r.Status == Failed:
		ch.errorText = &r.Error
	case r.Status == Completed && r.Progress == nil:
		ch.progress = clamped(new(100))
	}
	if r.Reason != "" && !reasonForm.MatchString(r.Reason) {
		return fault.InvalidFields([]fault.Field{{Path: "body.reason", Message: "must be lower-case letters, digits, colons and dashes"}})
	}
	switch {
	case r.Release:
		ch.reason = ReasonReleased
	case r.Status == Failed:
		ch.reason = cmp.Or(r.Reason, "failed")
	}
	if ch.status != "" {
		e := ReportEvent{Type: StatusEvent, Message: r.Message, Progress: ch.progress}
		if ch.reason != "" {
			var err error
			if e.Data, err = json.Marshal(attemptData{Reason: ch.reason}); err != nil {
				return fmt.Errorf("encode reason: %w", err)
			}
		}
		ch.events = append(ch.events, e)
	}
	for i := range ch.events {
		e := &ch.events[i]
		e.Progress = clamped(e.Progress)
		if e.Type == ProgressEvent && e.Progress != nil && r.Progress == nil {
			ch.progress = e.Progress
		}
		if len(e.Message) > MaxMessageBytes {
			return fault.InvalidFields([]fault.Field{{Path: fmt.Sprintf("body.events[%d].message", i),
				Message: fmt.Sprintf("must have at most %d bytes, has %d", MaxMessageBytes, len(e.Message))}})
		}
	}
	if len(ch.events) == 0 {
		return nil
	}
	_, err := s.apply(ctx, ch)
	return err
}

func (p *Patch) check() error {
	var found []fault.Field
	bad := func(field, format string, args ...any) {
		found = append(found, fault.Field{Path: "body." + field, Message: fmt.Sprintf(format, args...)})
	}
	if p.Status == "" && p.Progress == nil && p.Output == nil && p.Error == nil && p.Message == "" && p.Data == nil {
		return fault.InvalidFields([]fault.Field{{Path: "body", Message: "must change something"}})
	}
	if p.Status != "" && (!p.Status.Known() || p.Status == Pending) {
		bad("status", "must be planning, running, waiting, completed, failed or cancelled")
	}
	if p.Error != nil && p.Status != "" && p.Status != Failed {
		bad("error", "goes with status failed, not %s", p.Status)
	}
	if p.WaitingReason != "" {
		switch {
		case p.Status != Waiting:
			bad("waitingReason", "goes with status waiting")
		case p.WaitingReason != ForInput && p.WaitingReason != ForApproval && p.WaitingReason != ForDependency:
			bad("waitingReason", "must be input, approval or dependency")
		}
	}
	for _, text := range []struct {
		field string
		value *string
		limit int
	}{{"output", p.Output, MaxOutputBytes}, {"error", p.Error, MaxErrorBytes}, {"message", &p.Message, MaxMessageBytes}} {
		if text.value != nil && len(*text.value) > text.limit {
			bad(text.field, "must have at most %d bytes, has %d", text.limit, len(*text.value))
		}
	}
	if message := objectFault(p.Data); message != "" {
		bad("data", "%s", message)
	}
	return fault.InvalidFields(found)
}

func clamped(percent *int) *int {
	if percent == nil {
		return nil
	}
	p := min(max(*percent, 0), 100)
	return &p
}

// cut shortens s to at most limit bytes, at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// changeSQL writes one change and its events. A failed attempt that may be
// tried again becomes a task that waits for its next attempt, later each time:
// 1 s, 2 s, 4 s … at most 5 min, give or take a fifth so that tasks which
// failed together do not come back together.
var changeSQL = `
WITH before AS (
	SELECT $1::uuid AS id, $2::uuid AS lease, $3::text AS user_id, $18::text AS project_id, $19::boolean AS all_projects, $4::text[] AS allowed, $5::text AS status,
		$6::text AS waiting_reason, $7::int AS progress, $8::text AS output, $9::text AS error,
		$10::boolean AS retryable, $11::boolean AS release, $12::int AS events, $20::boolean AS any_worker, $21::text AS reason
), changed AS (
	UPDATE tasks t SET
		status = CASE
			WHEN r.again THEN 'waiting'
			WHEN b.status = '' THEN t.status ELSE b.status END,
		waiting_reason = CASE
			WHEN r.again THEN 'retry'
			WHEN b.status = '' THEN t.waiting_reason ELSE b.waiting_reason END,
		run_after = CASE
			WHEN r.again THEN clock_timestamp() + least(2 ^ (t.attempt - 1), 300) * (0.8 + 0.4 * random()) * interval '1 second'
			ELSE t.run_after END,
		claimable = b.release,
		tag = CASE WHEN b.release THEN least(t.tag, ` + nextSQL + `) ELSE t.tag END,
		rank = CASE WHEN b.release THEN least(t.tag, ` + nextSQL + `) - ` + strconv.Itoa(priorityWorth) + ` * t.priority ELSE t.rank END,
		progress = coalesce(b.progress, t.progress),
		output = coalesce(b.output, t.output),
		error = coalesce(b.error, t.error),
		status_reason = CASE WHEN b.status = '' THEN t.status_reason ELSE b.reason END,
		started_at = CASE WHEN b.status IN ('planning', 'running') THEN coalesce(t.started_at, clock_timestamp()) ELSE t.started_at END,
		completed_at = CASE
			WHEN r.again THEN NULL
			WHEN b.status IN ('completed', 'failed', 'cancelled') THEN clock_timestamp() END,
		lease_token = CASE WHEN b.release OR b.status IN ('completed', 'failed', 'cancelled') THEN NULL ELSE t.lease_token END,
		lease_expires_at = CASE WHEN b.release OR b.status IN ('completed', 'failed', 'cancelled') THEN NULL ELSE t.lease_expires_at END,
		updated_at = clock_timestamp(),
		last_seq = t.last_seq + b.events,
		last_txid = greatest(t.last_txid, pg_current_xact_id())
	FROM before b JOIN tasks was USING (id) CROSS JOIN LATERAL (
		SELECT b.status = 'failed' AND b.retryable AND was.attempt < was.max_attempts
			AND (was.retry_on = '{}' OR b.reason = ANY (was.retry_on)) AS again
	) r
	WHERE t.id = b.id
		AND CASE WHEN b.lease IS NULL
			THEN t.dispatch = 'manual' AND t.user_id = b.user_id AND (b.all_projects OR t.project_id = b.project_id)
			ELSE t.lease_token = b.lease AND (b.any_worker OR EXISTS (SELECT FROM workers w WHERE w.id = t.worker_id AND w.owner = b.user_id)) END
		AND t.status = ANY (b.allowed)
		AND (t.blocked_by = 0 OR b.status NOT IN ('planning', 'running', 'completed'))
		AND (b.status <> '' OR t.last_seq + b.events <= $17)
	RETURNING ` + columns + `, t.last_txid, was.status AS was
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, progress, data)
	SELECT c.id, c.last_seq - $12 + e.place, c.last_txid, c.updated_at, e.type,
		CASE WHEN e.type = 'status' OR $5 = '' THEN c.status ELSE c.was END, e.message, e.progress, e.data::json
	FROM changed c, unnest($13::text[], $14::text[], $15::int[], $16::text[]) WITH ORDINALITY AS e (type, message, progress, data, place)
), audited AS (
	` + audit.InsertSQL(22, `JOIN changed c ON true`, map[string]string{"project_id": "c.project_id"}) + `
)
SELECT ` + columns + ` FROM changed t`

// apply writes the change and tells of it.
func (s *Service) apply(ctx context.Context, ch change) (Task, error) {
	n := len(ch.events)
	types, messages := make([]string, n), make([]string, n)
	progress, data := make([]*int, n), make([]*string, n)
	for i, e := range ch.events {
		types[i], messages[i], progress[i] = string(e.Type), e.Message, e.Progress
		if e.Data != nil {
			d := string(e.Data)
			data[i] = &d
		}
	}
	var t Task
	var touched []settled
	var children []cancelled
	// A batch is one round trip and one transaction. Only a cancelled task takes
	// others along and needs more.
	send := func(send func(*pgx.Batch) pgx.BatchResults) error {
		touched = nil
		batch := &pgx.Batch{}
		batch.Queue(changeSQL, append([]any{
			ch.id, ch.lease, ch.caller.UserID, ch.allowed(), ch.status,
			ch.waitingReason, ch.progress, ch.output, ch.errorText, ch.retryable, ch.release, n,
			types, messages, progress, data, MaxEvents, ch.caller.ProjectID, ch.caller.AllProjects, ownerOf(ch.caller) == "", ch.reason,
		}, audit.Args(ch.entries...)...)...).Query(func(rows pgx.Rows) (err error) {
			t, err = pgx.CollectExactlyOneRow(rows, toTask)
			return err
		})
		if ch.status.Terminal() && ch.status != Cancelled {
			queueSettle(batch, []uuid.UUID{ch.id}, &touched)
		}
		return send(batch).Close()
	}
	var err error
	if ch.status == Cancelled {
		err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
			err = send(func(b *pgx.Batch) pgx.BatchResults { return tx.SendBatch(ctx, b) })
			if err != nil {
				return err
			}
			children, touched, err = endTree(ctx, tx, ch.id)
			return err
		})
	} else {
		err = postgres.Retry(ctx, func() error {
			return send(func(b *pgx.Batch) pgx.BatchResults { return s.pool.SendBatch(ctx, b) })
		})
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return Task{}, s.explain(ctx, ch)
	}
	// Also after an error, which leaves open whether the change took place.
	s.announceChanged(ch.id)
	if err != nil {
		return Task{}, audit.Fault(fmt.Errorf("change task %s: %w", ch.id, err))
	}
	s.announceCancelled(children)
	if t.WaitingReason == ForRetry {
		poke(s.sweepSoon)
	}
	if ch.release || ch.status.Terminal() || ch.status == Failed {
		s.leftRoom()
	}
	if ch.release {
		s.bus.Publish(stream.Signal{Topic: stream.WorkReady})
	}
	s.followUp(ctx, touched)
	return t, nil
}

// announceChanged tells followers of changed tasks.
func (s *Service) announceChanged(ids ...uuid.UUID) {
	signals := make([]stream.Signal, len(ids))
	for i, id := range ids {
		signals[i] = stream.Signal{Topic: stream.TaskChanged, ID: id.String()}
	}
	s.bus.Publish(signals...)
}

// explain finds out why a change did not apply.
func (s *Service) explain(ctx context.Context, ch change) error {
	var st Status
	var dispatch Dispatch
	var userID, projectID string
	var lease *uuid.UUID
	var blockedBy int
	err := s.pool.QueryRow(ctx, `SELECT status, dispatch, user_id, project_id,
		CASE WHEN $2 IN ('', (SELECT owner FROM workers w WHERE w.id = worker_id)) THEN lease_token END, blocked_by FROM tasks WHERE id = $1`, ch.id, ownerOf(ch.caller)).
		Scan(&st, &dispatch, &userID, &projectID, &lease, &blockedBy)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && ch.lease == nil && !ch.caller.Sees(projectID, userID):
		return noTask(ch.id)
	case err != nil:
		return postgres.Fault(fmt.Errorf("read task %s: %w", ch.id, err))
	case ch.lease != nil && (lease == nil || *lease != *ch.lease):
		return fault.New(fault.LeaseLost, "the lease of task %s is held no more", ch.id)
	case ch.lease == nil && dispatch == Auto:
		return s.refuse(ctx, ch.caller, actionUpdate, ch.id, "it is dispatched to workers: only the holder of its lease reports on it")
	case ch.lease == nil && userID != ch.caller.UserID:
		return s.refuse(ctx, ch.caller, actionUpdate, ch.id, "it is driven by whoever submitted it")
	case st.Terminal():
		return fault.New(fault.InvalidTransition, "task %s is %s, which is final", ch.id, st)
	case !slices.Contains(ch.allowed(), st):
		return fault.New(fault.InvalidTransition, "a %s task cannot become %s", st, ch.status)
	case blockedBy > 0:
		return fault.New(fault.Conflict, "task %s waits for %d tasks that it depends on", ch.id, blockedBy)
	case ch.status == "":
		return fault.New(fault.TooMany, "task %s has %d events, the most that a task can have", ch.id, MaxEvents)
	}
	return fault.New(fault.Conflict, "task %s was changed by somebody else meanwhile; try again", ch.id)
}

func noTask(id uuid.UUID) error { return fault.New(fault.NotFound, "no task %s", id) }
