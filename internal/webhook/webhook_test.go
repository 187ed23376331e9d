package webhook_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

func TestOnlyWhatAWebhookIsAboutIsSent(t *testing.T) {
	t.Parallel()
	r, to := newRig(t), newTarget(t, nil)
	alone := policy.Caller{UserID: "local:eve", Roles: []policy.Role{policy.Admin}}
	filters := map[string]struct {
		by   policy.Caller
		n    webhook.New
		want []string // tasks
	}{
		"all projects":            {root, webhook.New{}, []string{"shop", "shop a", "shop x", "bank", "eve"}},
		"a project":               {shop, webhook.New{}, []string{"shop", "shop a", "shop x"}},
		"another project":         {bank, webhook.New{}, []string{"bank"}},
		"a project, by root":      {root, webhook.New{ProjectID: "bank"}, []string{"bank"}},
		"tasks without a project": {alone, webhook.New{}, []string{"eve"}},
		"an agent":                {root, webhook.New{AgentID: "a"}, []string{"shop a"}},
		"labels":                  {root, webhook.New{Labels: map[string]string{"team": "x"}}, []string{"shop x"}},
		"statuses":                {root, webhook.New{Statuses: []string{"completed"}}, nil},
		"disabled":                {root, webhook.New{Disabled: true}, nil},
	}
	made := map[string]webhook.Webhook{}
	for name, f := range filters {
		f.n.URL = to.URL
		made[name], _ = r.create(f.by, f.n)
	}
	r.start()
	tasks := map[uuid.UUID]string{
		r.submit(shop, task.New{}).ID:                                                 "shop",
		r.submit(shop, task.New{AgentID: "a"}).ID:                                     "shop a",
		r.submit(shop, task.New{Labels: map[string]string{"team": "x", "y": "z"}}).ID: "shop x",
		r.submit(bank, task.New{}).ID:                                                 "bank",
		r.submit(alone, task.New{}).ID:                                                "eve",
	}
	r.until(made["all projects"], "delivered", all(5, "delivered"))
	for name, f := range filters {
		var got []string
		for _, d := range r.until(made[name], "delivered", all(len(f.want), "delivered")) {
			got = append(got, tasks[d.TaskID])
		}
		slices.Sort(got)
		slices.Sort(f.want)
		if !slices.Equal(got, f.want) {
			t.Errorf("%s is sent %v, want %v", name, got, f.want)
		}
	}
}

func TestTwoServersSendEachEventOnce(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t, postgres.MaxConns(16))
	one, two := rigOn(t, pool, true), rigOn(t, pool, true)
	// As it is with servers that hear of each other.
	one.bus.Subscribe(func(s stream.Signal) {
		if s.Topic == stream.TaskChanged || s.Topic == stream.WebhooksChanged {
			two.bus.Publish(s)
		}
	})
	to, slow := newTarget(t, nil), newTarget(t, nil)
	a, _ := one.create(root, webhook.New{URL: to.URL})
	b, _ := one.create(root, webhook.New{URL: slow.URL})
	one.start()
	two.start()
	const writers, each = 4, 30
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				tk := one.submit(shop, task.New{})
				one.update(shop, tk.ID, task.Patch{Status: task.Planning})
			}
		})
	}
	writing.Wait()
	const events = 2 * writers * each
	for _, w := range []webhook.Webhook{a, b} {
		for _, d := range one.until(w, "delivered", all(events, "delivered")) {
			if d.Attempts != 1 {
				t.Errorf("%s was sent %d times", d.ID(), d.Attempts)
			}
		}
	}
	for _, target := range []target{to, slow} {
		for id, posts := range target.take(t, events) {
			if len(posts) != 1 {
				t.Errorf("%s arrived %d times", id, len(posts))
			}
		}
		target.quiet(t)
	}
	if x, y := one.Stats().Delivered, two.Stats().Delivered; x+y != 2*events {
		t.Errorf("the servers sent %d and %d, want %d in all", x, y, 2*events)
	}
}

