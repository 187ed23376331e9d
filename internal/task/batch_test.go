package task_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/task"
)

// Reports that arrive while others are being written share one transaction with
// each other, except those about one task, which keep their order; a bad one
// fails alone.
func TestReportsThatComeTogetherAreWrittenTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 12 {
		r.submit(t, task.New{})
	}
	leases := r.claim(t, "w", 12)
	note := func(message string) task.Report {
		return task.Report{Events: []task.ReportEvent{{Type: task.LogEvent, Message: message}}}
	}

	// Two flushes wait for locks; all else waits for them.
	hold, err := r.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Rollback(t.Context()) }()
	if _, err := hold.Exec(t.Context(), `SELECT FROM tasks WHERE id = ANY ($1) FOR UPDATE`, []uuid.UUID{leases[0].ID, leases[1].ID}); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	for i := range 2 {
		waiting.Go(func() {
			if err := r.report(t, leases[i], note("held up")); err != nil {
				t.Error(err)
			}
		})
		eventually(t, func() bool { return r.FlushesUnderWay() == i+1 })
	}
	queued := 0
	send := func(l task.Lease, rep task.Report, check func(error)) {
		waiting.Go(func() { check(r.report(t, l, rep)) })
		queued++
		eventually(t, func() bool { return r.Queued() == queued })
	}
	good := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	for _, l := range leases[2:11] {
		send(l, note("together"), good)
	}
	for n := range 3 {
		send(leases[2], note(fmt.Sprint("again ", n)), good)
	}
	stale := leases[11]
	stale.LeaseToken = uuid.New()
	send(stale, note("late"), func(err error) { wantFault(t, err, fault.LeaseLost) })
	if err := hold.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()

	rows, err := r.pool.Query(t.Context(), `SELECT DISTINCT txid::text FROM task_events WHERE message = 'together'`)
	if err != nil {
		t.Fatal(err)
	}
	if txs, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(txs) != 1 {
		t.Errorf("nine reports that waited together were written in %d transactions: %v", len(txs), err)
	}
	history := r.history(t, leases[2].ID)
	for n, e := range history[len(history)-4:] {
		want := "together"
		if n > 0 {
			want = fmt.Sprint("again ", n-1)
		}
		if e.Message != want {
			t.Errorf("event %d of a task that was reported on four times is %q, want %q", e.Seq, e.Message, want)
		}
	}
	if n := len(r.history(t, leases[11].ID)); n != 2 {
		t.Errorf("a stale report left its task with %d events", n)
	}
}

func TestABadReportFailsAloneAmongOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 20 {
		r.submit(t, task.New{})
	}
	var waiting sync.WaitGroup
	for i, l := range r.claim(t, "w", 20) {
		waiting.Go(func() {
			message := "fine"
			if i%7 == 3 {
				message = "what no text may hold: \x00"
			}
			err := r.report(t, l, task.Report{Events: []task.ReportEvent{{Type: task.LogEvent, Message: message}}})
			if (err != nil) != (message != "fine") {
				t.Errorf("%q: %v", message, err)
			}
			if n := len(r.history(t, l.ID)); (n == 3) != (message == "fine") {
				t.Errorf("%q left %d events", message, n)
			}
		})
	}
	waiting.Wait()
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, come func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !come(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}
