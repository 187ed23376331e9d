package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

func TestATaskIsKeptAsItWasSubmitted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	parent := r.submit(t, task.New{ProjectID: "org/repo", Dispatch: task.Manual}).ID
	before := r.submit(t, task.New{ProjectID: "org/repo", Dispatch: task.Manual}).ID
	want := task.New{
		Description: "Ünïcode ✓ 'quotes' \"too\"", Input: "line\nline\ttab", AgentID: "code-reviewer", SkillID: "git-read",
		Model: "m-1", Thinking: "high", SessionID: "s:1", ProjectID: "org/repo", ParentTaskID: &parent,
		DependsOn: []uuid.UUID{before}, Dispatch: task.Manual, Priority: -7, RunAfter: &at, TimeoutSeconds: 60, MaxAttempts: 3,
		Labels: map[string]string{"team": "a,b {c}"}, Metadata: json.RawMessage(`{"b": 1, "a": [1.50]}`),
	}
	answer, err := r.Submit(t.Context(), ann, want, "")
	if err != nil {
		t.Fatal(err)
	}
	got := r.get(t, answer.ID)
	kept := task.New{
		Description: got.Description, Input: got.Input, AgentID: got.AgentID, SkillID: got.SkillID, Model: got.Model,
		Thinking: got.Thinking, SessionID: got.SessionID, ProjectID: got.ProjectID, ParentTaskID: got.ParentTaskID,
		DependsOn: got.DependsOn, Dispatch: got.Dispatch, Priority: got.Priority, RunAfter: &at, TimeoutSeconds: got.TimeoutSeconds,
		MaxAttempts: got.MaxAttempts, Labels: got.Labels, Metadata: got.Metadata,
	}
	if !reflect.DeepEqual(kept, want) || !got.RunAfter.Equal(at) {
		t.Errorf("kept %+v\nwant %+v", kept, want)
	}
	if got.UserID != "ann" || got.Status != task.Pending || got.Attempt != 0 || got.ID.Version() != 7 {
		t.Errorf("a new task is %+v", got)
	}
	if !answer.CreatedAt.Equal(got.CreatedAt) {
		t.Errorf("the answer said created at %s, kept is %s", answer.CreatedAt, got.CreatedAt)
	}
	if events := r.history(t, got.ID); len(events) != 1 || events[0].Type != task.StatusEvent || events[0].Status != task.Pending {
		t.Errorf("first events are %+v", events)
	}
}

func TestLimitsAreNamedWithTheirField(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	labels := map[string]string{}
	for i := range task.MaxLabels + 1 {
		labels[fmt.Sprint(i)] = ""
	}
	yearInUTC := time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -10*3600))
	year := time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	for field, n := range map[string]task.New{
		"description":    {Description: ""},
		"description ":   {Description: strings.Repeat("ä", task.MaxDescriptionChars+1)},
		"input":          {Input: strings.Repeat("x", task.MaxInputBytes+1)},
		"agentId":        {AgentID: "no spaces"},
		"skillId":        {SkillID: strings.Repeat("x", task.MaxIDBytes+1)},
		"sessionId":      {SessionID: "-x"},
		"projectId":      {ProjectID: "a\nb"},
		"model":          {Model: strings.Repeat("x", task.MaxModelBytes+1)},
		"thinking":       {Thinking: "deep"},
		"dispatch":       {Dispatch: "other"},
		"priority":       {Priority: 101},
		"priority ":      {Priority: -101},
		"timeoutSeconds": {TimeoutSeconds: -1},
		"maxAttempts":    {MaxAttempts: 101},
		"runAfter":       {RunAfter: &year},
		"runAfter ":      {RunAfter: &yearInUTC},
		"labels":         {Labels: labels},
		"labels ":        {Labels: map[string]string{"": "x"}},
		"labels  ":       {Labels: map[string]string{"x": strings.Repeat("y", task.MaxLabelBytes+1)}},
		"metadata":       {Metadata: json.RawMessage(`[]`)},
		"metadata ":      {Metadata: json.RawMessage(`{"x":"` + strings.Repeat("y", task.MaxDataBytes) + `"}`)},
		"dependsOn":      {DependsOn: manyIDs(task.MaxDependencies + 1)},
		"dependsOn[0]":   {DependsOn: manyIDs(1)},
		"parentTaskId":   {ParentTaskID: &manyIDs(1)[0]},
	} {
		if !strings.HasPrefix(field, "description") {
			n.Description = "d"
		}
		_, err := r.Submit(t.Context(), ann, n, "")
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Path != "body."+strings.TrimSpace(field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	_, err := r.SubmitBatch(t.Context(), ann, []task.New{{Description: "good"}, {Description: ""}}, "")
	var f *fault.Error
	if !errors.As(err, &f) || f.Fields[0].Path != "body.tasks[1].description" {
		t.Errorf("batch: got %v", err)
	}
	if counts, err := r.Count(t.Context()); err != nil || counts.Total() != 0 {
		t.Errorf("refused tasks were kept: %v %v", counts, err)
	}
	if got := r.submit(t, task.New{Description: strings.Repeat("ä", task.MaxDescriptionChars), Input: strings.Repeat("x", task.MaxInputBytes)}); len(r.get(t, got.ID).Input) != task.MaxInputBytes {
		t.Error("a task at its limits was not kept whole")
	}
}

func manyIDs(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	return ids
}

func TestTheSameKeyGivesTheFirstAnswerAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	n := task.New{Description: "d", Dispatch: task.Manual, Labels: map[string]string{"a": "1", "b": "2"}}
	first, err := r.Submit(t.Context(), ann, n, "k")
	if err != nil {
		t.Fatal(err)
	}
	r.to(t, first.ID, task.Completed)
	again, err := r.Submit(t.Context(), ann, n, "k")
	if err != nil {
		t.Fatal(err)
	}
	first.DependsOn, again.DependsOn = nil, nil // nil and empty mean the same
	first.CreatedAt, again.CreatedAt = first.CreatedAt.UTC(), again.CreatedAt.UTC()
	first.UpdatedAt, again.UpdatedAt = first.UpdatedAt.UTC(), again.UpdatedAt.UTC()
	if !reflect.DeepEqual(first, again) {
		t.Errorf("second answer %+v\nfirst %+v", again, first)
	}

	n.Description = "other"
	_, err = r.Submit(t.Context(), ann, n, "k")
	wantFault(t, err, fault.IdempotencyMismatch)
	_, err = r.SubmitBatch(t.Context(), ann, []task.New{{Description: "d", Dispatch: task.Manual}}, "k")
	wantFault(t, err, fault.IdempotencyMismatch)
	bob, err := r.Submit(t.Context(), bobAlone, n, "k")
	if err != nil || bob.ID == first.ID {
		t.Errorf("another user's key is another key: %v %v", bob.ID, err)
	}
	_, err = r.Submit(t.Context(), ann, n, strings.Repeat("k", task.MaxKeyBytes+1))
	wantFault(t, err, fault.Invalid)
}

