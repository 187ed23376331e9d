package task

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/batch"
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

	applied bool
	task    Task // as it is then: all of it with updateSQL
	done    chan error
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
	return s.apply(ctx, s.updates, ch)
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

// changeSQL writes changes of different tasks, and their events. A failed
// attempt that may be tried again becomes a task that waits for its next attempt,
// later each time: 1 s, 2 s, 4 s … at most 5 min, give or take a fifth so that
// tasks which failed together do not come back together.
var changeSQL = `
WITH before AS (
	SELECT id, lease, user_id, project_id, all_projects, any_worker, allowed::text[] AS allowed, status, waiting_reason, progress, output, error, reason, retryable, release, events
	FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::boolean[], $6::boolean[], $7::text[], $8::text[],
		$9::text[], $10::int[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::boolean[], $16::int[])
	AS b (id, lease, user_id, project_id, all_projects, any_worker, allowed, status, waiting_reason, progress, output, error, reason, retryable, release, events)
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
		` + requeueIfSQL("b.release") + `,
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
		AND (b.status <> '' OR t.last_seq + b.events <= $23)
	RETURNING ` + columns + `, t.last_txid, was.status AS was, b.status AS asked, b.events
), logged AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, progress, data)
	SELECT c.id, c.last_seq - c.events + e.place, c.last_txid, c.updated_at, e.type,
		CASE WHEN e.type = 'status' OR c.asked = '' THEN c.status ELSE c.was END, e.message, e.progress, e.data::json
	FROM changed c JOIN (
		SELECT ($1::uuid[])[e.change] AS id, e.* FROM unnest($17::int[], $18::int[], $19::text[], $20::text[], $21::int[], $22::text[])
		AS e (change, place, type, message, progress, data)
	) e USING (id)
), audited AS (
	` + audit.InsertSQL(24, `JOIN changed c ON c.id::text = entry.resource_id`, map[string]string{"project_id": "c.project_id"}) + `
)`

var (
	// updateSQL returns the tasks, reportSQL no more than their consequences take:
	// texts of megabytes are not read for an event.
	updateSQL = changeSQL + `
SELECT ` + columns + ` FROM changed t`
	reportSQL = changeSQL + `
SELECT id, waiting_reason FROM changed`
)

// About is the task that the change writes to.
func (ch *change) About() uuid.UUID { return ch.id }

// Size is how many bytes its texts have.
func (ch *change) Size() int {
	n := 0
	for _, text := range []*string{ch.output, ch.errorText} {
		if text != nil {
			n += len(*text)
		}
	}
	for _, e := range ch.events {
		n += rowBytes + len(e.Message) + len(e.Data)
	}
	return n
}

// rowBytes is what the row of an event costs besides its texts.
const rowBytes = 1 << 10

// eventArgs are events as parameters of a statement.
type eventArgs struct {
	types, messages []string
	progress        []*int
	data            []*string
}

func (c *eventArgs) add(e ReportEvent) {
	c.types, c.messages, c.progress = append(c.types, string(e.Type)), append(c.messages, e.Message), append(c.progress, e.Progress)
	var data *string
	if e.Data != nil {
		data = new(string(e.Data))
	}
	c.data = append(c.data, data)
}

// writeChanges writes those of the changes, which are of different tasks, that
// apply, and settles what depends on tasks that they end. It is one round trip.
func writeChanges(ctx context.Context, db interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}, sql string, changes []*change) (touched []settled, err error) {
	n := len(changes)
	ids, leases := make([]uuid.UUID, n), make([]*uuid.UUID, n)
	users, projects, allowed, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	statuses, waiting := make([]string, n), make([]string, n)
	everywhere, anybodys, retryable, release := make([]bool, n), make([]bool, n), make([]bool, n), make([]bool, n)
	progress, events := make([]*int, n), make([]int, n)
	outputs, faults := make([]*string, n), make([]*string, n)
	var (
		changeOf, places []int
		told             eventArgs
		entries          []audit.Entry
		ended            []uuid.UUID
	)
	byID := make(map[uuid.UUID]*change, n)
	for i, ch := range changes {
		byID[ch.id], ch.applied = ch, false
		ids[i], leases[i], users[i], projects[i], everywhere[i] = ch.id, ch.lease, ch.caller.UserID, ch.caller.ProjectID, ch.caller.AllProjects
		anybodys[i], allowed[i], statuses[i], waiting[i] = holderOf(ch.caller) == "", arrayOf(ch.allowed()), string(ch.status), string(ch.waitingReason)
		progress[i], outputs[i], faults[i], reasons[i] = ch.progress, ch.output, ch.errorText, ch.reason
		retryable[i], release[i], events[i] = ch.retryable, ch.release, len(ch.events)
		for place, e := range ch.events {
			changeOf, places = append(changeOf, i+1), append(places, place+1)
			told.add(e)
		}
		entries = append(entries, ch.entries...)
		if ch.status.Terminal() && ch.status != Cancelled { // which takes others along: see applyCancel
			ended = append(ended, ch.id)
		}
	}
	b := &pgx.Batch{}
	b.Queue(planSQL)
	b.Queue(sql, append([]any{
		ids, leases, users, projects, everywhere, anybodys, allowed, statuses,
		waiting, progress, outputs, faults, reasons, retryable, release, events,
		changeOf, places, told.types, told.messages, told.progress, told.data, MaxEvents,
	}, audit.Args(entries...)...)...).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByNameLax[Task])
		for _, t := range found {
			byID[t.ID].task, byID[t.ID].applied = t, true
		}
		return err
	})
	if len(ended) > 0 {
		queueSettle(b, ended, &touched)
	}
	return touched, db.SendBatch(ctx, b).Close()
}

