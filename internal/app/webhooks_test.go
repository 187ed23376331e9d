package app_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// A server is killed after it has posted an event and before it could write that
// down; the one that comes after it posts the same again.
func TestWebhooksOutliveTheServerThatSendsThem(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	var holding atomic.Bool
	holding.Store(true)
	var secret atomic.Value
	secret.Store("")
	ids := make(chan string, 10)
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = api.VerifyWebhook(secret.Load().(string), r.Header, body)
		}
		if err != nil {
			t.Error(err)
		}
		ids <- r.Header.Get("Webhook-Id")
		if holding.Load() {
			<-r.Context().Done()
		}
	}))
	defer target.Close()
	next := func() string {
		t.Helper()
		select {
		case id := <-ids:
			return id
		case <-ctx.Done():
			t.Fatal("nothing was posted")
			return ""
		}
	}
	url := pgtest.EmptyURL(t)
	in := newInstallation(t, "CODERCLAW_DATABASE_URL="+url, "CODERCLAW_WEBHOOK_ALLOW_PRIVATE=true")
	in.config("runtime.yaml", "security: {defaultRoles: [admin]}\n")
	first := in.serving("serve")
	w, err := in.client().CreateWebhook(ctx, api.NewWebhook{URL: target.URL, Statuses: []api.TaskStatus{api.TaskPending}})
	if err != nil {
		t.Fatal(err)
	}
	secret.Store(w.Secret)
	if _, err := in.client().SubmitTask(ctx, api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual}); err != nil {
		t.Fatal(err)
	}
	id := next()
	if err := first.stop(t, os.Kill); err == nil {
		t.Fatal("the first server was not killed")
	}
	holding.Store(false)
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	// As if its lease had run out.
	if tag, err := db.Exec(ctx, `UPDATE webhook_deliveries SET due_at = now() WHERE status = 'pending' AND claim IS NOT NULL AND attempts = 1`); err != nil || tag.RowsAffected() != 1 {
		t.Fatal(tag, err)
	}
	in.serving("serve")
	if again := next(); again != id {
		t.Errorf("posted %s after %s", again, id)
	}
	in.shows(`webhook_attempts_total{outcome="delivered"} 1`, "webhook_oldest_due_seconds 0")
	for d, err := range in.client().WebhookDeliveries(ctx, w.ID, api.DeliveryDelivered) {
		if err != nil || d.ID != id || d.Attempts != 2 || d.Type != "task.pending" || d.LastAttempt == nil || d.LastAttempt.Status != 200 {
			t.Errorf("delivery %+v, %v", d, err)
		}
	}
}
