package task

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Whose turn it is.
//
// Within a project tasks are claimed by rank. It is made of a tag, as start-time
// fair queueing has it (Goyal, Vin, Cheng, 1996): a task's tag is one more than
// that of its session's last task that waits, and than the latest whose turn has
// come. So a session that submits ten thousand tasks at once stands
// with its second one behind the first of everybody who comes later. Priority
// moves a task ahead by so many turns, and no further: as turns are taken, every
// task's comes.
//
// Between projects whoever has the fewest running tasks comes first.
//
// Claims take place one after the other, on all servers: only so can limits be
// kept exactly. A task that a limit holds back is parked, out of the way of
// later claims, until the limit has room.

// priorityWorth is by how many turns a step of priority moves a task ahead.
const priorityWorth = 50

// claimLock is taken by whoever claims or unparks.
const claimLock = 0x7475726e // "turn"

// takeTurnsSQL waits until no other claim is under way, and is planSQL.
var takeTurnsSQL = planSQL + `, pg_advisory_xact_lock($1)`

// flowOf is whose tasks follow one another: a session's or, of those who have
// none, a user's.
const flowOf = `CASE session_id WHEN '' THEN user_id ELSE session_id END`

// nextSQL is the tag that follows the latest one in the project of t whose turn
// has come.
const nextSQL = `(SELECT 1 + v.tag FROM turns v WHERE v.project_id = t.project_id)`

// requeueSQL gives a task t that becomes claimable again a place no later than
// it had: whose turn it is may have begun anew meanwhile.
var requeueSQL = requeueIfSQL("true")

// requeueIfSQL is requeueSQL for a task that a condition holds for.
func requeueIfSQL(condition string) string {
	return fmt.Sprintf(`tag = CASE WHEN %[3]s THEN least(t.tag, %[1]s) ELSE t.tag END,
		rank = CASE WHEN %[3]s THEN least(t.tag, %[1]s) - %[2]d * t.priority ELSE t.rank END`, nextSQL, priorityWorth, condition)
}

// queuesSQL gives each row of input, which are new tasks, its tag.
var queuesSQL = fmt.Sprintf(`flows AS (
	SELECT t.project_id, t.flow, greatest(%[1]s, 1 + (
		SELECT max(q.tag) FROM tasks q WHERE q.claimable AND q.project_id = t.project_id AND (CASE q.session_id WHEN '' THEN q.user_id ELSE q.session_id END) = t.flow
	), 0) AS tag
	FROM (SELECT DISTINCT project_id, %[2]s AS flow FROM input) t
), queued AS (
	SELECT i.*, f.tag + row_number() OVER (PARTITION BY i.project_id, f.flow ORDER BY i.id) - 1 AS tag
	FROM input i JOIN flows f ON f.project_id = i.project_id AND f.flow = %[2]s
)`, nextSQL, flowOf)

// servesSQL says whether a worker w is there that could be given task t.
var servesSQL = fmt.Sprintf(`NOT w.draining AND w.last_seen_at > clock_timestamp() - %s
	AND (w.agents IS NULL OR t.agent_id = ANY (w.agents)) AND (w.only_agents IS NULL OR t.agent_id = ANY (w.only_agents))
	AND (w.projects IS NULL OR t.project_id = ANY (w.projects)) AND t.requires <@ w.labels AND t.labels @> w.only_labels`, presenceSQL)

var presenceSQL = fmt.Sprintf(`interval '%d seconds'`, int(presence.Seconds()))

// orphanedSQL says whether another worker than the one that left task t until
// people had answered may begin it anew: that one was not heard of since for so
// long that it is not there any more, or it would not be given the task.
var orphanedSQL = `t.updated_at < clock_timestamp() - ` + presenceSQL + ` AND NOT EXISTS (
	SELECT FROM workers w WHERE w.id = t.resume_worker AND ` + servesSQL + `)`

// tokensSQL is how many tokens the bucket of a limit l with a rate has been filled
// up to, but for the burst that bounds it; NULL without a rate.
const tokensSQL = `l.tokens + greatest(0, extract(epoch FROM clock_timestamp() - l.filled_at)) * l.rate_tasks / l.rate_seconds`

