package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/outbound"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

const (
	// attemptTimeout bounds an attempt, from the name's resolution to the end of
	// the answer.
	attemptTimeout = 15 * time.Second
	// leaseTime is after how long an attempt of which nothing was heard is made
	// again.
	leaseTime = 45 * time.Second
	// maxSending and maxSendingTo bound how many attempts a server makes at once,
	// and to one webhook.
	maxSending   = 64
	maxSendingTo = 4
	// maxResponse is how much of an answer is kept, in bytes.
	maxResponse = 1 << 10
	maxMessage  = 1000 // of what a task's event says, in bytes
	// failingFor is how long nothing but failures makes the server disable a
	// webhook.
	failingFor = 72 * time.Hour
	// maxRetryAfter bounds what a target can ask for.
	maxRetryAfter = 24 * time.Hour
	// recordTimeout bounds how long an outcome is tried to be recorded when the
	// server stops.
	recordTimeout = 5 * time.Second
)

// delays are what passes between one attempt and the next, before jitter: eight
// attempts over about a day.
var delays = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 16 * time.Hour,
}

// delivery is a delivery that was claimed, with all that is sent.
type delivery struct {
	TaskID       uuid.UUID
	Seq          int64
	WebhookID    uuid.UUID
	Claim        uuid.UUID
	Attempts     int // with this one
	URL          string
	Secret       string
	FormerSecret string // "": none that is still good
	// Of the event and its task; nil: they are gone.
	Status       *string
	Message      *string
	Data         json.RawMessage
	CreatedAt    *time.Time
	AgentID      *string
	ProjectID    *string
	SessionID    *string
	UserID       *string
	ParentTaskID *uuid.UUID
	Labels       map[string]string
}

// claimSQL claims what is due: up to $4 deliveries in all, and up to $3 less those that
// are being sent for each webhook, in no order between webhooks.
const claimSQL = `
WITH picked AS MATERIALIZED (
	SELECT d.task_id, d.seq, d.webhook_id FROM (` + roomSQL + ` ORDER BY random()) w CROSS JOIN LATERAL (
		SELECT task_id, seq, webhook_id FROM webhook_deliveries WHERE webhook_id = w.id AND due_at <= now()
		ORDER BY due_at LIMIT w.room FOR UPDATE SKIP LOCKED
	) d LIMIT $4
), claimed AS (
	UPDATE webhook_deliveries d SET claim = gen_random_uuid(), attempts = d.attempts + 1, attempted_at = now(), due_at = now() + $5::interval
	FROM picked p WHERE d.task_id = p.task_id AND d.seq = p.seq AND d.webhook_id = p.webhook_id
	RETURNING d.task_id, d.seq, d.webhook_id, d.claim, d.attempts
)
SELECT c.task_id, c.seq, c.webhook_id, c.claim, c.attempts, w.url, w.secret, CASE WHEN w.former_until > now() THEN w.former_secret ELSE '' END AS former_secret,
	e.status, e.message, e.data, e.created_at, t.agent_id, t.project_id, t.session_id, t.user_id, t.parent_task_id, t.labels
FROM claimed c JOIN webhooks w ON w.id = c.webhook_id
	LEFT JOIN (task_events e JOIN tasks t ON t.id = e.task_id) ON e.task_id = c.task_id AND e.seq = c.seq`

// roomSQL are the webhooks that can be sent something, and how much at once.
const roomSQL = `SELECT w.id, $3::int - coalesce(b.n, 0) AS room FROM webhooks w LEFT JOIN unnest($1::uuid[], $2::int[]) AS b (id, n) ON b.id = w.id
	WHERE w.enabled AND $3::int > coalesce(b.n, 0)`

// nextSQL says in how many seconds something is due next.
const nextSQL = `SELECT extract(epoch FROM min(d.due_at) - now())::float8 FROM (` + roomSQL + `) w CROSS JOIN LATERAL (
	SELECT due_at FROM webhook_deliveries WHERE webhook_id = w.id AND due_at IS NOT NULL ORDER BY due_at LIMIT 1) d`

