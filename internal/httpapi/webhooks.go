package httpapi

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/webhook"
)

// Webhooks tells others of the status changes of tasks.
type Webhooks interface {
	Create(ctx context.Context, c policy.Caller, n webhook.New) (w webhook.Webhook, secret string, err error)
	Webhook(ctx context.Context, c policy.Caller, id uuid.UUID) (webhook.Webhook, error)
	Webhooks(ctx context.Context, c policy.Caller, before uuid.UUID, limit int) (all []webhook.Webhook, more bool, err error)
	Update(ctx context.Context, c policy.Caller, id uuid.UUID, p webhook.Patch) (webhook.Webhook, error)
	Delete(ctx context.Context, c policy.Caller, id uuid.UUID) error
	Rotate(ctx context.Context, c policy.Caller, id uuid.UUID, keep time.Duration) (secret string, until *time.Time, err error)
	Test(ctx context.Context, c policy.Caller, id uuid.UUID) (webhook.Attempt, error)
	Deliveries(ctx context.Context, c policy.Caller, id uuid.UUID, status string, before int64, limit int) (all []webhook.Delivery, more bool, err error)
	Retry(ctx context.Context, c policy.Caller, id uuid.UUID, delivery string) (webhook.Delivery, error)
	Replay(ctx context.Context, c policy.Caller, id uuid.UUID, since time.Time, until *time.Time) (queued int, next *time.Time, err error)
}

const (
	// pingWait is how long a ping may take, besides the work for the request.
	pingWait = 15 * time.Second
	// defaultKeepFormer is for how long a former secret signs if nobody says.
	defaultKeepFormer = 24 * time.Hour
)

type (
	// WebhookInput names a webhook.
	WebhookInput struct {
		ID string `path:"id" format:"uuid" doc:"The webhook's id."`
	}
	webhookOutput struct {
		Body api.Webhook
	}
	createdWebhookOutput struct {
		Location string `header:"Location" doc:"The path of the new webhook."`
		Body     api.CreatedWebhook
	}
)

