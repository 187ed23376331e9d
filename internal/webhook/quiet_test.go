package webhook_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

// counter counts what is asked of the database.
type counter struct{ pgtest.RoundTrips }

// settled waits until nothing was asked for a while, and returns how much was
// asked by then.
func (c *counter) settled(t *testing.T) int64 {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		n := c.Load()
		<-time.After(300 * time.Millisecond)
		if c.Load() == n {
			return n
		}
	}
	t.Fatal("the database is asked again and again")
	return 0
}

func TestTheDatabaseIsLeftAloneWhileNobodyIsToBeTold(t *testing.T) {
	t.Parallel()
	count := &counter{}
	r := rigOn(t, pgtest.DB(t, count.Count), true)
	r.start()
	before := count.settled(t)
	changed := func() {
		for range 50 {
			r.bus.Publish(stream.Signal{Topic: stream.TaskChanged, ID: "0190b8a1-0000-7000-8000-000000000000"})
		}
	}
	changed()
	if n := count.settled(t) - before; n != 0 {
		t.Errorf("without a webhook the database is asked %d times of changes", n)
	}
	to := newTarget(t, nil)
	w, _ := r.create(shop, webhook.New{URL: to.URL})
	r.submit(shop, task.New{})
	r.until(w, "delivered", all(1, "delivered"))
	count.settled(t) // nothing is asked while nothing happens
	if _, err := r.Update(t.Context(), shop, w.ID, webhook.Patch{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	if before = count.settled(t); before == 0 {
		t.Error("nothing was counted")
	}
	changed()
	if n := count.settled(t) - before; n != 0 {
		t.Errorf("with a webhook that is disabled the database is asked %d times of changes", n)
	}
}

func TestNothingIsLostWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := postgres.Open(t.Context(), url, postgres.As(postgres.AppRole))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	name := config.Database
	config.Database = "postgres"
	admin, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	connections := func(allowed string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), `ALTER DATABASE `+pgx.Identifier{name}.Sanitize()+` ALLOW_CONNECTIONS `+allowed); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name); err != nil {
			t.Fatal(err)
		}
	}
	r, to := rigOn(t, pool, true), newTarget(t, nil)
	w, _ := r.create(shop, webhook.New{URL: to.URL})
	r.start()
	r.submit(shop, task.New{})
	to.next(t)
	r.until(w, "delivered", all(1, "delivered"))
	// Committed, and the database is gone before anybody looks.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), `WITH c AS (
			UPDATE tasks SET status = 'planning', last_seq = last_seq + 1, last_txid = pg_current_xact_id(), updated_at = now() RETURNING *
		) INSERT INTO task_events (task_id, seq, txid, created_at, type, status) SELECT id, last_seq, last_txid, clock_timestamp(), 'status', status FROM c`)
	if err == nil {
		err = tx.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	connections("false")
	r.bus.Publish(stream.Signal{Topic: stream.TaskChanged})
	for deadline := time.Now().Add(time.Minute); r.log.String() == ""; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody noticed that the database is away")
		}
	}
	connections("true")
	if p := to.next(t); p.Event.Type != "task.planning" {
		t.Errorf("sent %s", p.Body)
	}
	r.until(w, "delivered", all(2, "delivered"))
}

// Another server was killed before it could tell of what it had done.
func TestWhatNoSignalToldOfIsFoundByLooking(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	silent, r := rigOn(t, pool, true), rigOn(t, pool, true)
	to := newTarget(t, nil)
	r.start()
	w, _ := silent.create(shop, webhook.New{URL: to.URL})
	silent.submit(shop, task.New{})
	look := func() {
		t.Helper()
		if err := webhook.Look(r.Service, t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look() // finds the webhook and the event
	r.until(w, "delivered", all(1, "delivered"))
	silent.submit(shop, task.New{})
	look() // finds the event
	r.until(w, "delivered", all(2, "delivered"))
	r.exec(`UPDATE webhook_deliveries SET status = 'pending', due_at = now(), ended_at = NULL`)
	look() // finds what is due
	r.until(w, "delivered", all(2, "delivered"))
	to.take(t, 4)
}