func TestConcurrentDuplicatesBecomeOneTask(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	servers := []rig{rigOn(t, pool), rigOn(t, pool)}
	for round := range 10 {
		ids := make([]uuid.UUID, 16)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				got, err := servers[i%2].Submit(t.Context(), ann, task.New{Description: "d"}, fmt.Sprint("key ", round))
				if err != nil {
					t.Error(err)
				}
				ids[i] = got.ID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("round %d gave the tasks %s and %s", round, ids[0], id)
			}
		}
	}
	if counts, err := servers[0].Count(t.Context()); err != nil || counts.Total() != 10 {
		t.Errorf("10 keys became %v tasks (%v)", counts, err)
	}
}

func TestABatchIsKeptWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	batch := make([]task.New, task.MaxBatch)
	for i := range batch {
		batch[i] = task.New{Description: fmt.Sprint(i), Dispatch: task.Manual}
	}
	got, err := r.SubmitBatch(t.Context(), ann, batch, "b")
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range got {
		if g.Description != fmt.Sprint(i) || i > 0 && got[i-1].ID.String() >= g.ID.String() {
			t.Fatalf("answer %d is %s %q", i, g.ID, g.Description)
		}
	}
	again, err := r.SubmitBatch(t.Context(), ann, batch, "b")
	if err != nil || len(again) != len(got) || again[0].ID != got[0].ID || again[999].ID != got[999].ID {
		t.Errorf("the repeated batch gave %d tasks (%v)", len(again), err)
	}
	// A longer batch under the same key must not leave its surplus behind.
	_, err = r.SubmitBatch(t.Context(), ann, []task.New{{Description: "x"}}, "short")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.SubmitBatch(t.Context(), ann, []task.New{{Description: "x"}, {Description: "y"}}, "short")
	wantFault(t, err, fault.IdempotencyMismatch)
	for _, wrong := range [][]task.New{nil, make([]task.New, task.MaxBatch+1)} {
		_, err = r.SubmitBatch(t.Context(), ann, wrong, "")
		wantFault(t, err, fault.Invalid)
	}
	if counts, err := r.Count(t.Context()); err != nil || counts.Total() != task.MaxBatch+1 {
		t.Errorf("there are %v tasks (%v)", counts, err)
	}
}

