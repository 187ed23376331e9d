package task_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

func TestTreesHaveBoundedDepth(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	root := r.manual(t)
	last := root.ID
	for range task.MaxDepth - 1 {
		last = r.submit(t, task.New{Dispatch: task.Manual, ParentTaskID: &last}).ID
	}
	_, err := r.Submit(t.Context(), ann, task.New{Description: "d", Dispatch: task.Manual, ParentTaskID: &last}, "")
	if fault.CodeOf(err) != fault.Invalid {
		t.Errorf("one level more: %v", err)
	}
	tree, more, err := r.Tree(t.Context(), ann, root.ID)
	if err != nil || more || len(tree) != task.MaxDepth || tree[0].ID != root.ID || tree[len(tree)-1].ID != last {
		t.Errorf("the tree has %d tasks, more %v, %v", len(tree), more, err)
	}
	blue := policy.Caller{UserID: "eve", ProjectID: "blue", Roles: []policy.Role{policy.Developer}}
	if _, _, err := r.Tree(t.Context(), blue, root.ID); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("from another project: %v", err)
	}
}

func TestATaskHasBoundedChildrenAlsoWhenManyAreSubmittedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	parent := r.manual(t).ID
	batch := make([]task.New, task.MaxChildren-4)
	for i := range batch {
		batch[i] = task.New{Description: fmt.Sprint(i), Dispatch: task.Manual, ParentTaskID: &parent}
	}
	if _, err := r.SubmitBatch(t.Context(), ann, batch, ""); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for range 8 {
		wg.Go(func() {
			_, err := r.Submit(t.Context(), ann, task.New{Description: "d", Dispatch: task.Manual, ParentTaskID: &parent}, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				accepted++
			} else if fault.CodeOf(err) != fault.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if accepted != 4 {
		t.Errorf("%d more children were accepted, want 4", accepted)
	}
	tree, more, err := r.Tree(t.Context(), ann, parent)
	if err != nil || !more || len(tree) != task.MaxTree {
		t.Errorf("the tree shows %d tasks, more %v, %v", len(tree), more, err)
	}
}

func TestOpenTasksAreCancelledByAFilter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	label := map[string]string{"night": "1"}
	var chosen []uuid.UUID
	for range 3 {
		chosen = append(chosen, r.submit(t, task.New{Dispatch: task.Manual, Labels: label}).ID)
	}
	child := r.submit(t, task.New{Dispatch: task.Manual, ParentTaskID: &chosen[0]}).ID
	done := r.submit(t, task.New{Dispatch: task.Manual, Labels: label}).ID
	r.to(t, done, task.Completed)
	other := r.manual(t).ID
	blue := policy.Caller{UserID: "eve", ProjectID: "blue", Roles: []policy.Role{policy.Developer}}
	if got, err := r.CancelAll(t.Context(), blue, task.Filter{Labels: label}); err != nil || got.Count != 0 {
		t.Errorf("from another project: %+v %v", got, err)
	}
	if _, err := r.CancelAll(t.Context(), ann, task.Filter{}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("without a filter: %v", err)
	}
	if got, err := r.CancelAll(t.Context(), ann, task.Filter{Status: []task.Status{task.Completed}}); err != nil || got.Count != 0 {
		t.Errorf("of what has ended: %+v %v", got, err)
	}
	if got, err := r.CancelAll(t.Context(), ann, task.Filter{ScheduleID: &other}); err != nil || got.Count != 0 {
		t.Errorf("of a schedule: %+v %v", got, err)
	}
	got, err := r.CancelAll(t.Context(), ann, task.Filter{Labels: label})
	if err != nil || got != (task.Cancellation{Count: 3}) {
		t.Errorf("%+v %v", got, err)
	}
	for _, id := range append(chosen, child) {
		if st := r.get(t, id).Status; st != task.Cancelled {
			t.Errorf("task %s is %s", id, st)
		}
	}
	if r.get(t, done).Status != task.Completed || r.get(t, other).Status != task.Pending {
		t.Error("tasks were cancelled that were not chosen")
	}
	if n := r.entries(t, "task.cancel", "allowed"); n != 3 {
		t.Errorf("%d audit entries", n)
	}
}
