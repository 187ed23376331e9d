package task_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/task"
)

func TestClaimGivesEachTaskToOneWorker(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	servers := []rig{rigOn(t, pool), rigOn(t, pool)}
	batch := make([]task.New, 200)
	for i := range batch {
		batch[i] = task.New{Description: "d"}
	}
	if _, err := servers[0].SubmitBatch(t.Context(), ann, batch, ""); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	owner := map[uuid.UUID]string{}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			name := fmt.Sprint("worker-", w)
			servers[w%2].register(t, task.NewWorker{ID: name})
			for {
				leases, _, err := servers[w%2].Claim(t.Context(), task.InProcess, name, 7, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if len(leases) == 0 {
					return
				}
				mu.Lock()
				for _, l := range leases {
					if other, taken := owner[l.ID]; taken {
						t.Errorf("task %s went to %s and %s", l.ID, other, name)
					}
					owner[l.ID] = name
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(owner) != len(batch) {
		t.Errorf("%d of %d tasks were claimed", len(owner), len(batch))
	}
}

func TestClaimTakesTheHighestPriorityThenTheOldest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	low := r.submit(t, task.New{Priority: -1}).ID
	first := r.submit(t, task.New{}).ID
	second := r.submit(t, task.New{}).ID
	high := r.submit(t, task.New{Priority: 5, AgentID: "special"}).ID
	for _, want := range []uuid.UUID{high, first, second, low} {
		got := r.claim(t, "w", 1)
		if len(got) != 1 || got[0].ID != want {
			t.Fatalf("claimed %v, want %s", got, want)
		}
		if got[0].Status != task.Planning || got[0].Attempt != 1 || got[0].StartedAt == nil {
			t.Errorf("claimed task is %+v", got[0].Task)
		}
	}
	r.submit(t, task.New{AgentID: "special"})
	r.register(t, task.NewWorker{ID: "picky", Agents: []string{"other"}})
	if got, _, err := r.Claim(t.Context(), task.InProcess, "picky", 1, 0); err != nil || len(got) != 0 {
		t.Errorf("a worker got a task of an agent that it does not run: %v %v", got, err)
	}
}

func TestAWaitingClaimIsAnsweredWhenWorkAppears(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := make(chan []task.Lease)
	r.register(t, task.NewWorker{ID: "w"})
	go func() {
		leases, _, err := r.Claim(context.Background(), task.InProcess, "w", 1, time.Minute)
		if err != nil {
			t.Error(err)
		}
		got <- leases
	}()
	want := r.submit(t, task.New{}).ID
	if leases := <-got; len(leases) != 1 || leases[0].ID != want {
		t.Errorf("got %v", leases)
	}
}

func TestALeaseCarriesATaskToItsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.submit(t, task.New{}).ID
	lease := r.claim(t, "w", 1)[0]
	for _, rep := range []task.Report{
		{Status: task.Running},
		{Events: []task.ReportEvent{{Type: task.LogEvent, Message: "one"}, {Type: task.ProgressEvent, Progress: new(30)}, {Type: task.OutputEvent, Message: "piece"}}},
		{Events: []task.ReportEvent{{Type: task.LogEvent, Message: "last words"}}, Status: task.Completed, Output: new("whole")},
	} {
		if err := r.report(t, lease, rep); err != nil {
			t.Fatal(err)
		}
	}
	got := r.get(t, id)
	if got.Status != task.Completed || got.Output != "whole" || got.Progress != 100 || got.CompletedAt == nil {
		t.Errorf("task is %+v", got)
	}
	var story string
	for _, e := range r.history(t, id) {
		story += fmt.Sprintf("%s/%s ", e.Type, e.Status)
	}
	if want := "status/pending status/planning status/running log/running progress/running output/running log/running status/completed "; story != want {
		t.Errorf("history is  %s\nwant        %s", story, want)
	}
	wantFault(t, r.report(t, lease, task.Report{Status: task.Failed}), fault.LeaseLost)
}

func TestAStaleLeaseChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.submit(t, task.New{}).ID
	old := r.claim(t, "paused", 1)[0]
	r.expire(t, id)
	fresh := r.claim(t, "other", 1)
	if len(fresh) != 1 || fresh[0].ID != id || fresh[0].Attempt != 2 || fresh[0].Status != task.Running {
		t.Fatalf("the task was not offered again: %+v", fresh)
	}
	before := r.get(t, id)
	for name, rep := range map[string]task.Report{
		"status": {Status: task.Completed}, "failure": {Status: task.Failed, Error: "x"}, "release": {Release: true},
		"event": {Events: []task.ReportEvent{{Type: task.LogEvent, Message: "zombie"}}},
	} {
		if err := r.report(t, old, rep); fault.CodeOf(err) != fault.LeaseLost {
			t.Errorf("%s under a stale lease: %v", name, err)
		}
	}
	if after := r.get(t, id); after.LastSeq != before.LastSeq || after.Status != before.Status {
		t.Errorf("a stale lease changed the task from %+v to %+v", before, after)
	}
	lost, err := r.Heartbeat(t.Context(), task.InProcess, "paused", []uuid.UUID{old.LeaseToken}, time.Minute)
	if err != nil || len(lost) != 1 || lost[0] != old.LeaseToken {
		t.Errorf("the heartbeat said %v, %v", lost, err)
	}
	if err := r.report(t, fresh[0], task.Report{Status: task.Completed}); err != nil {
		t.Errorf("the new owner cannot complete: %v", err)
	}
}