func TestListPagesThroughWhatTheFilterSelectsNewestFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	parent := r.submit(t, task.New{ProjectID: "p", Dispatch: task.Manual})
	var last time.Time
	for i := range 25 {
		n := task.New{Description: fmt.Sprintf("Task %d 100%%", i), Dispatch: task.Manual, AgentID: "a", Labels: map[string]string{"n": fmt.Sprint(i % 5), "all": "1"}}
		if i%2 == 0 {
			n.SessionID, n.ProjectID, n.ParentTaskID = "s", "p", &parent.ID
		}
		got := r.submit(t, n)
		if i == 19 {
			last = got.CreatedAt
		}
		if i < 3 {
			r.to(t, got.ID, task.Cancelled)
		}
	}
	for name, c := range map[string]struct {
		filter task.Filter
		want   int
	}{
		"none":           {task.Filter{}, 26},
		"status":         {task.Filter{Status: []task.Status{task.Cancelled}}, 3},
		"two statuses":   {task.Filter{Status: []task.Status{task.Cancelled, task.Pending}}, 26},
		"agent":          {task.Filter{AgentID: "a"}, 25},
		"session":        {task.Filter{SessionID: "s"}, 13},
		"project":        {task.Filter{ProjectID: "p"}, 14},
		"parent":         {task.Filter{ParentTaskID: &parent.ID}, 13},
		"label":          {task.Filter{Labels: map[string]string{"n": "3"}}, 5},
		"labels":         {task.Filter{Labels: map[string]string{"n": "3", "all": "2"}}, 0},
		"created after":  {task.Filter{CreatedAfter: last}, 5},
		"query":          {task.Filter{Query: "tASK 2"}, 6},
		"query is plain": {task.Filter{Query: "100%"}, 25},
		"all together":   {task.Filter{SessionID: "s", Labels: map[string]string{"n": "4"}, Query: "task"}, 3},
	} {
		var seen []string
		before := uuid.Max
		for {
			page, more, err := r.List(t.Context(), ann, c.filter, before, 4)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, p := range page {
				seen = append(seen, p.ID.String())
				before = p.ID
			}
			if !more {
				break
			}
		}
		for i := range seen {
			if i > 0 && seen[i] >= seen[i-1] {
				t.Errorf("%s: not newest first", name)
			}
		}
		if len(seen) != c.want {
			t.Errorf("%s: %d tasks, want %d", name, len(seen), c.want)
		}
	}
}

func TestABadTaskInAGroupFailsAloneAndSoDoesACallerWhoLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	left, leave := context.WithCancel(t.Context())
	leave()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			n, ctx := task.New{Description: fmt.Sprint("task ", i), Dispatch: task.Manual}, t.Context()
			switch i % 10 {
			case 3:
				n.Description += "\x00" // PostgreSQL refuses it, and the statement that holds it
			case 7:
				ctx = left
			}
			got, err := r.Submit(ctx, ann, n, "")
			switch {
			case i%10 == 3 && err == nil:
				t.Error("a task that cannot be kept was accepted")
			case i%10 == 7 && err != nil && !errors.Is(err, context.Canceled):
				t.Errorf("a caller who left got %v", err)
			case i%10 != 3 && i%10 != 7 && (err != nil || got.CreatedAt.IsZero() || got.Description != n.Description):
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	list, _, err := r.List(t.Context(), ann, task.Filter{}, uuid.Max, 500)
	if err != nil || len(list) < 160 || len(list) > 180 {
		t.Errorf("%d tasks were kept (%v), want 160 and those of callers who left", len(list), err)
	}
}

func TestGroupsWithTheSameKeysInAnyOrderDoNotHoldEachOtherUp(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	servers := []rig{rigOn(t, pool), rigOn(t, pool)}
	var wg sync.WaitGroup
	for i := range 600 {
		wg.Go(func() {
			key := fmt.Sprint("key ", (i*7+i/300*11)%150)
			if _, err := servers[i%2].Submit(t.Context(), ann, task.New{Description: "d", Dispatch: task.Manual}, key); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if counts, err := servers[0].Count(t.Context()); err != nil || counts.Total() != 150 {
		t.Errorf("150 keys became %v (%v)", counts, err)
	}
}

func TestATaskIsToldOfEvenIfItsSubmitterHasLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	told := make(chan string, 1000)
	r.bus.Subscribe(func(s stream.Signal) {
		if s.Topic == stream.TaskChanged {
			told <- s.ID
		}
	})
	left, leave := context.WithCancel(t.Context())
	leave()
	for range 50 {
		_, _ = r.Submit(left, ann, task.New{Description: "left"}, "") // kept or not
	}
	r.submit(t, task.New{}) // comes after them
	heard := map[string]bool{}
	list, _, err := r.List(t.Context(), ann, task.Filter{}, uuid.Max, 500)
	if err != nil {
		t.Fatal(err)
	}
	for range list {
		heard[<-told] = true
	}
	for _, l := range list {
		if !heard[l.ID.String()] {
			t.Errorf("nobody was told of task %s", l.ID)
		}
	}
}

func TestTheFirstAnswerIsGivenAgainEvenIfItWouldBeRefusedByNow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	awaited := r.manual(t).ID
	n := task.New{Description: "d", DependsOn: []uuid.UUID{awaited}}
	first, err := r.Submit(t.Context(), ann, n, "k")
	if err != nil {
		t.Fatal(err)
	}
	r.to(t, awaited, task.Cancelled)
	again, err := r.Submit(t.Context(), ann, n, "k")
	if err != nil || again.ID != first.ID || again.Status != task.Pending {
		t.Errorf("the second answer is %v %s, %v", again.ID, again.Status, err)
	}
	_, err = r.Submit(t.Context(), ann, n, "other")
	wantFault(t, err, fault.Conflict)
	_, err = r.Submit(t.Context(), ann, n, "\xff")
	wantFault(t, err, fault.Invalid)
}
