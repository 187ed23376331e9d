package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

var (
	root = policy.Caller{UserID: "local:root", Roles: []policy.Role{policy.Admin}, AllProjects: true}
	shop = policy.Caller{UserID: "local:ann", Roles: []policy.Role{policy.Admin}, ProjectID: "shop"}
	bank = policy.Caller{UserID: "local:bob", Roles: []policy.Role{policy.Admin}, ProjectID: "bank"}
)

// roles decide by what is built in.
type roles struct{}

func (roles) Decide(_ context.Context, c policy.Caller, r policy.Request) (policy.Decision, error) {
	return policy.Authorize(c, r.Permission), nil
}
func (roles) Record(context.Context, audit.Entry)    {}
func (roles) Runnable(context.Context, string) error { return nil }
func (roles) Submitter(_ context.Context, userID, _, project string) (policy.Caller, error) {
	return policy.Caller{UserID: userID, ProjectID: project, Roles: []policy.Role{policy.Developer}}, nil
}

// rig is a database, its tasks, and the webhooks of one server, which does not
// run until it is started.
type rig struct {
	t     *testing.T
	pool  *pgxpool.Pool
	bus   *stream.Memory
	tasks *task.Service
	log   *buffer
	*webhook.Service
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return rigOn(t, pgtest.DB(t), true)
}

func rigOn(t *testing.T, pool *pgxpool.Pool, private bool) *rig {
	t.Helper()
	r := &rig{t: t, pool: pool, bus: &stream.Memory{}, log: &buffer{}}
	r.tasks = task.NewService(pool, task.Options{Agents: roles{}, Access: roles{}, Submitters: roles{}, Recorder: roles{}, Bus: r.bus, Log: slog.New(slog.DiscardHandler)})
	r.Service = webhook.NewService(pool, webhook.Options{
		Access: roles{}, Recorder: roles{}, Bus: r.bus, Log: slog.New(slog.NewTextHandler(r.log, nil)), AllowPrivate: private,
	})
	return r
}

// start runs the server until the test ends, or stop is called.
func (r *rig) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	stop = func() { cancel(); <-done }
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) exec(sql string, args ...any) int64 {
	r.t.Helper()
	tag, err := r.pool.Exec(r.t.Context(), sql, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return tag.RowsAffected()
}

func (r *rig) create(c policy.Caller, n webhook.New) (webhook.Webhook, string) {
	r.t.Helper()
	w, secret, err := r.Create(r.t.Context(), c, n)
	if err != nil {
		r.t.Fatal(err)
	}
	return w, secret
}

func (r *rig) submit(c policy.Caller, n task.New) task.Task {
	r.t.Helper()
	n.Description, n.Dispatch = "d", task.Manual
	tk, err := r.tasks.Submit(r.t.Context(), c, n, "")
	if err != nil {
		r.t.Fatal(err)
	}
	return tk
}

func (r *rig) update(c policy.Caller, id uuid.UUID, patches ...task.Patch) {
	r.t.Helper()
	for _, p := range patches {
		if _, err := r.tasks.Update(r.t.Context(), c, id, p); err != nil {
			r.t.Fatal(err)
		}
	}
}

// deliveries are all of a webhook's, newest first.
func (r *rig) deliveries(w webhook.Webhook) []webhook.Delivery {
	r.t.Helper()
	all, more, err := r.Deliveries(r.t.Context(), root, w.ID, "", 1<<62, 500)
	if err != nil || more {
		r.t.Fatal(more, err)
	}
	return all
}

// until waits for the deliveries of a webhook to be as they should.
func (r *rig) until(w webhook.Webhook, what string, ok func([]webhook.Delivery) bool) []webhook.Delivery {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		all := r.deliveries(w)
		if ok(all) {
			return all
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s: %+v\n%s", what, all, r.log)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func all(n int, status string) func([]webhook.Delivery) bool {
	return func(deliveries []webhook.Delivery) bool {
		for _, d := range deliveries {
			if d.Status != status {
				return false
			}
		}
		return len(deliveries) == n
	}
}

// hurry makes what waits for its next attempt due, as soon as something does.
func (r *rig) hurry() {
	r.t.Helper()
	const sql = `UPDATE webhook_deliveries SET due_at = now() WHERE due_at > now() AND claim IS NULL`
	for deadline := time.Now().Add(time.Minute); r.exec(sql) == 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("nothing waits")
		}
	}
	r.bus.Publish(stream.Signal{Topic: stream.WebhooksChanged})
}

// post is something that a target was sent.
type post struct {
	Header http.Header
	Body   []byte
	Event  api.WebhookEvent
}

// target is somebody's server.
type target struct {
	*httptest.Server
	got chan post
}

// newTarget is a server that answers with answer, or 200 if that is nil.
func newTarget(t *testing.T, answer http.HandlerFunc) target {
	t.Helper()
	to := target{got: make(chan post, 10_000)}
	to.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := post{Header: r.Header.Clone()}
		p.Body, _ = io.ReadAll(r.Body)
		if err := json.Unmarshal(p.Body, &p.Event); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, p.Body, err)
		}
		to.got <- p
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(func() { to.CloseClientConnections(); to.Close() })
	return to
}

func (to target) next(t *testing.T) post {
	t.Helper()
	select {
	case p := <-to.got:
		return p
	case <-time.After(time.Minute):
		t.Fatal("the target was sent nothing")
		return post{}
	}
}

// take returns what a target was sent by id, when it is n posts.
func (to target) take(t *testing.T, n int) map[string][]post {
	t.Helper()
	found := map[string][]post{}
	for range n {
		p := to.next(t)
		id := p.Header.Get("webhook-id")
		found[id] = append(found[id], p)
	}
	return found
}

func (to target) quiet(t *testing.T) {
	t.Helper()
	select {
	case p := <-to.got:
		t.Errorf("the target was sent more: %s", p.Body)
	default:
	}
}