// send claims and sends what is due until ctx ends, and returns when all
// attempts have come to their end.
func (s *Service) send(ctx context.Context) {
	var attempts sync.WaitGroup
	defer attempts.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.dueSoon:
		}
		claimed, next, err := s.claim(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "webhooks: deliveries not claimed", "error", err)
			next = maxPause
		}
		for _, d := range claimed {
			attempts.Go(func() {
				s.attempt(ctx, d)
				s.done(d.WebhookID)
			})
		}
		if !pause(ctx, minPause) {
			return
		}
		timer.Reset(next)
	}
}

// claim claims as many deliveries as there is room for. next is when to look
// again, if no signal comes before.
func (s *Service) claim(ctx context.Context) (claimed []delivery, next time.Duration, err error) {
	// What is due for a webhook that has no room is claimed when it has.
	next = time.Hour
	s.mu.Lock()
	room := maxSending
	ids, counts := make([]uuid.UUID, 0, len(s.sending)), make([]int, 0, len(s.sending))
	for id, n := range s.sending {
		ids, counts, room = append(ids, id), append(counts, n), room-n
	}
	s.mu.Unlock()
	if room <= 0 {
		return nil, next, nil
	}
	var seconds *float64
	err = postgres.Retry(ctx, func() error {
		b := &pgx.Batch{}
		b.Queue(claimSQL, ids, counts, maxSendingTo, room, leaseTime).Query(func(rows pgx.Rows) (err error) {
			claimed, err = pgx.CollectRows(rows, pgx.RowToStructByName[delivery])
			return err
		})
		b.Queue(nextSQL, ids, counts, maxSendingTo).QueryRow(func(row pgx.Row) error { return row.Scan(&seconds) })
		return s.pool.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return nil, next, fmt.Errorf("claim deliveries: %w", err)
	}
	s.mu.Lock()
	for _, d := range claimed {
		s.sending[d.WebhookID]++
	}
	s.mu.Unlock()
	if seconds != nil {
		// What another server is claiming this moment seems to be due.
		next = min(next, max(time.Duration(*seconds*float64(time.Second)), 100*time.Millisecond)+time.Millisecond)
	}
	return claimed, next, nil
}

// done makes room for the next attempt.
func (s *Service) done(webhook uuid.UUID) {
	s.mu.Lock()
	if s.sending[webhook]--; s.sending[webhook] == 0 {
		delete(s.sending, webhook)
	}
	s.mu.Unlock()
	poke(s.dueSoon)
}

// attempt makes one attempt and records what came of it.
func (s *Service) attempt(ctx context.Context, d delivery) {
	var o outcome
	if d.Status == nil {
		o = outcome{final: true, err: "the task was forgotten"}
	} else {
		body, err := json.Marshal(d.event())
		if err == nil {
			o, err = s.post(ctx, d.URL, []string{d.Secret, d.FormerSecret}, MessageID(d.TaskID, d.Seq), body)
		}
		if err != nil {
			o = outcome{final: true, err: err.Error()}
		}
	}
	if err := s.record(ctx, d, o); err != nil {
		s.log.WarnContext(ctx, "webhooks: outcome not recorded, it will be sent again", "error", err, "webhook", d.WebhookID, "delivery", MessageID(d.TaskID, d.Seq))
	}
}

// event is what is sent. It is the same at each attempt.
func (d delivery) event() api.WebhookEvent {
	t := api.WebhookTask{
		TaskID: d.TaskID.String(), Seq: d.Seq, Status: api.TaskStatus(*d.Status), Message: cut(*d.Message, maxMessage),
		AgentID: *d.AgentID, ProjectID: *d.ProjectID, SessionID: *d.SessionID, UserID: *d.UserID, Labels: d.Labels,
	}
	if d.ParentTaskID != nil {
		t.ParentTaskID = d.ParentTaskID.String()
	}
	var data struct {
		Reason any `json:"reason"`
	}
	if json.Unmarshal(d.Data, &data) == nil { // whoever drives a task by hand may write anything there
		if reason, ok := data.Reason.(string); ok {
			t.StatusReason = cut(reason, 64)
		}
	}
	return api.WebhookEvent{Type: typePrefix + *d.Status, Timestamp: d.CreatedAt.UTC(), Data: t}
}

const typePrefix = "task."

// MessageID is the webhook-id of an event: the same whenever, and whomever, it
// is sent.
func MessageID(task uuid.UUID, seq int64) string {
	return idPrefix + strings.ReplaceAll(task.String(), "-", "") + "_" + strconv.FormatInt(seq, 10)
}

const idPrefix = "evt_"

// parseMessageID is the reverse of MessageID.
func parseMessageID(id string) (task uuid.UUID, seq int64, ok bool) {
	rest, _ := strings.CutPrefix(id, idPrefix)
	hex, number, _ := strings.Cut(rest, "_")
	task, err := uuid.Parse(hex)
	if err != nil {
		return task, 0, false
	}
	seq, err = strconv.ParseInt(number, 10, 64)
	return task, seq, err == nil && MessageID(task, seq) == id
}

// outcome is what came of an attempt.
type outcome struct {
	delivered  bool
	final      bool // no other attempt would help
	gone       bool // the target wants nothing any more
	cut        bool // the server stopped in the midst of it
	status     int
	err        string
	response   string
	retryAfter time.Duration
	took       time.Duration
}

// post sends a body once, signed with each secret that is not empty. An error is
// one that another attempt would meet too.
func (s *Service) post(ctx context.Context, target string, secrets []string, id string, body []byte) (outcome, error) {
	begun := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return outcome{}, errors.New("the URL is not one")
	}
	var signatures []string
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		signature, err := api.SignWebhook(secret, id, begun, body)
		if err != nil {
			return outcome{}, err
		}
		signatures = append(signatures, signature)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "coderclaw")
	req.Header.Set(api.WebhookIDHeader, id)
	req.Header.Set(api.WebhookTimestampHeader, strconv.FormatInt(begun.Unix(), 10))
	req.Header.Set(api.WebhookSignatureHeader, strings.Join(signatures, " "))
	res, err := s.client.Do(req)
	if err != nil {
		return outcome{err: s.reason(err), cut: ctx.Err() != nil, took: time.Since(begun)}, nil
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxResponse))
	o := outcome{
		delivered: res.StatusCode >= 200 && res.StatusCode < 300, gone: res.StatusCode == http.StatusGone, status: res.StatusCode,
		response: printable(text), took: time.Since(begun),
	}
	switch {
	case o.delivered: // whatever becomes of the rest of the answer
	case res.StatusCode >= 300 && res.StatusCode < 400:
		o.err = "answered " + res.Status + ": redirects are not followed"
	case err != nil:
		o.err = "answered " + res.Status + ", and broke off"
	default:
		o.err = "answered " + res.Status
	}
	if res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable {
		o.retryAfter = retryAfter(res.Header.Get("Retry-After"), time.Now())
	}
	return o, nil
}