// ratesSQL is how many tasks of each agent with a rate may be begun now: as many
// tokens are in its bucket.
const ratesSQL = `rates AS MATERIALIZED (
	SELECT l.name AS agent_id, clock_timestamp() AS at, l.rate_tasks / l.rate_seconds::float8 AS per_second, least(l.rate_burst, ` + tokensSQL + `) AS tokens
	FROM concurrency_limits l WHERE l.rate_tasks IS NOT NULL
)`

// candidatesSQL finds whose turn it is, up to $3 tasks of those that the worker
// may be given, and for each the first limit that has no room, or the budget of
// which nothing is left, if there is one. A task that has used something goes on
// with its next attempt: it is stopped there, where people can be asked.
var candidatesSQL = `
projects (project_id) AS (
	SELECT (SELECT project_id FROM tasks WHERE claimable ORDER BY project_id LIMIT 1)
	UNION ALL
	SELECT (SELECT t.project_id FROM tasks t WHERE t.claimable AND t.project_id > p.project_id ORDER BY t.project_id LIMIT 1)
	FROM projects p WHERE p.project_id IS NOT NULL
), running AS MATERIALIZED (
	SELECT project_id, session_id, agent_id, concurrency_key, count(*) AS n
	FROM tasks WHERE lease_token IS NOT NULL GROUP BY 1, 2, 3, 4
), candidates AS MATERIALIZED (
	SELECT c.*, row_number() OVER (ORDER BY c.place + busy.n, c.rank, c.id) AS turn
	FROM projects p
	CROSS JOIN LATERAL (SELECT coalesce(sum(n), 0) AS n FROM running r WHERE r.project_id = p.project_id) busy
	CROSS JOIN LATERAL (
		SELECT t.id, t.project_id, t.session_id, t.agent_id, t.concurrency_key, t.concurrency_limit, t.rank, t.usage IS NULL AS unspent,
			row_number() OVER (ORDER BY t.rank, t.id) AS place
		FROM tasks t
		WHERE t.claimable AND t.project_id = p.project_id AND EXISTS (SELECT FROM worker)
			AND ((SELECT agents FROM worker) IS NULL OR t.agent_id = ANY ((SELECT agents FROM worker)::text[]))
			AND ((SELECT only_agents FROM worker) IS NULL OR t.agent_id = ANY ((SELECT only_agents FROM worker)::text[]))
			AND ((SELECT projects FROM worker) IS NULL OR t.project_id = ANY ((SELECT projects FROM worker)::text[]))
			AND t.requires <@ (SELECT labels FROM worker) AND t.labels @> (SELECT only_labels FROM worker)
			AND (t.waiting_reason <> 'resume' OR t.resume_worker = $1 OR ` + orphanedSQL + `)
		ORDER BY t.rank, t.id LIMIT $3
	) c
	WHERE p.project_id IS NOT NULL ORDER BY turn LIMIT $3
), ` + ratesSQL + `, judged AS MATERIALIZED (
	SELECT c.id, c.turn, CASE
		WHEN EXISTS (SELECT FROM pauses p WHERE p.kind = 'agent' AND p.name = c.agent_id) THEN 'paused-agent:' || c.agent_id
		WHEN EXISTS (SELECT FROM pauses p WHERE p.kind = 'session' AND p.name = c.session_id) THEN 'paused-session:' || c.session_id
		WHEN c.turn + (SELECT coalesce(sum(n), 0) FROM running)
			> (SELECT max_running FROM concurrency_limits WHERE kind = 'all') THEN 'all:'
		WHEN row_number() OVER (PARTITION BY c.project_id ORDER BY c.turn)
				+ (SELECT coalesce(sum(n), 0) FROM running r WHERE r.project_id = c.project_id)
			> (SELECT max_running FROM concurrency_limits WHERE kind = 'project' AND name IN ('', c.project_id) ORDER BY name DESC LIMIT 1)
			THEN 'project:' || c.project_id
		WHEN c.session_id <> '' AND row_number() OVER (PARTITION BY c.session_id ORDER BY c.turn)
				+ (SELECT coalesce(sum(n), 0) FROM running r WHERE r.session_id = c.session_id)
			> (SELECT max_running FROM concurrency_limits WHERE kind = 'session' AND name IN ('', c.session_id) ORDER BY name DESC LIMIT 1)
			THEN 'session:' || c.session_id
		WHEN row_number() OVER (PARTITION BY c.agent_id ORDER BY c.turn)
				+ (SELECT coalesce(sum(n), 0) FROM running r WHERE r.agent_id = c.agent_id)
			> (SELECT max_running FROM concurrency_limits WHERE kind = 'agent' AND name IN ('', c.agent_id) AND max_running IS NOT NULL ORDER BY name DESC LIMIT 1)
			THEN 'agent:' || c.agent_id
		WHEN c.concurrency_key <> '' AND row_number() OVER (PARTITION BY c.project_id, c.concurrency_key ORDER BY c.turn)
				+ (SELECT coalesce(sum(n), 0) FROM running r WHERE r.project_id = c.project_id AND r.concurrency_key = c.concurrency_key)
			> c.concurrency_limit
			THEN 'key:' || c.project_id || '/' || c.concurrency_key
		WHEN row_number() OVER (PARTITION BY c.agent_id ORDER BY c.turn) > (SELECT tokens FROM rates r WHERE r.agent_id = c.agent_id)
			THEN 'rate:' || c.agent_id
		WHEN c.unspent AND (SELECT EXISTS (SELECT FROM budgets)) THEN CASE
			WHEN c.project_id <> '' AND budget_exhausted('project', c.project_id) THEN 'project-budget:' || c.project_id
			WHEN c.session_id <> '' AND budget_exhausted('session', c.session_id) THEN 'session-budget:' || c.session_id
			ELSE '' END
		ELSE '' END AS held_by
	FROM candidates c
)`

