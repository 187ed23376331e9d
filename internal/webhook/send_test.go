package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

// signatures computes what the header must hold, by the specification and
// nothing else.
func signatures(t *testing.T, p post, secrets ...string) string {
	t.Helper()
	var all []string
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) < 24 || len(key) > 64 {
			t.Fatalf("secret %q: %d bytes, %v", secret, len(key), err)
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", p.Header.Get("webhook-id"), p.Header.Get("webhook-timestamp"), p.Body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, " ")
}

func TestEachStatusChangeIsSentSignedAndInShort(t *testing.T) {
	t.Parallel()
	r, to := newRig(t), newTarget(t, nil)
	before := r.submit(shop, task.New{Input: "i"})
	w, secret := r.create(shop, webhook.New{URL: to.URL})
	r.start()
	r.update(shop, before.ID, task.Patch{Status: task.Planning})
	tk := r.submit(shop, task.New{Input: "a secret input", AgentID: "a", Labels: map[string]string{"team": "x"}})
	r.update(shop, tk.ID, task.Patch{Status: task.Planning}, task.Patch{Status: task.Running, Message: strings.Repeat("ä", 5000)}, task.Patch{Message: "only a line"},
		task.Patch{Status: task.Failed, Error: new("it broke"), Data: json.RawMessage(`{"reason":"exit:1\u0000"}`)})
	r.until(w, "delivered", all(5, "delivered"))

	types := map[string]bool{}
	for id, posts := range to.take(t, 5) {
		p := posts[0]
		if len(posts) != 1 || p.Header.Get("webhook-signature") != signatures(t, p, secret) || p.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%d posts with %s, headers %v", len(posts), id, p.Header)
		}
		if err := api.VerifyWebhook(secret, p.Header, p.Body); err != nil {
			t.Error(err)
		}
		e := p.Event
		types[e.Type] = true
		if e.Type != "task."+string(e.Data.Status) || time.Since(e.Timestamp) > time.Minute || strings.Contains(string(p.Body), "secret input") || len(e.Data.Message) > 1000 {
			t.Errorf("sent %s", p.Body)
		}
		if e.Data.TaskID != tk.ID.String() {
			continue
		}
		want := api.WebhookTask{TaskID: tk.ID.String(), Seq: e.Data.Seq, Status: e.Data.Status, Message: e.Data.Message, StatusReason: e.Data.StatusReason,
			AgentID: "a", ProjectID: "shop", UserID: "local:ann", Labels: map[string]string{"team": "x"}}
		if fmt.Sprint(e.Data) != fmt.Sprint(want) || (e.Data.Status == "failed") != (e.Data.StatusReason == "exit:1\x00") {
			t.Errorf("sent %+v, want %+v", e.Data, want)
		}
	}
	if want := map[string]bool{"task.pending": true, "task.planning": true, "task.running": true, "task.failed": true}; fmt.Sprint(types) != fmt.Sprint(want) {
		t.Errorf("types %v, want %v", types, want)
	}
	to.quiet(t)
}