// expire lets the lease of a task run out and waits until that is noticed.
func (r rig) expire(t *testing.T, id uuid.UUID) {
	t.Helper()
	if _, err := r.pool.Exec(t.Context(), `UPDATE tasks SET lease_expires_at = now() - interval '1 s' WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	r.sweepOnce(t)
}

// sweepOnce runs the housekeeping until it has swept.
func (r rig) sweepOnce(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = r.Run(ctx); close(done) }()
	deadline := time.After(20 * time.Second)
	for {
		var late bool
		err := r.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tasks WHERE lease_expires_at < now() OR
			NOT claimable AND dispatch = 'auto' AND blocked_by = 0 AND (status = 'pending' OR waiting_reason = 'retry') AND run_after < now())`).Scan(&late)
		if err != nil {
			t.Fatal(err)
		}
		if !late {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the housekeeping did not sweep")
		default:
		}
	}
	cancel()
	<-done
}

func TestATaskThatTakesItsWorkersDownFailsInTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.submit(t, task.New{}).ID
	for range 5 {
		if len(r.claim(t, "w", 1)) != 1 {
			t.Fatal("not offered again")
		}
		r.expire(t, id)
	}
	if got := r.get(t, id); got.Status != task.Failed || got.Error == "" {
		t.Errorf("task is %s %q", got.Status, got.Error)
	}
	r.history(t, id)
}

func TestAWorkerThatRegistersAgainHoldsNothingFromBefore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.submit(t, task.New{}).ID
	other := r.submit(t, task.New{}).ID
	r.claim(t, "w", 1)
	r.claim(t, "v", 1)
	r.register(t, task.NewWorker{ID: "w", Instance: uuid.New()})
	if got := r.get(t, id); got.Status != task.Waiting || got.WaitingReason != task.ForWorker {
		t.Errorf("task is %s %s", got.Status, got.WaitingReason)
	}
	if got := r.get(t, other); got.Status != task.Planning {
		t.Errorf("another worker's task is %s", got.Status)
	}
	got, _, err := r.Claim(t.Context(), task.InProcess, "w", 5, 0)
	if err != nil || len(got) != 1 || got[0].ID != id {
		t.Errorf("claimed %v, %v", got, err)
	}
}

func TestAReleasedTaskIsOfferedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.submit(t, task.New{})
	lease := r.claim(t, "w", 1)[0]
	if err := r.report(t, lease, task.Report{Release: true, Message: "server stopped"}); err != nil {
		t.Fatal(err)
	}
	if got := r.claim(t, "w", 1); len(got) != 1 || got[0].Attempt != 2 {
		t.Errorf("claimed %v", got)
	}
}