// reason says why there was no answer, without the URL, which may hold secrets,
// and without what a name that is refused was resolved to.
func (s *Service) reason(err error) string {
	var network *url.Error
	switch {
	case errors.Is(err, outbound.ErrRefused) && s.private:
		return "not sent: that address may not be reached"
	case errors.Is(err, outbound.ErrRefused):
		return "not sent: it is not at a public address on port 443"
	case errors.As(err, &network) && network.Timeout():
		return fmt.Sprintf("no answer within %v", attemptTimeout)
	case errors.As(err, &network):
		return cut(printable([]byte(network.Err.Error())), maxResponse)
	}
	return "no answer"
}

// retryAfter reads the header of that name (RFC 9110, section 10.2.3); 0: it
// says nothing.
func retryAfter(text string, now time.Time) time.Duration {
	d := time.Duration(0)
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// printable makes of bytes what the database takes as text.
func printable(b []byte) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(b), ""), "\x00", "\ufffd")
}

// cut shortens s to at most limit bytes, at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}

// record writes down what came of an attempt, unless its lease is lost: it was
// made anew, or its webhook is gone.
func (s *Service) record(ctx context.Context, d delivery, o outcome) error {
	// What was sent was sent, also when the server stops meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	status, wait := "pending", time.Duration(0)
	switch {
	case o.delivered:
		status = "delivered"
	case o.cut:
	case o.final, o.gone, d.Attempts > len(delays):
		status = "dead"
	default:
		wait = delays[d.Attempts-1]
		wait = max(wait-wait/5+rand.N(2*wait/5), o.retryAfter)
	}
	var held, disabled bool
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		held, disabled = false, false
		// First, as all do who lock both.
		if _, err := tx.Exec(ctx, `SELECT FROM webhooks WHERE id = $1 FOR NO KEY UPDATE`, d.WebhookID); err != nil {
			return fmt.Errorf("lock webhook %s: %w", d.WebhookID, err)
		}
		tag, err := tx.Exec(ctx, `UPDATE webhook_deliveries SET claim = NULL, status = @status,
				attempts = attempts - CASE WHEN @cut THEN 1 ELSE 0 END,
				due_at = CASE WHEN @status = 'pending' THEN clock_timestamp() + @wait::interval END,
				ended_at = CASE WHEN @status <> 'pending' THEN clock_timestamp() END,
				response_status = @code, error = @error, response = @response, duration_ms = @took
			WHERE task_id = @task AND seq = @seq AND webhook_id = @webhook AND claim = @claim`, pgx.NamedArgs{
			"status": status, "cut": o.cut, "wait": wait, "code": o.status, "error": o.err, "response": o.response, "took": o.took.Milliseconds(),
			"task": d.TaskID, "seq": d.Seq, "webhook": d.WebhookID, "claim": d.Claim,
		})
		if err != nil {
			return fmt.Errorf("record an attempt: %w", err)
		}
		if held = tag.RowsAffected() == 1; !held || o.cut {
			return nil
		}
		disabled, err = s.judge(ctx, tx, d.WebhookID, o, status == "dead")
		return err
	})
	if err != nil || !held {
		return err
	}
	switch {
	case o.delivered:
		s.numbers.delivered.Add(1)
	case status == "dead":
		s.numbers.dead.Add(1)
	case !o.cut:
		s.numbers.retried.Add(1)
	}
	if disabled {
		s.log.WarnContext(ctx, "webhook disabled", "webhook", d.WebhookID, "status", o.status)
		s.bus.Publish(stream.Signal{Topic: stream.WebhooksChanged})
	}
	return nil
}