func TestEventsOfThePastAreReplayedWithTheirIDs(t *testing.T) {
	t.Parallel()
	r, to := newRig(t), newTarget(t, nil)
	begin := time.Now().Add(-time.Minute)
	old := r.submit(shop, task.New{}) // before there was a webhook
	r.submit(bank, task.New{})
	w, _ := r.create(shop, webhook.New{URL: to.URL})
	r.start()
	later := r.submit(shop, task.New{})
	r.until(w, "delivered", all(1, "delivered"))
	to.take(t, 1)
	queued, next, err := r.Replay(t.Context(), shop, w.ID, begin, nil)
	if err != nil || queued != 2 || next != nil {
		t.Errorf("replayed %d, %v, %v; want two", queued, next, err)
	}
	got := to.take(t, 2)
	for _, id := range []string{webhook.MessageID(old.ID, 1), webhook.MessageID(later.ID, 1)} {
		if len(got[id]) != 1 {
			t.Errorf("%s was replayed %d times", id, len(got[id]))
		}
	}
	r.until(w, "delivered", all(2, "delivered"))
	if queued, _, err := r.Replay(t.Context(), shop, w.ID, begin, new(later.CreatedAt)); err != nil || queued != 1 {
		t.Errorf("replayed %d up to the second, %v", queued, err)
	}
	for _, since := range []time.Time{time.Now().Add(time.Hour), time.Now().Add(-31 * 24 * time.Hour)} {
		if _, _, err := r.Replay(t.Context(), shop, w.ID, since, nil); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("replayed since %v: %v", since, err)
		}
	}
}

func TestAWebhookThatIsDisabledOrDeletedInTheMidstOfADeliveryIsSentNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	answer := make(chan struct{})
	to := newTarget(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	})
	disabled, _ := r.create(shop, webhook.New{URL: to.URL, Statuses: []string{"pending"}})
	r.start()
	r.submit(shop, task.New{})
	to.next(t)
	if _, err := r.Update(t.Context(), shop, disabled.ID, webhook.Patch{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	deleted, _ := r.create(shop, webhook.New{URL: to.URL})
	r.submit(shop, task.New{})
	to.next(t)
	if err := r.Delete(t.Context(), shop, deleted.ID); err != nil {
		t.Fatal(err)
	}
	close(answer)
	r.until(disabled, "delivered", all(1, "delivered"))
	if _, _, err := r.Deliveries(t.Context(), shop, deleted.ID, "", 1<<62, 1); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("deliveries of what is gone: %v", err)
	}
	r.submit(shop, task.New{})
	other := newTarget(t, nil)
	w, _ := r.create(shop, webhook.New{URL: other.URL})
	r.submit(shop, task.New{})
	r.until(w, "delivered", all(1, "delivered"))
	to.quiet(t)
	if strings.Contains(r.log.String(), "level=WARN") {
		t.Errorf("logged %s", r.log)
	}
}

func TestOthersProjectsHaveWebhooksOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	w, _ := r.create(shop, webhook.New{URL: "https://example.com/"})
	wide, _ := r.create(root, webhook.New{URL: "https://example.com/"})
	for name, err := range map[string]error{
		"read":       second(r.Webhook(ctx, bank, w.ID)),
		"changed":    second(r.Update(ctx, bank, w.ID, webhook.Patch{Description: new("x")})),
		"deleted":    r.Delete(ctx, bank, w.ID),
		"pinged":     second(r.Test(ctx, bank, w.ID)),
		"retried":    second(r.Retry(ctx, bank, w.ID, webhook.MessageID(uuid.Max, 1))),
		"read wide":  second(r.Webhook(ctx, bank, wide.ID)),
		"widened":    r.Delete(ctx, shop, wide.ID),
		"nonsense":   second(r.Webhook(ctx, root, uuid.Nil)),
		"deliveries": third(r.Deliveries(ctx, bank, w.ID, "", 1<<62, 1)),
		"rotated":    third(r.Rotate(ctx, bank, w.ID, 0)),
		"replayed":   third(r.Replay(ctx, bank, w.ID, time.Now().Add(-time.Hour), nil)),
	} {
		if fault.CodeOf(err) != fault.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all, _, err := r.Webhooks(ctx, bank, uuid.Max, 10); err != nil || len(all) != 0 {
		t.Errorf("the bank sees %v, %v", all, err)
	}
	if all, _, err := r.Webhooks(ctx, root, uuid.Max, 10); err != nil || len(all) != 2 {
		t.Errorf("root sees %v, %v", all, err)
	}
	if _, _, err := r.Create(ctx, shop, webhook.New{URL: "https://example.com/", ProjectID: "bank"}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("made for another project: %v", err)
	}
	reader := shop
	reader.Roles = []policy.Role{policy.ReadOnly}
	if _, _, err := r.Create(ctx, reader, webhook.New{URL: "https://example.com/"}); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("made by a reader: %v", err)
	}
	// The wall behind: as the database role of whoever is confined.
	tx, err := r.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	var seen int
	if err := tx.QueryRow(ctx, `SELECT count(set_config('role', 'coderclaw_scoped', true)) + count(set_config('coderclaw.project', 'bank', true)) * 0`).Scan(&seen); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(ctx, `SELECT (SELECT count(id) FROM webhooks) + (SELECT count(*) FROM webhook_deliveries)`).Scan(&seen); err != nil || seen != 0 {
		t.Errorf("the bank's role sees %d rows, %v", seen, err)
	}
	if _, err := tx.Exec(ctx, `SELECT secret FROM webhooks`); err == nil {
		t.Error("a role that is confined reads secrets")
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }

func TestAProjectHasABoundedNumberOfWebhooks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var refused, made atomic.Int32
	var making sync.WaitGroup
	for range 6 {
		making.Go(func() {
			for range 10 {
				switch _, _, err := r.Create(t.Context(), shop, webhook.New{URL: "https://example.com/"}); {
				case err == nil:
					made.Add(1)
				case fault.CodeOf(err) == fault.TooMany:
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	making.Wait()
	if made.Load() != webhook.MaxPerProject || refused.Load() != 60-webhook.MaxPerProject {
		t.Errorf("%d were made and %d refused", made.Load(), refused.Load())
	}
	r.create(bank, webhook.New{URL: "https://example.com/"})
}

func TestOldDeliveriesAreForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w, _ := r.create(shop, webhook.New{URL: "https://example.com/", Disabled: true})
	r.exec(`INSERT INTO webhook_deliveries (task_id, seq, webhook_id, created_at) SELECT gen_random_uuid(), n, $1, now() - n * interval '1 day' FROM generate_series(1, 60) n`, w.ID)
	r.start()
	got := r.until(w, "tidy", func(d []webhook.Delivery) bool { return len(d) < 60 })
	if len(got) != 29 && len(got) != 30 {
		t.Errorf("%d deliveries are left", len(got))
	}
}

// The cursor is from another cluster, whose transactions had higher numbers.
func TestADatabaseThatWasRestoredFromADumpGoesOnWithoutSendingAnythingAgain(t *testing.T) {
	t.Parallel()
	r, to := newRig(t), newTarget(t, nil)
	w, _ := r.create(shop, webhook.New{URL: to.URL})
	stop := r.start()
	r.submit(shop, task.New{})
	r.until(w, "delivered", all(1, "delivered"))
	stop()
	r.exec(`UPDATE webhook_cursor SET txid = '1000000000000'`)
	other := rigOn(t, r.pool, true)
	other.start()
	other.submit(shop, task.New{})
	other.until(w, "delivered", all(2, "delivered"))
	for id, posts := range to.take(t, 2) {
		if len(posts) != 1 {
			t.Errorf("%s was sent %d times", id, len(posts))
		}
	}
	to.quiet(t)
}
