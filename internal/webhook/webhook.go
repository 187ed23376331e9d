package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// The limits of webhooks.
const (
	MaxURLBytes         = 2048
	MaxDescriptionChars = 500
	MaxPerProject       = 50
	// MaxFormer is how long a former secret can be kept.
	MaxFormer = 7 * 24 * time.Hour

	secretBytes = 32
)

// Webhook says who is told of the status changes of which tasks.
type Webhook struct {
	ID             uuid.UUID
	URL            string
	ProjectID      *string // nil: all projects; "": UserID's tasks that belong to none
	UserID         string
	Description    string
	Statuses       []string // none: all
	AgentID        string   // "": any
	Labels         map[string]string
	Enabled        bool
	DisabledReason string // "": a caller has disabled it
	DisabledAt     *time.Time
	FailingSince   *time.Time // since when no attempt has succeeded
	FormerUntil    *time.Time // until when the former secret signs too
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// columns are the fields of Webhook, qualified with w.
const columns = `w.id, w.url, w.project_id, w.user_id, w.description, w.statuses, w.agent_id, w.labels, w.enabled, w.disabled_reason, w.disabled_at,
	w.failing_since, CASE WHEN w.former_until > now() THEN w.former_until END AS former_until, w.created_at, w.updated_at`

var toWebhook = pgx.RowToStructByName[Webhook]

// New is a webhook to be made.
type New struct {
	URL         string
	ProjectID   string // "": the caller's, or all for whoever is confined to none
	Description string
	Statuses    []string
	AgentID     string
	Labels      map[string]string
	Disabled    bool
}

// Patch is a change of a webhook. What is nil stays as it is.
type Patch struct {
	URL         *string
	Description *string
	Statuses    *[]string
	AgentID     *string
	Labels      *map[string]string
	Enabled     *bool
}

// What the audit log says of webhooks.
const (
	resourceType = "webhook"
	actionCreate = "webhook.create"
	actionUpdate = "webhook.update"
	actionDelete = "webhook.delete"
	actionRotate = "webhook.rotate"
	actionTest   = "webhook.test"
	actionRetry  = "webhook.retry"
	actionReplay = "webhook.replay"
)

// confined is the condition that a webhook w is within a caller's confinement.
var confined = postgres.Within("w")

func (s *Service) read(ctx context.Context, c policy.Caller, sql string, args pgx.NamedArgs, scan func(pgx.Rows) error) error {
	return postgres.Read(ctx, s.pool, postgres.Scope{All: c.AllProjects, ProjectID: c.ProjectID, UserID: c.UserID}, sql, args, scan)
}

func noWebhook(id uuid.UUID) error { return fault.New(fault.NotFound, "no webhook %s", id) }

// allow asks the policies about a webhook and returns the entry of what they
// decided. A denial is recorded and comes back as Forbidden.
func (s *Service) allow(ctx context.Context, c policy.Caller, action string, w Webhook, details map[string]any) (audit.Entry, error) {
	var project string
	if w.ProjectID != nil {
		project = *w.ProjectID
	}
	d, err := s.access.Decide(ctx, c, policy.Request{Permission: policy.ConfigWrite, Action: action, ProjectID: project})
	if err != nil {
		return audit.Entry{}, err
	}
	entry := audit.NewEntry(c, action, resourceType, w.ID.String(), d)
	entry.ProjectID = project
	if details != nil {
		if entry.Details, err = json.Marshal(details); err != nil {
			return entry, fmt.Errorf("encode details: %w", err)
		}
	}
	if !d.Allowed {
		s.recorder.Record(ctx, entry)
	}
	return entry, d.Err()
}

// told is what the audit log says of a webhook: of its URL only where it leads,
// for the rest may hold a secret.
func (w Webhook) told() map[string]any {
	host := ""
	if u, err := url.Parse(w.URL); err == nil {
		host = u.Scheme + "://" + u.Host
	}
	return map[string]any{"target": host, "enabled": w.Enabled, "statuses": w.Statuses}
}

// Create keeps a new webhook of c's and returns it with its secret, which is not
// shown again. It is sent what happens from then on.
//
// Faults: Invalid with the fields that are outside their limits; Forbidden;
// TooMany.
func (s *Service) Create(ctx context.Context, c policy.Caller, n New) (Webhook, string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Webhook{}, "", fmt.Errorf("make a webhook id: %w", err)
	}
	w := Webhook{
		ID: id, URL: n.URL, UserID: c.UserID, Description: n.Description, Statuses: n.Statuses, AgentID: n.AgentID, Labels: n.Labels, Enabled: !n.Disabled,
	}
	faults := s.faults(&w)
	switch {
	case !c.AllProjects:
		w.ProjectID = &c.ProjectID
		if n.ProjectID != "" && n.ProjectID != c.ProjectID {
			faults = append(faults, fault.Field{Path: "body.projectId", Message: "no such project"})
		}
	case n.ProjectID != "":
		w.ProjectID = &n.ProjectID
		if !task.IsID(n.ProjectID) {
			faults = append(faults, fault.Field{Path: "body.projectId", Message: "must be an id"})
		}
	}
	if err := fault.InvalidFields(faults); err != nil {
		return Webhook{}, "", err
	}
	entry, err := s.allow(ctx, c, actionCreate, w, w.told())
	if err != nil {
		return Webhook{}, "", err
	}
	secret := newSecret()
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := startCursor(ctx, tx); err != nil {
			return err
		}
		var others int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM webhooks WHERE project_id IS NOT DISTINCT FROM $1 AND (project_id <> '' OR project_id IS NULL OR user_id = $2)`,
			w.ProjectID, w.UserID).Scan(&others); err != nil {
			return fmt.Errorf("count webhooks: %w", err)
		}
		if others >= MaxPerProject {
			return fault.New(fault.TooMany, "there are %d webhooks, and no more can be in a project", others)
		}
		args := w.args()
		args["secret"] = secret
		made, err := one(tx.Query(ctx, `INSERT INTO webhooks AS w (id, created_at, updated_at, begins_at, disabled_at, enabled, project_id, user_id, url, description, agent_id, secret, statuses, labels)
			SELECT @id, at, at, at, CASE WHEN NOT @enabled THEN at END, @enabled, @project_id, @user_id, @url, @description, @agent, @secret, @statuses, @labels
			FROM clock_timestamp() AS at RETURNING `+columns, args))
		if err != nil {
			return fmt.Errorf("create webhook: %w", err)
		}
		w = made
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return Webhook{}, "", err
	}
	s.bus.Publish(stream.Signal{Topic: stream.WebhooksChanged})
	return w, secret, nil
}

func one(rows pgx.Rows, err error) (Webhook, error) {
	if err != nil {
		return Webhook{}, err
	}
	return pgx.CollectExactlyOneRow(rows, toWebhook)
}

func (w Webhook) args() pgx.NamedArgs {
	labels := w.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return pgx.NamedArgs{
		"id": w.ID, "enabled": w.Enabled, "project_id": w.ProjectID, "user_id": w.UserID, "url": w.URL, "description": w.Description,
		"agent": w.AgentID, "statuses": slices.Clip(append([]string{}, w.Statuses...)), "labels": labels, "updated": w.UpdatedAt,
	}
}

// startCursor keeps all others from moving the cursor until the transaction
// ends. If it stood still because nobody was to be told, it goes on from here.
func startCursor(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `SELECT FROM webhook_cursor FOR UPDATE`)
	if err == nil { // with a snapshot of its own, that shows what whoever held it did
		_, err = tx.Exec(ctx, `UPDATE webhook_cursor SET txid = pg_snapshot_xmin(pg_current_snapshot()), position = 0
			WHERE NOT EXISTS (SELECT FROM webhooks WHERE enabled)`)
	}
	if err != nil {
		return fmt.Errorf("start the cursor of webhooks: %w", err)
	}
	return nil
}

func newSecret() string {
	key := make([]byte, secretBytes)
	rand.Read(key) // it never fails
	return api.WebhookSecretPrefix + base64.StdEncoding.EncodeToString(key)
}

// faults lists what is outside its limits.
func (s *Service) faults(w *Webhook) (found []fault.Field) {
	bad := func(field, format string, args ...any) {
		found = append(found, fault.Field{Path: "body." + field, Message: fmt.Sprintf(format, args...)})
	}
	u, err := url.Parse(w.URL)
	switch {
	case err != nil || u.Hostname() == "" || len(w.URL) > MaxURLBytes || u.User != nil || u.Fragment != "":
		bad("url", "must be a URL of at most %d bytes, without user and fragment", MaxURLBytes)
	case u.Scheme != "https" && (u.Scheme != "http" || !s.private):
		bad("url", "must begin with https://")
	case s.reach.Check(u) != nil && s.private:
		bad("url", "names an address that may not be reached")
	case s.reach.Check(u) != nil:
		bad("url", "must be at a public address on port 443")
	}
	if n := utf8.RuneCountInString(w.Description); n > MaxDescriptionChars || !storable(w.Description) {
		bad("description", "must have at most %d characters", MaxDescriptionChars)
	}
	for i, status := range w.Statuses {
		if !task.Status(status).Known() {
			bad(fmt.Sprintf("statuses[%d]", i), "is no status of a task")
		}
	}
	slices.Sort(w.Statuses)
	w.Statuses = slices.Compact(w.Statuses)
	if w.AgentID != "" && !task.IsID(w.AgentID) {
		bad("agentId", "must be an id")
	}
	if message := task.LabelsFault(w.Labels); message != "" {
		bad("labels", "%s", message)
	}
	return found
}

// storable reports whether the database takes s as text.
func storable(s string) bool { return printable([]byte(s)) == s }

// Webhook returns a webhook, or NotFound.
func (s *Service) Webhook(ctx context.Context, c policy.Caller, id uuid.UUID) (w Webhook, err error) {
	err = s.read(ctx, c, `SELECT `+columns+` FROM webhooks w WHERE w.id = @id AND `+confined, pgx.NamedArgs{"id": id}, func(rows pgx.Rows) (err error) {
		w, err = pgx.CollectExactlyOneRow(rows, toWebhook)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Webhook{}, noWebhook(id)
	}
	if err != nil {
		return Webhook{}, fmt.Errorf("read webhook %s: %w", id, err)
	}
	return w, nil
}

// Webhooks returns up to limit webhooks that c sees, newest first, that are older
// than the one with the id before; uuid.Max begins. more says that there are
// further ones.
func (s *Service) Webhooks(ctx context.Context, c policy.Caller, before uuid.UUID, limit int) (all []Webhook, more bool, err error) {
	err = s.read(ctx, c, `SELECT `+columns+` FROM webhooks w WHERE w.id < @before AND `+confined+` ORDER BY w.id DESC LIMIT @limit`,
		pgx.NamedArgs{"before": before, "limit": limit + 1}, func(rows pgx.Rows) (err error) {
			all, err = pgx.CollectRows(rows, toWebhook)
			return err
		})
	if err != nil {
		return nil, false, fmt.Errorf("list webhooks: %w", err)
	}
	if more = len(all) > limit; more {
		all = all[:limit]
	}
	return all, more, nil
}

// Update changes a webhook. One that is enabled again is sent what was queued
// before, and what happens from then on.
//
// Faults are those of Create, NotFound, and Conflict if it was changed by
// somebody else meanwhile.
func (s *Service) Update(ctx context.Context, c policy.Caller, id uuid.UUID, p Patch) (Webhook, error) {
	if p == (Patch{}) {
		return Webhook{}, fault.InvalidFields([]fault.Field{{Path: "body", Message: "must change something"}})
	}
	w, err := s.Webhook(ctx, c, id)
	if err != nil {
		return Webhook{}, err
	}
	w.URL, w.Description, w.AgentID = *cmp.Or(p.URL, &w.URL), *cmp.Or(p.Description, &w.Description), *cmp.Or(p.AgentID, &w.AgentID)
	w.Statuses, w.Labels, w.Enabled = *cmp.Or(p.Statuses, &w.Statuses), *cmp.Or(p.Labels, &w.Labels), *cmp.Or(p.Enabled, &w.Enabled)
	if err := fault.InvalidFields(s.faults(&w)); err != nil {
		return Webhook{}, err
	}
	entry, err := s.allow(ctx, c, actionUpdate, w, w.told())
	if err != nil {
		return Webhook{}, err
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := startCursor(ctx, tx); err != nil {
			return err
		}
		changed, err := one(tx.Query(ctx, `UPDATE webhooks w SET updated_at = clock_timestamp(), url = @url, description = @description, agent_id = @agent, statuses = @statuses, labels = @labels,
				enabled = @enabled, begins_at = CASE WHEN @enabled AND NOT w.enabled THEN clock_timestamp() ELSE w.begins_at END,
				disabled_at = CASE WHEN NOT @enabled THEN coalesce(w.disabled_at, clock_timestamp()) END,
				disabled_reason = CASE WHEN NOT @enabled THEN w.disabled_reason ELSE '' END,
				failing_since = CASE WHEN @enabled AND NOT w.enabled THEN NULL ELSE w.failing_since END
			WHERE w.id = @id AND w.updated_at = @updated RETURNING `+columns, w.args()))
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.New(fault.Conflict, "webhook %s was changed by somebody else meanwhile; try again", id)
		}
		if err != nil {
			return fmt.Errorf("update webhook %s: %w", id, err)
		}
		w = changed
		return audit.Append(ctx, tx, entry)
	})
	if err != nil {
		return Webhook{}, err
	}
	s.bus.Publish(stream.Signal{Topic: stream.WebhooksChanged})
	return w, nil
}

// Delete removes a webhook with its deliveries. One that is being sent may still
// arrive. Faults: NotFound, Forbidden.
func (s *Service) Delete(ctx context.Context, c policy.Caller, id uuid.UUID) error {
	return s.change(ctx, c, id, actionDelete, nil, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM webhooks WHERE id = $1`, id)
		return err
	})
}