// apply writes the change with a group, and tells of it: it shares its statement
// with others that come at the same time. A caller who leaves does not take the
// others along; the change may have been written, as whenever no answer arrives.
func (s *Service) apply(ctx context.Context, group *batch.Group[uuid.UUID, *change], ch change) (Task, error) {
	if ch.status == Cancelled {
		return s.applyCancel(ctx, ch)
	}
	ch.done = make(chan error, 1)
	if err := group.Add(&ch); err != nil {
		return Task{}, err
	}
	return s.await(ctx, &ch)
}

// await returns what has become of a change that a group writes.
func (s *Service) await(ctx context.Context, ch *change) (Task, error) {
	select {
	case err := <-ch.done:
		if err == nil && !ch.applied {
			err = s.explain(ctx, ch)
		}
		return ch.task, err
	case <-ctx.Done():
		return Task{}, ctx.Err()
	}
}

// flushChanges writes a group of changes, and tells of them, for a caller may
// have left. If it fails as a whole each is tried alone, so that a bad one fails
// alone.
func (s *Service) flushChanges(sql string, group []*change) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	// Rows are locked in one order, so that two servers do not wait for each
	// other.
	slices.SortFunc(group, func(a, b *change) int { return bytes.Compare(a.id[:], b.id[:]) })
	var touched []settled
	err := postgres.Retry(ctx, func() (err error) {
		touched, err = writeChanges(ctx, s.pool, sql, group)
		return err
	})
	if err != nil && len(group) > 1 && fault.CodeOf(err) != fault.Unavailable && ctx.Err() == nil {
		for _, ch := range group {
			s.flushChanges(sql, []*change{ch})
		}
		return
	}
	var ids []uuid.UUID
	for _, ch := range group {
		if err != nil || ch.applied { // an error leaves open whether it took place
			ids = append(ids, ch.id)
		}
		if err == nil && ch.applied {
			s.drawConsequences(ch)
		}
	}
	s.announceChanged(ids...)
	s.followUp(ctx, touched)
	if err != nil {
		err = audit.Fault(fmt.Errorf("change tasks: %w", err))
	}
	for _, ch := range group {
		ch.done <- err
	}
}

// drawConsequences pokes whoever has something to do after a change.
func (s *Service) drawConsequences(ch *change) {
	if ch.task.WaitingReason == ForRetry {
		poke(s.sweepSoon)
	}
	if ch.release || ch.status.Terminal() {
		s.leftRoom()
	}
	if ch.release {
		s.bus.Publish(stream.Signal{Topic: stream.WorkReady})
	}
}

// applyCancel is apply for a task that its submitter cancels, which takes others
// along.
func (s *Service) applyCancel(ctx context.Context, ch change) (Task, error) {
	var children []cancelled
	var touched []settled
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		if _, err = writeChanges(ctx, tx, updateSQL, []*change{&ch}); err != nil || !ch.applied {
			return err
		}
		children, touched, err = endTree(ctx, tx, ch.id)
		return err
	})
	if err == nil && !ch.applied {
		return Task{}, s.explain(ctx, &ch)
	}
	s.announceChanged(ch.id)
	if err != nil {
		return Task{}, audit.Fault(fmt.Errorf("change task %s: %w", ch.id, err))
	}
	s.drawConsequences(&ch)
	s.announceCancelled(children)
	s.followUp(ctx, touched)
	return ch.task, nil
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
func (s *Service) explain(ctx context.Context, ch *change) error {
	var st Status
	var dispatch Dispatch
	var userID, projectID string
	var lease *uuid.UUID
	var blockedBy int
	err := s.pool.QueryRow(ctx, `SELECT status, dispatch, user_id, project_id,
		CASE WHEN $2 IN ('', (SELECT owner FROM workers w WHERE w.id = worker_id)) THEN lease_token END, blocked_by FROM tasks WHERE id = $1`, ch.id, holderOf(ch.caller)).
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