// unparkSQL lets as many tasks as each limit has room for be claimed again.
var unparkSQL = `
WITH RECURSIVE ` + ratesSQL + `, held (by) AS (
	SELECT (SELECT parked_by FROM tasks WHERE parked_by <> '' AND completed_at IS NULL ORDER BY parked_by LIMIT 1)
	UNION ALL
	SELECT (SELECT t.parked_by FROM tasks t WHERE t.parked_by <> '' AND t.parked_by > held.by AND t.completed_at IS NULL ORDER BY t.parked_by LIMIT 1)
	FROM held WHERE held.by IS NOT NULL
), used AS MATERIALIZED (
	SELECT by, count(*) AS n
	FROM tasks, unnest(ARRAY['all:', 'project:' || project_id, 'session:' || session_id, 'agent:' || agent_id, 'key:' || project_id || '/' || concurrency_key]) AS by
	WHERE lease_token IS NOT NULL GROUP BY by
), room AS (
	-- Where there is no limit any more there is room for all.
	SELECT h.by, coalesce(CASE h.kind
		WHEN 'project-budget' THEN CASE WHEN budget_exhausted('project', h.name) THEN 0 END
		WHEN 'session-budget' THEN CASE WHEN budget_exhausted('session', h.name) THEN 0 END
		WHEN 'key' THEN (SELECT concurrency_limit FROM tasks WHERE parked_by = h.by AND parked_by <> '' AND completed_at IS NULL ORDER BY rank, id LIMIT 1)
		WHEN 'rate' THEN (SELECT floor(tokens)::int FROM rates r WHERE r.agent_id = h.name)
		WHEN 'paused-agent' THEN (SELECT 0 FROM pauses p WHERE p.kind = 'agent' AND p.name = h.name)
		WHEN 'paused-session' THEN (SELECT 0 FROM pauses p WHERE p.kind = 'session' AND p.name = h.name)
		ELSE (SELECT l.max_running FROM concurrency_limits l
			WHERE l.kind = h.kind AND l.max_running IS NOT NULL AND l.name IN ('', h.name) ORDER BY l.name DESC LIMIT 1)
		END, 100000) - coalesce(u.n, 0) AS n
	FROM (SELECT by, split_part(by, ':', 1) AS kind, substr(by, strpos(by, ':') + 1) AS name FROM held WHERE by IS NOT NULL) h LEFT JOIN used u USING (by)
), freed AS (
	UPDATE tasks t SET parked_by = '', claimable = true, ` + requeueSQL + `
	FROM room CROSS JOIN LATERAL (
		SELECT id FROM tasks WHERE parked_by = room.by AND parked_by <> '' AND completed_at IS NULL ORDER BY rank, id LIMIT greatest(room.n, 0)
	) next
	WHERE t.id = next.id AND t.parked_by <> '' AND t.completed_at IS NULL
	RETURNING t.waiting_reason
)
SELECT (SELECT count(*) FROM freed), (SELECT count(*) FROM freed WHERE waiting_reason = 'resume'), (SELECT count(*) FROM held WHERE by IS NOT NULL)`