func TestAFailedAttemptIsMadeAgainWithTheSameID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var n atomic.Int32
	to := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 1:
			http.Error(w, "no\x00t now", http.StatusInternalServerError)
		case 2:
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(http.StatusTooManyRequests)
		case 3:
			http.Redirect(w, &http.Request{}, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}
	})
	w, secret := r.create(shop, webhook.New{URL: to.URL})
	r.start()
	r.submit(shop, task.New{})
	failed := func(attempts int) func([]webhook.Delivery) bool {
		return func(d []webhook.Delivery) bool {
			return len(d) == 1 && d[0].Attempts == attempts && d[0].Error != "" && d[0].Status == "pending" && d[0].DueAt.Before(time.Now().Add(24*time.Hour))
		}
	}
	first := to.next(t)
	d := r.until(w, "failed", failed(1))[0]
	if d.ResponseStatus != 500 || !strings.HasPrefix(d.Response, "no\ufffdt now") || !d.DueAt.After(d.AttemptedAt.Add(3*time.Second)) || d.DueAt.After(d.AttemptedAt.Add(10*time.Second)) {
		t.Errorf("after the first attempt %+v", d)
	}
	if got, err := r.Webhook(t.Context(), shop, w.ID); err != nil || got.FailingSince == nil {
		t.Errorf("a failing webhook %+v, %v", got, err)
	}
	r.hurry()
	second := to.next(t)
	d = r.until(w, "told to wait", func(d []webhook.Delivery) bool { return failed(2)(d) && d[0].ResponseStatus == 429 })[0]
	if !d.DueAt.After(time.Now().Add(7000 * time.Second)) {
		t.Errorf("Retry-After is not heeded: %v", d.DueAt)
	}
	r.hurry()
	to.next(t)
	d = r.until(w, "redirected", func(d []webhook.Delivery) bool { return failed(3)(d) && d[0].ResponseStatus == 307 })[0]
	if !strings.Contains(d.Error, "redirects are not followed") {
		t.Errorf("of a redirect: %+v", d)
	}
	r.hurry()
	last := to.next(t)
	r.until(w, "delivered", all(1, "delivered"))
	for _, p := range []post{first, second, last} {
		if p.Header.Get("webhook-id") != d.ID() || string(p.Body) != string(first.Body) || p.Header.Get("webhook-signature") != signatures(t, p, secret) {
			t.Errorf("sent %v %s, want as before", p.Header, p.Body)
		}
	}
	if got, err := r.Webhook(t.Context(), shop, w.ID); err != nil || got.FailingSince != nil {
		t.Errorf("a webhook that does well again %+v, %v", got, err)
	}
	if got := r.Stats(); got != (webhook.Stats{Delivered: 1, Retried: 3}) {
		t.Errorf("stats %+v", got)
	}
}

func TestWhatFailsEightTimesIsDeadUntilSomebodyRetriesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var well atomic.Bool
	to := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	w, _ := r.create(shop, webhook.New{URL: to.URL})
	r.start()
	r.submit(shop, task.New{})
	for n := 1; n < 8; n++ {
		r.until(w, "tried", func(d []webhook.Delivery) bool {
			return len(d) == 1 && d[0].Attempts == n && d[0].Error != "" && d[0].DueAt != nil
		})
		r.hurry()
	}
	d := r.until(w, "dead", all(1, "dead"))[0]
	if d.Attempts != 8 || d.DueAt != nil || d.EndedAt == nil {
		t.Errorf("dead: %+v", d)
	}
	dead, _, err := r.Deliveries(t.Context(), shop, w.ID, "dead", 1<<62, 10)
	if err != nil || len(dead) != 1 {
		t.Errorf("the dead ones: %+v, %v", dead, err)
	}
	if none, _, err := r.Deliveries(t.Context(), shop, w.ID, "delivered", 1<<62, 10); err != nil || len(none) != 0 {
		t.Errorf("the delivered ones: %+v, %v", none, err)
	}
	well.Store(true)
	if _, err := r.Retry(t.Context(), shop, w.ID, d.ID()); err != nil {
		t.Fatal(err)
	}
	r.until(w, "delivered", all(1, "delivered"))
	if got := to.take(t, 9); len(got) != 1 || len(got[d.ID()]) != 9 {
		t.Errorf("sent %d ids, want one, nine times", len(got))
	}
	for _, id := range []string{"", "evt_", "evt_0_1", strings.ToUpper(d.ID()), d.ID() + "0", "evt_" + strings.Repeat("0", 32) + "_1"} {
		if _, err := r.Retry(t.Context(), shop, w.ID, id); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("retried %q: %v", id, err)
		}
	}
}

func TestAHangingTargetHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hang := make(chan struct{})
	hanging := newTarget(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	well := newTarget(t, nil)
	bad, _ := r.create(root, webhook.New{URL: hanging.URL})
	good, _ := r.create(root, webhook.New{URL: well.URL})
	r.start()
	const tasks = 100
	for range tasks {
		r.submit(shop, task.New{})
	}
	r.until(good, "delivered", all(tasks, "delivered"))
	if n := len(hanging.got); n < 1 || n > 4 {
		t.Errorf("a target that hangs was sent %d at once, want at most 4", n)
	}
	close(hang)
	r.until(bad, "delivered", all(tasks, "delivered"))
}

