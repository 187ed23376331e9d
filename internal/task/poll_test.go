package task_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/task"
)

// waiters are workers that wait for work.
type waiters struct {
	rig
	got chan []task.Lease
	all sync.WaitGroup
}

// wait has n workers wait for work that they can run, each for up to max tasks.
func (w *waiters) wait(t *testing.T, n, max int, agents ...string) {
	t.Helper()
	before := w.Waiting()
	for range n {
		id := uuid.NewString()
		w.serve(t, task.InProcess, task.NewWorker{ID: id, Agents: agents})
		w.all.Go(func() {
			leases, _, err := w.Claim(t.Context(), task.InProcess, id, max, time.Hour)
			if err != nil && t.Context().Err() == nil {
				t.Error(err)
			}
			w.got <- leases
		})
	}
	eventually(t, func() bool { return w.Waiting() == before+n })
}

func newWaiters(t *testing.T, r rig) *waiters {
	w := &waiters{rig: r, got: make(chan []task.Lease, 100)}
	t.Cleanup(w.all.Wait)
	return w
}

// What workers wait for is looked for by one of them of each kind, in one round
// trip: however many wait, a task costs the same.
func TestATaskWakesOneWorkerOfEachKind(t *testing.T) {
	t.Parallel()
	var trips pgtest.RoundTrips
	w := newWaiters(t, rigOn(t, pgtest.DB(t, trips.Count)))
	w.wait(t, 6, 1)
	w.wait(t, 3, 1, "other", "another")
	w.wait(t, 3, 1, "other")
	before := trips.Load()
	w.submit(t, task.New{AgentID: "coder"})
	if got := <-w.got; len(got) != 1 {
		t.Fatalf("a worker got %d tasks", len(got))
	}
	// It got all that it asked for, so that others look, and that is all.
	eventually(t, func() bool { return w.Waiting() == 11 })
	if n := trips.Load() - before; n > 4 {
		t.Errorf("a task that twelve workers waited for took %d round trips", n)
	}
}

func TestAFloodReachesAllWorkersThatWait(t *testing.T) {
	t.Parallel()
	w := newWaiters(t, newRig(t))
	w.wait(t, 9, 3)
	all := make([]task.New, 27)
	for i := range all {
		all[i] = task.New{Description: "one of many"}
	}
	if _, err := w.SubmitBatch(t.Context(), ann, all, ""); err != nil {
		t.Fatal(err)
	}
	seen := map[uuid.UUID]bool{}
	for range 9 {
		leases := <-w.got
		if len(leases) != 3 {
			t.Errorf("a worker got %d of three tasks", len(leases))
		}
		for _, l := range leases {
			seen[l.ID] = true
		}
	}
	if len(seen) != 27 {
		t.Errorf("%d of 27 tasks were claimed", len(seen))
	}
}

// Whoever is woken for a task may be gone by the time it could look.
func TestATaskIsNotLeftToAWorkerThatHasGone(t *testing.T) {
	t.Parallel()
	w := newWaiters(t, newRig(t))
	w.serve(t, task.InProcess, task.NewWorker{ID: "fickle"})
	for range 20 {
		w.wait(t, 1, 1)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan []task.Lease)
		go func() {
			leases, _, _ := w.Claim(ctx, task.InProcess, "fickle", 1, time.Hour)
			left <- leases
		}()
		eventually(t, func() bool { return w.Waiting() == 2 })
		go leave()
		w.submit(t, task.New{})
		if leases := <-left; len(leases) > 0 {
			w.submit(t, task.New{}) // for the other
		}
		if got := <-w.got; len(got) != 1 {
			t.Fatal("a worker that waited got no task")
		}
	}
}

func TestATaskThatGoesOnFindsTheWorkerThatLeftItAmongManyThatWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := newWaiters(t, r)
	id, _, q := w.suspended(t, task.New{})
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 3 { // before it, of the same kind
		name := fmt.Sprint("other", i)
		w.serve(t, task.InProcess, task.NewWorker{ID: name})
		w.all.Go(func() {
			if got, _, err := w.Claim(ctx, task.InProcess, name, 1, time.Hour); len(got) > 0 {
				t.Errorf("%s was given the task: %v", name, err)
			}
		})
	}
	eventually(t, func() bool { return w.Waiting() == 3 })
	w.all.Go(func() {
		leases, _, err := w.Claim(ctx, task.InProcess, "w", 1, time.Hour)
		if err != nil {
			t.Error(err)
		}
		w.got <- leases
	})
	eventually(t, func() bool { return w.Waiting() == 4 })
	w.approve(t, q)
	if got := <-w.got; len(got) != 1 || got[0].ID != id || got[0].Resume == nil {
		t.Errorf("the worker that left the task got %+v", got)
	}
	cancel()
}

// A claim that is bad does not take the others along with which it shares a
// transaction.
func TestABadClaimFailsAloneAmongOthers(t *testing.T) {
	t.Parallel()
	w := newWaiters(t, newRig(t))
	w.wait(t, 2, 1)
	bad := policy.Caller{UserID: "b\x00d", Worker: &policy.WorkerScope{}}
	w.all.Go(func() {
		if _, _, err := w.Claim(t.Context(), bad, "w", 1, time.Hour); err == nil {
			t.Error("a name that no text may hold is taken")
		}
	})
	for range 2 {
		w.submit(t, task.New{})
		if got := <-w.got; len(got) != 1 {
			t.Errorf("a worker got %d tasks", len(got))
		}
	}
}

func TestEachOperationIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	var trips pgtest.RoundTrips
	r := rigOn(t, pgtest.DB(t, trips.Count))
	r.register(t, task.NewWorker{ID: "w"})
	once := func(what string, do func()) {
		t.Helper()
		before := trips.Load()
		do()
		if n := trips.Load() - before; n != 1 {
			t.Errorf("%s: %d round trips to the database, want 1", what, n)
		}
	}
	var leases []task.Lease
	claim := func(max int, wait time.Duration) func() {
		return func() {
			var err error
			if leases, _, err = r.Claim(t.Context(), task.InProcess, "w", max, wait); err != nil {
				t.Fatal(err)
			}
		}
	}
	report := func(rep task.Report) func() {
		return func() {
			if err := r.report(t, leases[0], rep); err != nil {
				t.Fatal(err)
			}
		}
	}
	once("a claim when nothing is known to be ready", claim(1, 0))
	once("a submission", func() { r.submit(t, task.New{}) })
	once("a submission with a session", func() { r.submit(t, task.New{SessionID: "s"}) })
	once("a claim", claim(1, time.Minute))
	once("a change of status", report(task.Report{Status: task.Running}))
	once("progress", report(task.Report{Events: []task.ReportEvent{{Type: task.ProgressEvent, Progress: new(50)}}}))
	once("a heartbeat", func() {
		if _, err := r.Heartbeat(t.Context(), task.InProcess, "w", []uuid.UUID{leases[0].LeaseToken}, 0); err != nil {
			t.Fatal(err)
		}
	})
	once("the end", report(task.Report{Status: task.Completed}))
}
