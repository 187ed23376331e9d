package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// MaxReplay is how many events are queued again at a time.
	MaxReplay = 10_000
	// keepDeliveries is how long deliveries are known, sent or not.
	keepDeliveries = 30 * 24 * time.Hour
	tidyBatch      = 5000
)

// Delivery is an event that a webhook is or was sent.
type Delivery struct {
	TaskID         uuid.UUID
	Seq            int64
	Number         int64  // orders those of a webhook by when they were queued
	Status         string // pending, delivered or dead
	Event          string // the task's status that it tells of; "": the task was forgotten
	Attempts       int
	CreatedAt      time.Time
	DueAt          *time.Time
	AttemptedAt    *time.Time
	EndedAt        *time.Time
	ResponseStatus int // of the last attempt; 0: no answer
	DurationMs     int
	Error          string
	Response       string
}

// ID is the id that it is sent with.
func (d Delivery) ID() string { return MessageID(d.TaskID, d.Seq) }

// Type is that of the event; "": the task was forgotten.
func (d Delivery) Type() string {
	if d.Event == "" {
		return ""
	}
	return typePrefix + d.Event
}

var deliverySQL = `SELECT d.task_id, d.seq, d.number, d.status, coalesce(e.status, '') AS event, d.attempts, d.created_at, d.due_at, d.attempted_at, d.ended_at,
		d.response_status, d.duration_ms, d.error, d.response
	FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id LEFT JOIN task_events e ON e.task_id = d.task_id AND e.seq = d.seq
	WHERE d.webhook_id = @id AND ` + confined

// Deliveries returns up to limit deliveries of a webhook, newest first, that
// were queued before the one with the number before; with a status, those that
// have it. more says that there are further ones. It returns NotFound if c does
// not see the webhook.
func (s *Service) Deliveries(ctx context.Context, c policy.Caller, id uuid.UUID, status string, before int64, limit int) (all []Delivery, more bool, err error) {
	if _, err := s.Webhook(ctx, c, id); err != nil {
		return nil, false, err
	}
	var with string
	if status != "" {
		// As it stands in the index of the dead ones.
		with = map[string]string{"pending": ` AND d.status = 'pending'`, "delivered": ` AND d.status = 'delivered'`, "dead": ` AND d.status = 'dead'`}[status]
		if with == "" {
			return nil, false, fault.InvalidFields([]fault.Field{{Path: "query.status", Message: "must be pending, delivered or dead"}})
		}
	}
	all, err = s.deliveries(ctx, c, with+` AND d.number < @before ORDER BY d.number DESC LIMIT @limit`, pgx.NamedArgs{"id": id, "before": before, "limit": limit + 1})
	if err != nil {
		return nil, false, fmt.Errorf("list deliveries of webhook %s: %w", id, err)
	}
	if more = len(all) > limit; more {
		all = all[:limit]
	}
	return all, more, nil
}

func (s *Service) deliveries(ctx context.Context, c policy.Caller, with string, args pgx.NamedArgs) (all []Delivery, err error) {
	err = s.read(ctx, c, deliverySQL+with, args, func(rows pgx.Rows) (err error) {
		all, err = pgx.CollectRows(rows, pgx.RowToStructByName[Delivery])
		return err
	})
	return all, err
}

// anewSQL makes a delivery that is over one that was just queued.
const anewSQL = ` status = 'pending', due_at = now(), ended_at = NULL, attempts = 0, claim = NULL`

// Retry has a delivery tried again, from the first attempt on; one that waits
// for its next attempt is tried at once. Faults: NotFound, Forbidden.
func (s *Service) Retry(ctx context.Context, c policy.Caller, id uuid.UUID, delivery string) (Delivery, error) {
	missing := fault.New(fault.NotFound, "webhook %s has no such delivery", id)
	task, seq, ok := parseMessageID(delivery)
	if !ok {
		if _, err := s.Webhook(ctx, c, id); err != nil {
			return Delivery{}, err
		}
		return Delivery{}, missing
	}
	err := s.change(ctx, c, id, actionRetry, map[string]any{"delivery": delivery}, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE webhook_deliveries SET`+anewSQL+` WHERE task_id = $1 AND seq = $2 AND webhook_id = $3 AND claim IS NULL`, task, seq, id)
		if err != nil || tag.RowsAffected() > 0 {
			return err
		}
		// It is being sent this moment, or there is none.
		var there bool
		err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM webhook_deliveries WHERE task_id = $1 AND seq = $2 AND webhook_id = $3)`, task, seq, id).Scan(&there)
		if err == nil && !there {
			return missing
		}
		return err
	})
	if err != nil {
		return Delivery{}, err
	}
	poke(s.dueSoon)
	found, err := s.deliveries(ctx, c, ` AND d.task_id = @task AND d.seq = @seq`, pgx.NamedArgs{"id": id, "task": task, "seq": seq})
	if err != nil {
		return Delivery{}, fmt.Errorf("read a delivery of webhook %s: %w", id, err)
	}
	if len(found) == 0 {
		return Delivery{}, missing
	}
	return found[0], nil
}

