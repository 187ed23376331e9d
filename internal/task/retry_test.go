package task_test

import (
	"encoding/json"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

func TestARetryIsLikeTheTaskThatFailedAndBothNameEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.submit(t, task.New{
		Description: "d", Input: "i", Model: "m", Thinking: "low", Dispatch: task.Manual, Priority: 7, TimeoutSeconds: 9, MaxAttempts: 3,
		Labels: map[string]string{"k": "v"}, Requires: map[string]string{"gpu": "true"}, Metadata: json.RawMessage(`{"path": "."}`),
	})
	if _, err := r.Retry(t.Context(), ann, first.ID, ""); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("of an open task: %v", err)
	}
	r.to(t, first.ID, task.Failed)
	second, err := r.Retry(t.Context(), bob, first.ID, "once")
	if err != nil {
		t.Fatal(err)
	}
	first, second = r.get(t, first.ID), r.get(t, second.ID)
	if second.RetryOf == nil || *second.RetryOf != first.ID || first.RetriedBy == nil || *first.RetriedBy != second.ID {
		t.Errorf("linked as %v and %v", second.RetryOf, first.RetriedBy)
	}
	if second.Status != task.Pending || second.UserID != "bob" || second.Input != "i" || second.Model != "m" || second.Priority != 7 ||
		second.MaxAttempts != 3 || second.Labels["k"] != "v" || second.Requires["gpu"] != "true" || string(second.Metadata) != `{"path": "."}` {
		t.Errorf("the retry is %+v", second)
	}
	if again, err := r.Retry(t.Context(), bob, first.ID, "once"); err != nil || again.ID != second.ID {
		t.Errorf("with the same key: %v %v", again.ID, err)
	}
	if _, err := r.Retry(t.Context(), bob, first.ID, "twice"); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("a second retry: %v", err)
	}
	blue := policy.Caller{UserID: "eve", ProjectID: "blue", Roles: []policy.Role{policy.Developer}}
	if _, err := r.Retry(t.Context(), blue, first.ID, ""); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("from another project: %v", err)
	}
}

func TestATaskIsRetriedOnceHoweverManyTry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	r.to(t, id, task.Cancelled)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 8 {
		wg.Go(func() {
			_, err := r.Retry(t.Context(), ann, id, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			} else if fault.CodeOf(err) != fault.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, _, err := r.List(t.Context(), ann, task.Filter{}, uuid.Max, 10)
	if err != nil || done != 1 || len(all) != 2 {
		t.Errorf("%d retries, %d tasks, %v", done, len(all), err)
	}
}