func TestAFailedAttemptWaitsForTheNextWhileAttemptsRemain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.submit(t, task.New{MaxAttempts: 2}).ID
	lease := r.claim(t, "w", 1)[0]
	if err := r.report(t, lease, task.Report{Status: task.Failed, Error: "flaky", Retryable: true}); err != nil {
		t.Fatal(err)
	}
	got := r.get(t, id)
	if got.Status != task.Waiting || got.WaitingReason != task.ForRetry || got.RunAfter == nil || got.CompletedAt != nil {
		t.Fatalf("task is %+v", got)
	}
	if early := r.claim(t, "w", 1); len(early) != 0 {
		t.Errorf("claimed before its time: %v", early)
	}
	if _, err := r.pool.Exec(t.Context(), `UPDATE tasks SET run_after = now() - interval '1 s' WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	r.sweepOnce(t)
	second := r.claim(t, "w", 1)
	if len(second) != 1 || second[0].Attempt != 2 {
		t.Fatalf("claimed %v", second)
	}
	if err := r.report(t, second[0], task.Report{Status: task.Failed, Error: "flaky", Retryable: true}); err != nil {
		t.Fatal(err)
	}
	if got := r.get(t, id); got.Status != task.Failed || got.Error != "flaky" {
		t.Errorf("task is %s %q", got.Status, got.Error)
	}
	r.history(t, id)

	final := r.submit(t, task.New{MaxAttempts: 5}).ID
	lease = r.claim(t, "w", 1)[0]
	if err := r.report(t, lease, task.Report{Status: task.Failed, Error: "wrong key"}); err != nil {
		t.Fatal(err)
	}
	if got := r.get(t, final); got.Status != task.Failed {
		t.Errorf("a failure that trying again does not mend left the task %s", got.Status)
	}
}

func TestATaskIsNotOfferedBeforeItsTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := time.Now().Add(time.Hour)
	id := r.submit(t, task.New{RunAfter: &at}).ID
	if got := r.claim(t, "w", 1); len(got) != 0 {
		t.Fatalf("claimed %v", got)
	}
	if _, err := r.pool.Exec(t.Context(), `UPDATE tasks SET run_after = now() - interval '1 s' WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	r.sweepOnce(t)
	if got := r.claim(t, "w", 1); len(got) != 1 {
		t.Error("not offered when its time had come")
	}
}

func TestCancellationReachesTheWorkerAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.submit(t, task.New{}).ID
	lease := r.claim(t, "w", 1)[0]
	lost := make(chan []uuid.UUID)
	go func() {
		l, err := r.Heartbeat(context.Background(), task.InProcess, "w", []uuid.UUID{lease.LeaseToken}, time.Minute)
		if err != nil {
			t.Error(err)
		}
		lost <- l
	}()
	if _, err := r.Cancel(t.Context(), ann, id); err != nil {
		t.Fatal(err)
	}
	if l := <-lost; len(l) != 1 || l[0] != lease.LeaseToken {
		t.Errorf("the heartbeat said %v", l)
	}
	wantFault(t, r.report(t, lease, task.Report{Status: task.Completed}), fault.LeaseLost)
}

func TestCancelAndCompleteRaceToOneEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 50 {
		id := r.submit(t, task.New{}).ID
		lease := r.claim(t, "w", 1)[0]
		if err := r.report(t, lease, task.Report{Status: task.Running}); err != nil {
			t.Fatal(err)
		}
		var cancelErr, completeErr error
		var wg sync.WaitGroup
		wg.Go(func() { _, cancelErr = r.Cancel(t.Context(), ann, id) })
		wg.Go(func() {
			completeErr = r.report(t, lease, task.Report{Status: task.Completed})
		})
		wg.Wait()
		got := r.get(t, id)
		if (cancelErr == nil) == (completeErr == nil) || (cancelErr == nil) != (got.Status == task.Cancelled) {
			t.Fatalf("cancel: %v, complete: %v, task: %s", cancelErr, completeErr, got.Status)
		}
		terminal := 0
		for _, e := range r.history(t, id) {
			if e.Status.Terminal() {
				terminal++
			}
		}
		if terminal != 1 {
			t.Fatalf("%d terminal events", terminal)
		}
	}
}

// A heartbeat locks tasks in the order of their ids, as whoever reports on several
// does, whatever their order in the table: otherwise the two could wait for each
// other.
func TestAHeartbeatHoldsNoTaskWhileItWaitsForAnEarlierOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, second := r.submit(t, task.New{}), r.submit(t, task.New{Priority: 100})
	leases := r.claim(t, "w", 2)
	if leases[0].ID != second.ID {
		t.Fatal("the task of high priority was not claimed, and written, first")
	}
	hold, err := r.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Rollback(t.Context()) }()
	if _, err := hold.Exec(t.Context(), `SELECT FROM tasks WHERE id = $1 FOR UPDATE`, first.ID); err != nil {
		t.Fatal(err)
	}
	var renewal sync.WaitGroup
	renewal.Go(func() {
		lost, err := r.Heartbeat(t.Context(), task.InProcess, "w", []uuid.UUID{leases[0].LeaseToken, leases[1].LeaseToken}, 0)
		if err != nil || len(lost) > 0 {
			t.Errorf("the heartbeat lost %v: %v", lost, err)
		}
	})
	eventually(t, func() (waits bool) {
		if err := r.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity USING (pid)
			WHERE NOT granted AND datname = current_database())`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	if _, err := hold.Exec(t.Context(), `SELECT FROM tasks WHERE id = $1 FOR UPDATE NOWAIT`, second.ID); err != nil {
		t.Errorf("the heartbeat that waits for the first task holds the second: %v", err)
	}
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	renewal.Wait()
}