func TestNothingButPublicAddressesIsReachedUnlessAllowed(t *testing.T) {
	t.Parallel()
	to := newTarget(t, nil)
	_, port, err := net.SplitHostPort(to.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	pool := pgtest.DB(t)
	r := rigOn(t, pool, false)
	for _, url := range []string{
		"https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:a9fe:a9fe]/", "https://169.254.169.254/", "https://[fd00:ec2::254]/",
		"https://0.0.0.0/", "https://example.com:22/", "http://example.com/", "https://u:p@example.com/", "ftp://example.com/", "https://", "https:///x", "//example.com/", "https://example.com/#f", "https://example.com/" + strings.Repeat("x", 2048),
	} {
		if _, _, err := r.Create(t.Context(), shop, webhook.New{URL: url}); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("made for %.60s: %v", url, err)
		}
	}
	// Names and what is written otherwise show when they are asked for.
	for _, host := range []string{"localhost", "127.1", "2130706433", "localhost."} {
		w, _ := r.create(shop, webhook.New{URL: "https://" + host + "/"})
		got, err := r.Test(t.Context(), shop, w.ID)
		if err != nil || got.Delivered || got.ResponseStatus != 0 || got.Error == "" || strings.Contains(got.Error, "127.0.0.1") {
			t.Errorf("%s: %+v, %v", host, got, err)
		}
	}
	// What was made while it was allowed is refused later.
	for _, host := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "localhost"} {
		w, _ := r.create(shop, webhook.New{URL: "https://example.com/"})
		r.exec(`UPDATE webhooks SET url = $2 WHERE id = $1`, w.ID, "http://"+host+":"+port)
		if got, err := r.Test(t.Context(), shop, w.ID); err != nil || got.Error != "not sent: it is not at a public address on port 443" {
			t.Errorf("%s: %+v, %v", host, got, err)
		}
	}
	to.quiet(t)

	private := rigOn(t, pool, true)
	for _, url := range []string{"http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://[fe80::1]/"} {
		if _, _, err := private.Create(t.Context(), shop, webhook.New{URL: url}); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("made for %s: %v", url, err)
		}
	}
	w, secret := private.create(shop, webhook.New{URL: "http://localhost:" + port + "/x?y"})
	if got, err := private.Test(t.Context(), shop, w.ID); err != nil || !got.Delivered || got.ResponseStatus != 200 {
		t.Errorf("%+v, %v", got, err)
	}
	if p := to.next(t); p.Event.Type != "webhook.ping" || p.Header.Get("webhook-signature") != signatures(t, p, secret) {
		t.Errorf("pinged %s", p.Body)
	}
}