// replaySQL queues the events from $2 to before $3 that a webhook is about, up to $4,
// the oldest first.
const replaySQL = `
WITH past AS MATERIALIZED (
	SELECT e.task_id, e.seq, e.created_at FROM webhooks w JOIN task_events e ON e.type = 'status' AND e.created_at >= $2 AND e.created_at < $3
		JOIN tasks t ON t.id = e.task_id
	WHERE w.id = $1 AND ` + concerns + ` ORDER BY e.created_at, e.task_id, e.seq LIMIT $4
), queued AS (
	INSERT INTO webhook_deliveries AS d (task_id, seq, webhook_id) SELECT task_id, seq, $1 FROM past ORDER BY created_at, task_id, seq
	ON CONFLICT ON CONSTRAINT webhook_deliveries_pkey DO UPDATE SET` + anewSQL + ` WHERE d.status <> 'pending'
	RETURNING 1
)
SELECT (SELECT count(*) FROM queued), CASE WHEN (SELECT count(*) FROM past) = $4 THEN (SELECT max(created_at) FROM past) END`

// Replay queues the events of a time that a webhook is about, whether it was
// sent them or not, with the ids that they have had. next, if not nil, is from
// when on there may be more. Faults: Invalid, NotFound, Forbidden.
func (s *Service) Replay(ctx context.Context, c policy.Caller, id uuid.UUID, since time.Time, until *time.Time) (queued int, next *time.Time, err error) {
	end := time.Now()
	if until != nil {
		end = *until
	}
	if !since.Before(end) || since.Before(time.Now().Add(-keepDeliveries)) {
		return 0, nil, fault.InvalidFields([]fault.Field{{Path: "body.since", Message: fmt.Sprintf("must be before until, and within the last %d days", int(keepDeliveries.Hours()/24))}})
	}
	err = s.change(ctx, c, id, actionReplay, map[string]any{"since": since.UTC(), "until": end.UTC()}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, replaySQL, id, since, end, MaxReplay).Scan(&queued, &next)
	})
	if err != nil {
		return 0, nil, err
	}
	poke(s.dueSoon)
	return queued, next, nil
}

// Attempt is what came of one attempt.
type Attempt struct {
	At             time.Time
	Delivered      bool
	ResponseStatus int // 0: no answer
	Duration       time.Duration
	Error          string
	Response       string
}

// Test sends a webhook an event of the type webhook.ping, at once and once, also
// while it is disabled. Faults: NotFound, Forbidden.
func (s *Service) Test(ctx context.Context, c policy.Caller, id uuid.UUID) (Attempt, error) {
	var target string
	var secrets [2]string
	err := s.change(ctx, c, id, actionTest, nil, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT url, secret, CASE WHEN former_until > now() THEN former_secret ELSE '' END FROM webhooks WHERE id = $1`, id).
			Scan(&target, &secrets[0], &secrets[1])
	})
	if err != nil {
		return Attempt{}, err
	}
	at := time.Now().UTC()
	body, err := json.Marshal(map[string]any{"type": "webhook.ping", "timestamp": at, "data": map[string]string{"webhookId": id.String()}})
	if err != nil {
		return Attempt{}, fmt.Errorf("encode a ping: %w", err)
	}
	o, err := s.post(ctx, target, secrets[:], "ping_"+strings.ReplaceAll(uuid.NewString(), "-", ""), body)
	if err != nil {
		return Attempt{}, fmt.Errorf("test webhook %s: %w", id, err)
	}
	return Attempt{At: at, Delivered: o.delivered, ResponseStatus: o.status, Duration: o.took, Error: o.err, Response: o.response}, nil
}

// OldestDue is for how long the delivery that has waited longest could have been
// sent; 0: none waits.
func (s *Service) OldestDue(ctx context.Context) (time.Duration, error) {
	if !s.active.Load() {
		return 0, nil
	}
	var seconds *float64
	err := s.pool.QueryRow(ctx, `SELECT extract(epoch FROM now() - min(d.due_at))::float8 FROM webhooks w CROSS JOIN LATERAL (
		SELECT due_at FROM webhook_deliveries WHERE webhook_id = w.id AND due_at <= now() ORDER BY due_at LIMIT 1) d WHERE w.enabled`).Scan(&seconds)
	if err != nil {
		return 0, postgres.Fault(fmt.Errorf("look for the oldest delivery: %w", err))
	}
	if seconds == nil {
		return 0, nil
	}
	return time.Duration(*seconds * float64(time.Second)), nil
}

// tidy forgets old deliveries until ctx ends.
func (s *Service) tidy(ctx context.Context) {
	for {
		for more := true; more; {
			var err error
			if more, err = s.forget(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "webhooks: old deliveries not forgotten", "error", err)
			}
		}
		if !pause(ctx, tidyInterval) {
			return
		}
	}
}

// forget forgets a batch of deliveries that were queued long ago, sent or not,
// and reports whether there may be more.
func (s *Service) forget(ctx context.Context) (more bool, err error) {
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		more = false
		tag, err := tx.Exec(ctx, `DELETE FROM webhook_deliveries WHERE (task_id, seq, webhook_id) IN (
			SELECT task_id, seq, webhook_id FROM webhook_deliveries WHERE created_at < now() - $1::interval ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, keepDeliveries, tidyBatch)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		more = tag.RowsAffected() == tidyBatch
		e := audit.NewEntry(policy.Caller{UserID: "system"}, "webhook.forget", resourceType, "", policy.Decision{Allowed: true, Reason: "retention"})
		if e.Details, err = json.Marshal(map[string]any{"deliveries": tag.RowsAffected()}); err != nil {
			return err
		}
		return audit.Append(ctx, tx, e)
	})
	return more && err == nil, err
}