// judge keeps how a webhook does, and disables one that wants nothing any more
// or has failed for days.
func (s *Service) judge(ctx context.Context, tx pgx.Tx, id uuid.UUID, o outcome, dead bool) (disabled bool, err error) {
	switch {
	case o.delivered:
		_, err = tx.Exec(ctx, `UPDATE webhooks SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL`, id)
		return false, err
	case o.final: // not the target's fault
		return false, nil
	}
	if _, err := tx.Exec(ctx, `UPDATE webhooks SET failing_since = now() WHERE id = $1 AND failing_since IS NULL`, id); err != nil {
		return false, err
	}
	if !o.gone && !dead {
		return false, nil
	}
	reason := fmt.Sprintf("every attempt has failed for %d hours", int(failingFor.Hours()))
	if o.gone {
		reason = "it answered 410 Gone"
	}
	var project string
	err = tx.QueryRow(ctx, `UPDATE webhooks SET enabled = false, updated_at = clock_timestamp(), disabled_at = now(), disabled_reason = $2
		WHERE id = $1 AND enabled AND ($3 OR failing_since < now() - $4::interval) RETURNING coalesce(project_id, '')`, id, reason, o.gone, failingFor).Scan(&project)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("disable webhook %s: %w", id, err)
	}
	decision := policy.Decision{Allowed: true, Reason: reason}
	return true, audit.Append(ctx, tx, audit.NewEntry(policy.Caller{UserID: "system", ProjectID: project}, "webhook.disable", resourceType, id.String(), decision))
}