func TestATargetThatIsGoneOrFailsForDaysIsDisabled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gone := newTarget(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	bad := newTarget(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	first, _ := r.create(shop, webhook.New{URL: gone.URL + "/?token=hush"})
	second, _ := r.create(shop, webhook.New{URL: bad.URL})
	r.start()
	r.submit(shop, task.New{})
	r.until(first, "dead", all(1, "dead"))
	r.until(second, "tried", func(d []webhook.Delivery) bool { return len(d) == 1 && d[0].Error != "" })
	r.exec(`UPDATE webhooks SET failing_since = now() - interval '4 days' WHERE id = $1`, second.ID)
	r.exec(`UPDATE webhook_deliveries SET attempts = 7 WHERE webhook_id = $1`, second.ID)
	r.hurry()
	r.until(second, "dead", all(1, "dead"))
	for _, tc := range []struct {
		w    webhook.Webhook
		says string
	}{{first, "410"}, {second, "72 hours"}} {
		got, err := r.Webhook(t.Context(), shop, tc.w.ID)
		if err != nil || got.Enabled || !strings.Contains(got.DisabledReason, tc.says) || got.DisabledAt == nil {
			t.Errorf("webhook %+v, %v", got, err)
		}
		var entries int
		if err := r.pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_entries WHERE action = 'webhook.disable' AND resource_id = $1 AND project_id = 'shop' AND reason LIKE '%' || $2 || '%'`,
			tc.w.ID.String(), tc.says).Scan(&entries); err != nil || entries != 1 {
			t.Errorf("%d entries of the end of a webhook, %v", entries, err)
		}
	}
	gone.take(t, 1)
	r.submit(shop, task.New{})
	again, err := r.Update(t.Context(), shop, first.ID, webhook.Patch{Enabled: new(true)})
	if err != nil || !again.Enabled || again.DisabledReason != "" || again.DisabledAt != nil {
		t.Errorf("enabled again %+v, %v", again, err)
	}
	r.submit(shop, task.New{})
	r.until(first, "dead", all(2, "dead")) // not what happened meanwhile
	gone.take(t, 1)
	gone.quiet(t)
}

// A server that is killed leaves its deliveries claimed, posted or not.
func TestWhatAKilledServerWasSendingIsSentAgainWithTheSameID(t *testing.T) {
	t.Parallel()
	r, to := newRig(t), newTarget(t, nil)
	w, _ := r.create(shop, webhook.New{URL: to.URL})
	stop := r.start()
	tk := r.submit(shop, task.New{})
	r.until(w, "delivered", all(1, "delivered"))
	stop()
	// As it was between the post and its record.
	r.exec(`UPDATE webhook_deliveries SET status = 'pending', ended_at = NULL, claim = gen_random_uuid(), due_at = now() + interval '1 second'`)
	other := rigOn(t, r.pool, true)
	other.start()
	d := other.until(w, "delivered", all(1, "delivered"))[0]
	if got := to.take(t, 2); len(got) != 1 || len(got[webhook.MessageID(tk.ID, 1)]) != 2 || d.Attempts != 2 {
		t.Errorf("sent %d ids in %d attempts", len(got), d.Attempts)
	}
}

func TestAServerThatStopsGivesBackWhatItWasSending(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var well atomic.Bool
	to := newTarget(t, func(_ http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			<-r.Context().Done()
		}
	})
	w, _ := r.create(shop, webhook.New{URL: to.URL})
	stop := r.start()
	r.submit(shop, task.New{})
	first := to.next(t)
	stop()
	if d := r.deliveries(w)[0]; d.Status != "pending" || d.Attempts != 0 || d.DueAt.After(time.Now().Add(time.Second)) {
		t.Errorf("given back as %+v", d)
	}
	well.Store(true)
	other := rigOn(t, r.pool, true)
	other.start()
	if p := to.next(t); p.Header.Get("webhook-id") != first.Header.Get("webhook-id") {
		t.Error("sent with another id")
	}
	other.until(w, "delivered", all(1, "delivered"))
}

func TestTheFormerSecretSignsTooForATime(t *testing.T) {
	t.Parallel()
	r, to := newRig(t), newTarget(t, nil)
	w, former := r.create(shop, webhook.New{URL: to.URL})
	r.start()
	secret, until, err := r.Rotate(t.Context(), shop, w.ID, time.Hour)
	if err != nil || secret == former || until == nil || until.Before(time.Now().Add(59*time.Minute)) {
		t.Fatal(secret, until, err)
	}
	r.submit(shop, task.New{})
	p := to.next(t)
	if got, want := p.Header.Get("webhook-signature"), signatures(t, p, secret, former); got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
	for _, s := range []string{secret, former} {
		if err := api.VerifyWebhook(s, p.Header, p.Body); err != nil {
			t.Error(err)
		}
	}
	last, until, err := r.Rotate(t.Context(), shop, w.ID, 0)
	if err != nil || until != nil {
		t.Fatal(until, err)
	}
	r.submit(shop, task.New{})
	p = to.next(t)
	if got, want := p.Header.Get("webhook-signature"), signatures(t, p, last); got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
	if _, _, err := r.Rotate(t.Context(), shop, w.ID, 8*24*time.Hour); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("kept for eight days: %v", err)
	}
	var told int
	err = r.pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_entries a, unnest($1::text[]) AS s WHERE strpos(a::text, s) > 0`, []string{secret, former, last}).Scan(&told)
	if err != nil || told > 0 {
		t.Errorf("the audit log tells %d secrets, %v", told, err)
	}
}