func (s *Server) registerWebhooks() {
	missing := []int{http.StatusNotFound, http.StatusUnprocessableEntity}
	handle(s, operation{
		id: "createWebhook", action: "webhook.create", method: http.MethodPost, path: "/v1/webhooks", permission: policy.ConfigWrite, tag: "Webhooks",
		summary: "Make a webhook", status: http.StatusCreated, errors: []int{http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		detail: "It is sent the status changes that come from then on, signed as Standard Webhooks has it: at least once, in no particular order. The answer holds the secret, which is not shown again.",
	}, s.createWebhook)
	handle(s, operation{
		id: "listWebhooks", action: "webhook.list", method: http.MethodGet, path: "/v1/webhooks", permission: policy.ConfigRead, tag: "Webhooks",
		summary: "List webhooks, newest first", errors: []int{http.StatusUnprocessableEntity},
	}, s.listWebhooks)
	handle(s, operation{
		id: "getWebhook", action: "webhook.read", method: http.MethodGet, path: "/v1/webhooks/{id}", permission: policy.ConfigRead, tag: "Webhooks",
		summary: "Get a webhook", errors: missing,
	}, s.getWebhook)
	handle(s, operation{
		id: "updateWebhook", action: "webhook.update", method: http.MethodPatch, path: "/v1/webhooks/{id}", permission: policy.ConfigWrite, tag: "Webhooks",
		summary: "Change, disable or enable a webhook", errors: append(missing, http.StatusConflict),
	}, s.updateWebhook)
	handle(s, operation{
		id: "deleteWebhook", action: "webhook.delete", method: http.MethodDelete, path: "/v1/webhooks/{id}", permission: policy.ConfigWrite, tag: "Webhooks",
		summary: "Delete a webhook", status: http.StatusNoContent, errors: missing,
		detail: "With its deliveries. What is being sent this moment may still arrive.",
	}, s.deleteWebhook)
	handle(s, operation{
		id: "rotateWebhookSecret", action: "webhook.rotate", method: http.MethodPost, path: "/v1/webhooks/{id}/secret", permission: policy.ConfigWrite, tag: "Webhooks",
		summary: "Give a webhook another secret", errors: missing,
		detail: "The former one signs too for a time. The answer holds the new one, which is not shown again.",
	}, s.rotateWebhookSecret)
	handle(s, operation{
		id: "testWebhook", action: "webhook.test", method: http.MethodPost, path: "/v1/webhooks/{id}/test", permission: policy.ConfigWrite, tag: "Webhooks",
		summary: "Send a webhook a ping", errors: missing, wait: pingWait,
		detail: "An event of the type webhook.ping, at once and once, also while it is disabled. The answer says what came of it.",
	}, s.testWebhook)
	handle(s, operation{
		id: "listWebhookDeliveries", action: "webhook.read", method: http.MethodGet, path: "/v1/webhooks/{id}/deliveries", permission: policy.ConfigRead, tag: "Webhooks",
		summary: "List what a webhook is or was sent, newest first", errors: missing,
		detail: "Deliveries are known for 30 days. status=dead lists those that were given up.",
	}, s.listWebhookDeliveries)
	handle(s, operation{
		id: "retryWebhookDelivery", action: "webhook.retry", method: http.MethodPost, path: "/v1/webhooks/{id}/deliveries/{deliveryId}/retry", permission: policy.ConfigWrite, tag: "Webhooks",
		summary: "Try a delivery again", errors: missing,
		detail: "At once and from the first attempt on, with the id that it had, whatever came of it before.",
	}, s.retryWebhookDelivery)
	handle(s, operation{
		id: "replayWebhook", action: "webhook.replay", method: http.MethodPost, path: "/v1/webhooks/{id}/replay", permission: policy.ConfigWrite, tag: "Webhooks",
		summary: "Send events of the past", errors: missing,
		detail: "From the log of events, whether they were sent before or not, with the ids that they had: up to 10,000 at a time, and of the last 30 days.",
	}, s.replayWebhook)
}

func (s *Server) createWebhook(ctx context.Context, c policy.Caller, in *struct{ Body api.NewWebhook }) (*createdWebhookOutput, error) {
	n := in.Body
	w, secret, err := s.webhooks.Create(ctx, c, webhook.New{
		URL: n.URL, ProjectID: n.ProjectID, Description: n.Description, Statuses: texts[string](n.Statuses), AgentID: n.AgentID, Labels: n.Labels, Disabled: n.Disabled,
	})
	if err != nil {
		return nil, err
	}
	return &createdWebhookOutput{Location: "/v1/webhooks/" + w.ID.String(), Body: api.CreatedWebhook{Webhook: wireWebhook(w), Secret: secret}}, nil
}

func (s *Server) listWebhooks(ctx context.Context, c policy.Caller, in *PageInput) (*struct{ Body api.WebhookList }, error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	all, more, err := s.webhooks.Webhooks(ctx, c, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.WebhookList{Items: make([]api.Webhook, len(all))}
	for i, w := range all {
		list.Items[i] = wireWebhook(w)
	}
	if more {
		list.NextCursor = after(all[len(all)-1].ID)
	}
	return &struct{ Body api.WebhookList }{list}, nil
}

func (s *Server) getWebhook(ctx context.Context, c policy.Caller, in *WebhookInput) (*webhookOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	w, err := s.webhooks.Webhook(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &webhookOutput{wireWebhook(w)}, nil
}

func (s *Server) updateWebhook(ctx context.Context, c policy.Caller, in *struct {
	WebhookInput
	Body api.WebhookPatch
}) (*webhookOutput, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	p := webhook.Patch{URL: in.Body.URL, Description: in.Body.Description, AgentID: in.Body.AgentID, Labels: in.Body.Labels, Enabled: in.Body.Enabled}
	if in.Body.Statuses != nil {
		p.Statuses = new(texts[string](*in.Body.Statuses))
	}
	w, err := s.webhooks.Update(ctx, c, id, p)
	if err != nil {
		return nil, err
	}
	return &webhookOutput{wireWebhook(w)}, nil
}

func (s *Server) deleteWebhook(ctx context.Context, c policy.Caller, in *WebhookInput) (*struct{}, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	return nil, s.webhooks.Delete(ctx, c, id)
}

func (s *Server) rotateWebhookSecret(ctx context.Context, c policy.Caller, in *struct {
	WebhookInput
	Body api.RotateWebhookSecret
}) (*struct{ Body api.WebhookSecret }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	keep := defaultKeepFormer
	if seconds := in.Body.KeepFormerSeconds; seconds != nil {
		keep = time.Duration(*seconds) * time.Second
	}
	secret, until, err := s.webhooks.Rotate(ctx, c, id, keep)
	if err != nil {
		return nil, err
	}
	return &struct{ Body api.WebhookSecret }{api.WebhookSecret{Secret: secret, FormerUntil: utc(until)}}, nil
}

func (s *Server) testWebhook(ctx context.Context, c policy.Caller, in *WebhookInput) (*struct{ Body api.WebhookAttempt }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	a, err := s.webhooks.Test(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &struct{ Body api.WebhookAttempt }{api.WebhookAttempt{
		At: a.At, Delivered: a.Delivered, Status: a.ResponseStatus, Error: a.Error, Response: a.Response, DurationMillis: int(a.Duration.Milliseconds()),
	}}, nil
}

func (s *Server) listWebhookDeliveries(ctx context.Context, c policy.Caller, in *struct {
	WebhookInput
	Status string `query:"status" enum:"pending,delivered,dead" doc:"Those that have it."`
	PageInput
}) (*struct{ Body api.WebhookDeliveryList }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	before := int64(math.MaxInt64)
	if in.Cursor != "" {
		if before, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil || before < 0 {
			return nil, badCursor()
		}
	}
	all, more, err := s.webhooks.Deliveries(ctx, c, id, in.Status, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.WebhookDeliveryList{Items: make([]api.WebhookDelivery, len(all))}
	for i, d := range all {
		list.Items[i] = wireDelivery(d)
	}
	if more {
		list.NextCursor = strconv.FormatInt(all[len(all)-1].Number, 10)
	}
	return &struct{ Body api.WebhookDeliveryList }{list}, nil
}

func (s *Server) retryWebhookDelivery(ctx context.Context, c policy.Caller, in *struct {
	WebhookInput
	Delivery string `path:"deliveryId" maxLength:"64" doc:"The delivery's id, which is the webhook-id that it is sent with."`
}) (*struct{ Body api.WebhookDelivery }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	d, err := s.webhooks.Retry(ctx, c, id, in.Delivery)
	if err != nil {
		return nil, err
	}
	return &struct{ Body api.WebhookDelivery }{wireDelivery(d)}, nil
}

func (s *Server) replayWebhook(ctx context.Context, c policy.Caller, in *struct {
	WebhookInput
	Body api.WebhookReplay
}) (*struct{ Body api.WebhookReplayed }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	queued, next, err := s.webhooks.Replay(ctx, c, id, in.Body.Since, in.Body.Until)
	if err != nil {
		return nil, err
	}
	return &struct{ Body api.WebhookReplayed }{api.WebhookReplayed{Queued: queued, Next: utc(next)}}, nil
}

func wireWebhook(w webhook.Webhook) api.Webhook {
	return api.Webhook{
		ID: w.ID.String(), URL: w.URL, AllProjects: w.ProjectID == nil, ProjectID: deref(w.ProjectID), UserID: w.UserID, Description: w.Description,
		Statuses: append([]api.TaskStatus{}, texts[api.TaskStatus](w.Statuses)...), AgentID: w.AgentID, Labels: w.Labels,
		Enabled: w.Enabled, DisabledReason: w.DisabledReason, DisabledAt: utc(w.DisabledAt), FailingSince: utc(w.FailingSince), FormerSecretUntil: utc(w.FormerUntil),
		CreatedAt: w.CreatedAt.UTC(), UpdatedAt: w.UpdatedAt.UTC(),
	}
}

func wireDelivery(d webhook.Delivery) api.WebhookDelivery {
	w := api.WebhookDelivery{
		ID: d.ID(), Type: d.Type(), TaskID: d.TaskID.String(), Seq: d.Seq, Status: api.DeliveryStatus(d.Status), Attempts: d.Attempts,
		QueuedAt: d.CreatedAt.UTC(), NextAttemptAt: utc(d.DueAt), EndedAt: utc(d.EndedAt),
	}
	if d.AttemptedAt != nil {
		w.LastAttempt = &api.WebhookAttempt{
			At: d.AttemptedAt.UTC(), Delivered: d.Status == string(api.DeliveryDelivered), Status: d.ResponseStatus, Error: d.Error, Response: d.Response, DurationMillis: d.DurationMs,
		}
	}
	return w
}