// unpark lets parked tasks be claimed again as far as limits have room.
func (s *Service) unpark(ctx context.Context) error {
	var freed, resumable, groups int
	b := &pgx.Batch{}
	b.Queue(takeTurnsSQL, claimLock)
	b.Queue(unparkSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&freed, &resumable, &groups) })
	if err := postgres.Retry(ctx, func() error { return s.pool.SendBatch(ctx, b).Close() }); err != nil {
		return fmt.Errorf("unpark tasks: %w", err)
	}
	s.parked.Store(groups > 0)
	if freed > 0 {
		s.bus.Publish(stream.Signal{Topic: stream.WorkReady})
	}
	if resumable > 0 {
		s.bus.Publish(stream.Signal{Topic: stream.WorkResumable})
	}
	return nil
}

// leftRoom is called when a task has given up its lease.
func (s *Service) leftRoom() {
	if s.parked.Load() {
		poke(s.unparkSoon)
	}
}

// Limit is how many tasks may run at once, or be begun in a time, or both.
type Limit struct {
	Kind       LimitKind
	Name       string // "" with LimitAll, and for each that has no limit of its own
	MaxRunning *int   // nil: any number
	Rate       *Rate  // of an agent only, and of a named one; nil: any
	UpdatedAt  time.Time
	UpdatedBy  string
}

// Rate is how many tasks may be begun, an attempt counting as one: Tasks in
// Seconds, on average, and Burst at once.
type Rate struct {
	Tasks   int
	Seconds int
	Burst   int
}

// limitColumns are the fields of Limit.
const limitColumns = `kind, name, max_running, rate_tasks, rate_seconds, rate_burst, updated_at, updated_by`

func toLimit(row pgx.CollectableRow) (Limit, error) {
	var l Limit
	var tasks, seconds, burst *int
	err := row.Scan(&l.Kind, &l.Name, &l.MaxRunning, &tasks, &seconds, &burst, &l.UpdatedAt, &l.UpdatedBy)
	if tasks != nil {
		l.Rate = &Rate{Tasks: *tasks, Seconds: *seconds, Burst: *burst}
	}
	return l, err
}

// LimitKind says of what.
type LimitKind string

// The kinds of limits.
const (
	LimitAll     LimitKind = "all"
	LimitProject LimitKind = "project"
	LimitSession LimitKind = "session"
	LimitAgent   LimitKind = "agent"
)

// MaxLimit is the most that a limit can be.
const MaxLimit = 1_000_000

// MaxRateSeconds is the longest time that a rate can be about.
const MaxRateSeconds = 31 * 24 * 3600

