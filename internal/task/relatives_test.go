package task_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

func (r rig) end(t *testing.T, id uuid.UUID, want task.Status) {
	t.Helper()
	if got := r.get(t, id); got.Status != want {
		t.Errorf("task %s is %s, want %s", got.Description, got.Status, want)
	}
}

func TestCancelEndsTheWholeTree(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	root := r.manual(t).ID
	child := r.submit(t, task.New{ParentTaskID: &root}).ID
	grandchild := r.submit(t, task.New{ParentTaskID: &child}).ID
	done := r.submit(t, task.New{ParentTaskID: &root, Dispatch: task.Manual}).ID
	r.to(t, done, task.Completed)
	stranger := r.submit(t, task.New{}).ID
	got, err := r.Cancel(t.Context(), ann, root)
	if err != nil || got.ID != root || got.Status != task.Cancelled {
		t.Fatalf("cancel gave %+v, %v", got, err)
	}
	r.end(t, child, task.Cancelled)
	r.end(t, grandchild, task.Cancelled)
	r.end(t, done, task.Completed)
	r.end(t, stranger, task.Pending)
	r.history(t, grandchild)
	if left := r.claim(t, "w", 10); len(left) != 1 || left[0].ID != stranger {
		t.Errorf("still offered: %v", left)
	}
	_, err = r.Submit(t.Context(), ann, task.New{Description: "late", ParentTaskID: &root}, "")
	wantFault(t, err, fault.Conflict)
}

func TestReportingATaskCancelledEndsItsChildrenToo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	root := r.manual(t).ID
	child := r.submit(t, task.New{ParentTaskID: &root}).ID
	dependent := r.submit(t, task.New{DependsOn: []uuid.UUID{child}}).ID
	r.to(t, root, task.Cancelled)
	r.end(t, child, task.Cancelled)
	r.end(t, dependent, task.Failed)
	r.history(t, root)
}

// Followers of a task hear of its end, whatever ended it.
func TestDependentsOfATaskThatIsReportedCancelledAreHeardOf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	awaited := r.manual(t).ID
	dependent := r.submit(t, task.New{DependsOn: []uuid.UUID{awaited}}).ID
	var heard atomic.Bool
	defer r.bus.Subscribe(func(sig stream.Signal) {
		if sig == (stream.Signal{Topic: stream.TaskChanged, ID: dependent.String()}) {
			heard.Store(true)
		}
	})()
	r.to(t, awaited, task.Cancelled)
	r.end(t, dependent, task.Failed)
	if !heard.Load() {
		t.Error("nobody was told that the dependent has failed")
	}
}

func TestNoChildOutlivesACancelledParent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 30 {
		root := r.manual(t).ID
		var child task.Task
		var childErr error
		var wg sync.WaitGroup
		wg.Go(func() {
			child, childErr = r.Submit(t.Context(), ann, task.New{Description: "d", ParentTaskID: &root}, "")
		})
		wg.Go(func() {
			if _, err := r.Cancel(t.Context(), ann, root); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if childErr == nil {
			r.end(t, child.ID, task.Cancelled)
		} else {
			wantFault(t, childErr, fault.Conflict)
		}
	}
}

func TestADependentTaskWaitsForAllThatItDependsOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.manual(t).ID, r.manual(t).ID
	already := r.manual(t).ID
	r.to(t, already, task.Completed)
	dependent := r.submit(t, task.New{DependsOn: []uuid.UUID{a, b, a, already}}).ID
	byHand := r.submit(t, task.New{DependsOn: []uuid.UUID{a}, Dispatch: task.Manual}).ID
	if got := r.claim(t, "w", 5); len(got) != 0 {
		t.Fatalf("claimed %v", got)
	}
	_, err := r.Update(t.Context(), ann, byHand, task.Patch{Status: task.Planning})
	wantFault(t, err, fault.Conflict)
	r.to(t, a, task.Completed)
	if got := r.claim(t, "w", 5); len(got) != 0 {
		t.Fatalf("claimed %v after one of two", got)
	}
	r.to(t, byHand, task.Completed)
	r.to(t, b, task.Completed)
	if got := r.claim(t, "w", 5); len(got) != 1 || got[0].ID != dependent {
		t.Errorf("claimed %v after both", got)
	}
}

func TestWhatDependsOnAFailedTaskFailsAlongTheChain(t *testing.T) {
	t.Parallel()
	for _, end := range []task.Status{task.Failed, task.Cancelled} {
		r := newRig(t)
		first := r.manual(t).ID
		second := r.submit(t, task.New{DependsOn: []uuid.UUID{first}}).ID
		third := r.submit(t, task.New{DependsOn: []uuid.UUID{second}}).ID
		other := r.manual(t).ID
		fourth := r.submit(t, task.New{DependsOn: []uuid.UUID{other, first}}).ID
		if end == task.Failed {
			r.to(t, first, task.Failed)
		} else if _, err := r.Cancel(t.Context(), ann, first); err != nil {
			t.Fatal(err)
		}
		for _, id := range []uuid.UUID{second, third, fourth} {
			r.end(t, id, task.Failed)
			if events := r.history(t, id); len(events) != 2 || events[1].Message == "" {
				t.Errorf("history of a doomed task: %+v", events)
			}
		}
		r.to(t, other, task.Completed) // must not disturb the failed one
		r.end(t, fourth, task.Failed)
		_, err := r.Submit(t.Context(), ann, task.New{Description: "late", DependsOn: []uuid.UUID{first}}, "")
		wantFault(t, err, fault.Conflict)
	}
}

func TestNoDependentIsForgottenWhenItIsSubmittedWhileTheOtherEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 30 {
		first := r.manual(t).ID
		r.to(t, first, task.Running)
		var dependent task.Task
		var wg sync.WaitGroup
		wg.Go(func() {
			var err error
			if dependent, err = r.Submit(t.Context(), ann, task.New{Description: "d", DependsOn: []uuid.UUID{first}}, ""); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := r.Update(t.Context(), ann, first, task.Patch{Status: task.Completed}); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if got := r.claim(t, "w", 5); len(got) != 1 || got[0].ID != dependent.ID {
			t.Fatalf("claimed %v, want the dependent task", got)
		}
	}
}
