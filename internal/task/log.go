package task

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// The bounds of what is read of one log at a time.
const (
	readLimit = 500
	readBytes = 1 << 20
	// largestEvent is more than an event can take, in readBytes' terms.
	largestEvent = MaxMessageBytes + MaxDataBytes + 1024
)

// Events returns up to limit events of the task, oldest first, that come after
// the one with the number after. It returns NotFound if there is no such task.
func (s *Service) Events(ctx context.Context, c policy.Caller, id uuid.UUID, after int64, limit int) (events []Event, err error) {
	err = s.read(ctx, c, `SELECT `+eventColumns+` FROM task_events e JOIN tasks t ON t.id = e.task_id AND `+confined+`
		WHERE e.task_id = @id AND e.seq > @after ORDER BY e.seq LIMIT @limit`,
		pgx.NamedArgs{"id": id, "after": after, "limit": limit}, func(rows pgx.Rows) (err error) {
			events, err = pgx.CollectRows(rows, toEvent)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read events of task %s: %w", id, err)
	}
	if len(events) == 0 {
		if _, err := s.Get(ctx, c, id); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// History is a part of a task's history, oldest first.
type History struct {
	Events []Event
	More   bool // there are later ones
}

// withinBytes numbers the rows of an ordered event query by the bytes before
// them, so that what is read at once is bounded in memory too.
const withinBytes = `sum(octet_length(message) + coalesce(octet_length(data::text), 0) + 128) OVER `

// EventsAfter returns, for several tasks at once, events that come after the
// given number: of each up to 500, or about a megabyte.
func (s *Service) EventsAfter(ctx context.Context, after map[uuid.UUID]int64) (map[uuid.UUID]History, error) {
	type row struct {
		Event
		Bytes int64
	}
	ids, seqs := make([]uuid.UUID, 0, len(after)), make([]int64, 0, len(after))
	for id, seq := range after {
		ids, seqs = append(ids, id), append(seqs, seq)
	}
	rows, err := s.pool.Query(ctx, `SELECT `+eventColumns+`, e.bytes
		FROM unnest($1::uuid[], $2::bigint[]) AS w (id, after)
		CROSS JOIN LATERAL (
			SELECT *, (`+withinBytes+`(ORDER BY seq))::bigint AS bytes FROM (
				SELECT * FROM task_events WHERE task_id = w.id AND seq > w.after ORDER BY seq LIMIT $3
			) recent
		) e WHERE e.bytes <= $4 OR e.seq = w.after + 1 ORDER BY e.task_id, e.seq`, ids, seqs, readLimit, readBytes)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("read events: %w", err))
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("read events: %w", err))
	}
	found := make(map[uuid.UUID]History, len(after))
	for _, e := range events {
		h := found[e.TaskID]
		h.Events = append(h.Events, e.Event)
		h.More = len(h.Events) == readLimit || e.Bytes > readBytes-largestEvent
		found[e.TaskID] = h
	}
	return found, nil
}

// Position is a place in the log of all events. The zero Position is before
// the first.
type Position struct {
	Tx  uint64
	Pos int64
}

// LogEntry is an event in the log of all events, with what filters look at.
type LogEntry struct {
	Event
	Position Position
	Task     Attributes
}

// Attributes are the fields of a task that filters look at and that never
// change.
type Attributes struct {
	AgentID      string
	SessionID    string
	ProjectID    string
	UserID       string
	ParentTaskID *uuid.UUID
	ScheduleID   *uuid.UUID
	Labels       map[string]string
	Description  string
	TaskCreated  time.Time
}

// Ends returns the place after everything that is settled by now, and the oldest
// place after which nothing is missing: events from before may be past
// retention.
func (s *Service) Ends(ctx context.Context) (head, oldest Position, err error) {
	var forgotten uint64
	err = s.pool.QueryRow(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot()), forgotten FROM task_log`).Scan(&head.Tx, &forgotten)
	if err != nil {
		return head, oldest, postgres.Fault(fmt.Errorf("read the ends of the log: %w", err))
	}
	if forgotten > 0 {
		oldest.Tx = forgotten + 1
	}
	return head, oldest, nil
}

// ReadLog returns up to 500 events, or about a megabyte, of all tasks that come after a place, in an
// order that is the same for every reader and keeps each task's own. more says
// that there are further ones; unsettled, that there are some whose place is
// not final yet.
//
// Only events below the oldest running transaction are returned: a transaction
// that commits late cannot put one before a place that a reader has passed.
func (s *Service) ReadLog(ctx context.Context, after Position) (entries []LogEntry, more, unsettled bool, err error) {
	type row struct {
		Event
		Txid     uint64
		Position int64
		Attributes
		Bytes     int64
		Unsettled bool
	}
	// One statement has one snapshot: the horizon is that of the rows it sees.
	rows, err := s.pool.Query(ctx, `
		WITH horizon AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS txid)
		SELECT `+eventColumns+`, e.txid, e.position, t.agent_id, t.session_id, t.project_id, t.user_id, t.parent_task_id, t.schedule_id,
			t.labels, t.description, t.created_at AS task_created, e.bytes, e.txid >= (SELECT txid FROM horizon) AS unsettled
		FROM (
			SELECT *, (`+withinBytes+`(ORDER BY txid, position))::bigint AS bytes, row_number() OVER (ORDER BY txid, position) AS place FROM (
				SELECT * FROM task_events WHERE (txid, position) > ($1, $2) ORDER BY txid, position LIMIT $3
			) recent
		) e JOIN tasks t ON t.id = e.task_id
		WHERE e.bytes <= $4 OR e.place = 1
		ORDER BY e.txid, e.position`, after.Tx, after.Pos, readLimit, readBytes)
	if err != nil {
		return nil, false, false, postgres.Fault(fmt.Errorf("read the log: %w", err))
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		return nil, false, false, postgres.Fault(fmt.Errorf("read the log: %w", err))
	}
	for _, r := range found {
		if r.Unsettled {
			return entries, false, true, nil
		}
		more = r.Bytes > readBytes-largestEvent
		entries = append(entries, LogEntry{Event: r.Event, Position: Position{r.Txid, r.Position}, Task: r.Attributes})
	}
	return entries, more || len(found) == readLimit, false, nil
}

// restoreOrder makes the order of events right after a restore from a dump:
// the ids of transactions start anew in another cluster, and what was written
// before would seem to lie in the future.
func (s *Service) restoreOrder(ctx context.Context) error {
	var foreign bool
	err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM task_events WHERE txid > pg_snapshot_xmax(pg_current_snapshot()))`).Scan(&foreign)
	if err == nil && foreign {
		s.log.WarnContext(ctx, "the database was restored from a dump: cursors of GET /v1/stream from before start over")
		_, err = s.pool.Exec(ctx, `
			WITH earlier AS (UPDATE tasks SET last_txid = '3' WHERE last_txid > pg_snapshot_xmax(pg_current_snapshot())),
			log AS (UPDATE task_log SET forgotten = '0')
			UPDATE task_events SET txid = '3' WHERE txid > pg_snapshot_xmax(pg_current_snapshot())`)
	}
	if err != nil {
		return postgres.Fault(fmt.Errorf("restore the order of events: %w", err))
	}
	return nil
}
