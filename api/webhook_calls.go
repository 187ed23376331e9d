package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// CreateWebhook makes a webhook. Its secret is in the answer alone.
func (c *Client) CreateWebhook(ctx context.Context, n NewWebhook) (CreatedWebhook, error) {
	var out CreatedWebhook
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/webhooks", in: n, out: &out, once: true})
}

// Webhooks yields the webhooks that the caller sees, newest first. It ends after
// an error.
func (c *Client) Webhooks(ctx context.Context) iter.Seq2[Webhook, error] {
	return pages("", func(cursor string) ([]Webhook, string, error) {
		var out WebhookList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/webhooks", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// Webhook returns one webhook.
func (c *Client) Webhook(ctx context.Context, id string) (Webhook, error) {
	var out Webhook
	return out, c.get(ctx, "/v1/webhooks", id, "", nil, &out)
}

// UpdateWebhook changes a webhook and returns it.
func (c *Client) UpdateWebhook(ctx context.Context, id string, p WebhookPatch) (Webhook, error) {
	var out Webhook
	return out, c.onWebhook(ctx, http.MethodPatch, id, "", p, &out)
}

// DeleteWebhook removes a webhook with its deliveries.
func (c *Client) DeleteWebhook(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/webhooks", id)
}

// RotateWebhookSecret gives a webhook another secret. It is in the answer alone.
func (c *Client) RotateWebhookSecret(ctx context.Context, id string, r RotateWebhookSecret) (WebhookSecret, error) {
	var out WebhookSecret
	return out, c.onWebhook(ctx, http.MethodPost, id, "/secret", r, &out)
}

// TestWebhook posts an event of the type webhook.ping once, at once, and returns
// what came of it.
func (c *Client) TestWebhook(ctx context.Context, id string) (WebhookAttempt, error) {
	var out WebhookAttempt
	return out, c.onWebhook(ctx, http.MethodPost, id, "/test", nil, &out)
}

// WebhookDeliveries yields what a webhook is or was sent, newest first; with a
// status, what has it. It ends after an error.
func (c *Client) WebhookDeliveries(ctx context.Context, id string, status DeliveryStatus) iter.Seq2[WebhookDelivery, error] {
	return pages("", func(cursor string) ([]WebhookDelivery, string, error) {
		query := page(0, cursor)
		if status != "" {
			query.Set("status", string(status))
		}
		var out WebhookDeliveryList
		err := c.get(ctx, "/v1/webhooks", id, "/deliveries", query, &out)
		return out.Items, out.NextCursor, err
	})
}

// RetryDelivery has a delivery tried again, from the first attempt.
func (c *Client) RetryDelivery(ctx context.Context, id, delivery string) (WebhookDelivery, error) {
	var out WebhookDelivery
	return out, c.onWebhook(ctx, http.MethodPost, id, "/deliveries/"+url.PathEscape(delivery)+"/retry", nil, &out)
}

// ReplayWebhook queues events of the past.
func (c *Client) ReplayWebhook(ctx context.Context, id string, r WebhookReplay) (WebhookReplayed, error) {
	var out WebhookReplayed
	return out, c.onWebhook(ctx, http.MethodPost, id, "/replay", r, &out)
}

func (c *Client) onWebhook(ctx context.Context, method, id, rest string, in, out any) error {
	path, err := item("/v1/webhooks", id, rest)
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: method, path: path, in: in, out: out, once: true})
}
