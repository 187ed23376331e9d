package task_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

func TestAFailureIsTriedAgainOnlyForTheReasonsThatWereNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		retryOn   []string
		reason    string
		retryable bool
		again     bool
	}{
		"any reason, where none is named": {nil, "exit:1", true, true},
		"a named reason":                  {[]string{"timeout", "exit:75"}, "exit:75", true, true},
		"a reason that is not named":      {[]string{"timeout", "exit:75"}, "exit:1", true, false},
		"one that cannot help":            {[]string{"exit:1"}, "exit:1", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			id := r.submit(t, task.New{MaxAttempts: 3, RetryOn: c.retryOn}).ID
			if err := r.report(t, r.claim(t, "w", 1)[0], task.Report{Status: task.Failed, Error: "no", Reason: c.reason, Retryable: c.retryable}); err != nil {
				t.Fatal(err)
			}
			got := r.get(t, id)
			if (got.WaitingReason == task.ForRetry) != c.again || got.StatusReason != c.reason || got.Status == task.Failed == c.again {
				t.Errorf("the task is %s %s, for %q", got.Status, got.WaitingReason, got.StatusReason)
			}
		})
	}
}

func TestAttemptsTellWhoTriedAndWhatCameOfIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.submit(t, task.New{MaxAttempts: 9}).ID
	again := func() {
		t.Helper()
		if _, err := r.pool.Exec(t.Context(), `UPDATE tasks SET claimable = true WHERE id = $1`, id); err != nil {
			t.Fatal(err)
		}
	}
	for i, rep := range []task.Report{
		{Status: task.Failed, Reason: "exit:75", Retryable: true},
		{Release: true},
		{}, // its worker is lost
		{Status: task.Completed},
	} {
		l := r.claim(t, fmt.Sprint("w", i), 1)[0]
		if i == 2 {
			r.register(t, task.NewWorker{ID: "w2", Instance: id})
			continue
		}
		if l.Status == task.Planning || rep.Status == task.Completed && l.Status != task.Running {
			if err := r.report(t, l, task.Report{Status: task.Running}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.report(t, l, rep); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			again()
		}
	}
	got, err := r.Attempts(t.Context(), ann, id)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for i, a := range got {
		if a.Number != i+1 || a.WorkerID != fmt.Sprint("w", i) || a.EndedAt == nil || a.EndedAt.Before(a.StartedAt) {
			t.Errorf("attempt %+v", a)
		}
		told = append(told, a.Outcome+" "+a.Reason)
	}
	if want := []string{"failed exit:75", "released released", "worker-lost worker-lost", "completed "}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	_, err = r.Attempts(t.Context(), annInBank, id)
	wantFault(t, err, fault.NotFound)
}

func TestTasksFailWhenTheirTimeIsUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	changed := make(chan string, 1000)
	defer r.bus.Subscribe(func(s stream.Signal) {
		if s.Topic == stream.TaskChanged {
			changed <- s.ID
		}
	})()
	soon := time.Now().Add(300 * time.Millisecond)
	far := time.Now().Add(time.Hour)
	pending := r.submit(t, task.New{ExpiresAt: &soon, AgentID: "a"})
	running := r.submit(t, task.New{DeadlineAt: &soon, AgentID: "b"})
	begun := r.submit(t, task.New{ExpiresAt: &soon, DeadlineAt: &far, AgentID: "b"})
	manual := r.submit(t, task.New{DeadlineAt: &soon, Dispatch: task.Manual})
	after := r.submit(t, task.New{DependsOn: nil, AgentID: "a", RunAfter: &far, DeadlineAt: &soon, MaxAttempts: 5})
	r.register(t, task.NewWorker{ID: "w", Agents: []string{"b"}})
	leases, _, err := r.Claim(t.Context(), task.InProcess, "w", 2, 0)
	if err != nil || len(leases) != 2 {
		t.Fatal(leases, err)
	}
	ctx := t.Context()
	go func() { _ = r.Run(ctx) }()
	for _, want := range []struct {
		task.Task
		reason string
	}{{pending, "expired"}, {running, "deadline"}, {manual, "deadline"}, {after, "deadline"}} {
		for got := r.get(t, want.ID); got.Status != task.Failed; got = r.get(t, want.ID) {
			select {
			case <-changed:
			case <-time.After(30 * time.Second):
				t.Fatalf("the task is %s %s", got.Status, got.StatusReason)
			}
		}
		if got := r.get(t, want.ID); got.StatusReason != want.reason || got.Error == "" {
			t.Errorf("the task failed for %q: %q, want %q", got.StatusReason, got.Error, want.reason)
		}
		r.history(t, want.ID)
	}
	if got := r.get(t, begun.ID); got.Status != task.Planning {
		t.Errorf("a task that had begun in time is %s %s", got.Status, got.StatusReason)
	}
	for _, l := range leases {
		if l.ID == running.ID {
			wantFault(t, r.report(t, l, task.Report{Status: task.Running}), fault.LeaseLost)
		}
	}
}