// change runs fn, and writes the entry of the decision that allows it, in one
// transaction, in which nobody else changes the webhook.
func (s *Service) change(ctx context.Context, c policy.Caller, id uuid.UUID, action string, details map[string]any, fn func(pgx.Tx) error) error {
	w, err := s.Webhook(ctx, c, id)
	if err != nil {
		return err
	}
	entry, err := s.allow(ctx, c, action, w, details)
	if err != nil {
		return err
	}
	return postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `SELECT FROM webhooks WHERE id = $1 FOR NO KEY UPDATE`, id)
		if err == nil && tag.RowsAffected() == 0 {
			return noWebhook(id)
		}
		if err == nil {
			err = fn(tx)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", action, id, err)
		}
		return audit.Append(ctx, tx, entry)
	})
}

// Rotate gives a webhook another secret and returns it; it is not shown again.
// For as long as keep, at most MaxFormer, the former one signs too; until is then
// the end of that. Faults: Invalid, NotFound, Forbidden.
func (s *Service) Rotate(ctx context.Context, c policy.Caller, id uuid.UUID, keep time.Duration) (secret string, until *time.Time, err error) {
	if keep < 0 || keep > MaxFormer {
		return "", nil, fault.InvalidFields([]fault.Field{{Path: "body.keepFormerSeconds", Message: fmt.Sprintf("must be between 0 and %d", int(MaxFormer.Seconds()))}})
	}
	secret = newSecret()
	err = s.change(ctx, c, id, actionRotate, map[string]any{"keepFormerSeconds": int(keep.Seconds())}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `UPDATE webhooks SET former_secret = CASE WHEN $2 THEN secret ELSE '' END,
				former_until = CASE WHEN $2 THEN clock_timestamp() + $3::interval END, secret = $4
			WHERE id = $1 RETURNING former_until`, id, keep > 0, keep, secret).Scan(&until)
	})
	if err != nil {
		return "", nil, err
	}
	return secret, until, nil
}