// PutLimit bounds how many tasks run at once; those that run already go on.
//
// Faults: Invalid; Forbidden unless c administers everything.
func (s *Service) PutLimit(ctx context.Context, c policy.Caller, l Limit) (Limit, error) {
	if err := l.check(); err != nil {
		return Limit{}, err
	}
	var tasks, seconds, burst *int
	if l.Rate != nil {
		tasks, seconds, burst = &l.Rate.Tasks, &l.Rate.Seconds, new(cmp.Or(l.Rate.Burst, l.Rate.Tasks))
	}
	err := s.changeLimit(ctx, c, "limit.put", l, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			INSERT INTO concurrency_limits AS l (kind, name, max_running, updated_by, rate_tasks, rate_seconds, rate_burst, tokens, filled_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $7::int, CASE WHEN $7::int IS NOT NULL THEN clock_timestamp() END)
			ON CONFLICT (kind, name) DO UPDATE SET max_running = $3, updated_by = $4, updated_at = now(), rate_tasks = $5, rate_seconds = $6, rate_burst = $7,
				tokens = CASE WHEN $7::int IS NOT NULL THEN least($7::int, `+tokensSQL+`) END,
				filled_at = CASE WHEN $7::int IS NOT NULL THEN clock_timestamp() END
			RETURNING `+limitColumns, l.Kind, l.Name, l.MaxRunning, c.UserID, tasks, seconds, burst)
		if err != nil {
			return err
		}
		l, err = pgx.CollectExactlyOneRow(rows, toLimit)
		return err
	})
	return l, err
}

// DeleteLimit removes a limit. Faults: as of PutLimit, and NotFound.
func (s *Service) DeleteLimit(ctx context.Context, c policy.Caller, kind LimitKind, name string) error {
	return s.changeLimit(ctx, c, "limit.delete", Limit{Kind: kind, Name: name}, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM concurrency_limits WHERE kind = $1 AND name = $2`, kind, name)
		if err == nil && tag.RowsAffected() == 0 {
			return fault.New(fault.NotFound, "there is no such limit")
		}
		return err
	})
}

// Limits returns all limits, by kind and name.
func (s *Service) Limits(ctx context.Context) ([]Limit, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+limitColumns+` FROM concurrency_limits ORDER BY kind, name`)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list limits: %w", err))
	}
	limits, err := pgx.CollectRows(rows, toLimit)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list limits: %w", err))
	}
	return limits, nil
}

func (l Limit) check() error {
	var found []fault.Field
	switch l.Kind {
	case LimitAll:
		if l.Name != "" {
			found = append(found, fault.Field{Path: "path.name", Message: "is for limits of something"})
		}
	case LimitProject, LimitSession, LimitAgent:
		if l.Name != "" && !IsID(l.Name) {
			found = append(found, fault.Field{Path: "path.name", Message: "must be an id"})
		}
	default:
		found = append(found, fault.Field{Path: "path.kind", Message: "must be all, project, session or agent"})
	}
	bounds := func(field string, value, least, most int) {
		if value < least || value > most {
			found = append(found, fault.Field{Path: "body." + field, Message: fmt.Sprintf("must be between %d and %d", least, most)})
		}
	}
	if l.MaxRunning != nil {
		bounds("maxConcurrentTasks", *l.MaxRunning, 0, MaxLimit)
	}
	switch {
	case l.Rate == nil && l.MaxRunning == nil:
		found = append(found, fault.Field{Path: "body", Message: "must hold maxConcurrentTasks or rate"})
	case l.Rate != nil && (l.Kind != LimitAgent || l.Name == ""):
		found = append(found, fault.Field{Path: "body.rate", Message: "is for an agent, which must be named"})
	case l.Rate != nil:
		bounds("rate.tasks", l.Rate.Tasks, 1, MaxLimit)
		bounds("rate.perSeconds", l.Rate.Seconds, 1, MaxRateSeconds)
		bounds("rate.burst", l.Rate.Burst, 0, MaxLimit)
	}
	return fault.InvalidFields(found)
}

// changeLimit runs fn and writes the entry of the decision that allows it in one
// transaction. No claim takes place meanwhile.
func (s *Service) changeLimit(ctx context.Context, c policy.Caller, action string, l Limit, fn func(pgx.Tx) error) error {
	entry, err := s.allowOn(ctx, c, policy.Request{Permission: policy.AdminAll, Action: action},
		subject{"limit", string(l.Kind) + ":" + l.Name, "limits hold for the whole server"})
	if err != nil {
		return err
	}
	return s.betweenClaims(ctx, entry, fn)
}

// betweenClaims runs fn and writes the entry in one transaction, while no claim
// takes place. Tasks that are held back no more are then claimable again.
func (s *Service) betweenClaims(ctx context.Context, entry audit.Entry, fn func(pgx.Tx) error) error {
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, claimLock); err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return err
		}
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return audit.Fault(err)
	}
	poke(s.unparkSoon)
	return nil
}
