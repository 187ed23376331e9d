package task_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// keyed is a worker's credential.
func keyed(name string, scope policy.WorkerScope) policy.Caller {
	return policy.Caller{UserID: "key:" + name, Worker: &scope}
}

// serve registers a worker of a principal's.
func (r rig) serve(t *testing.T, c policy.Caller, w task.NewWorker) {
	t.Helper()
	w.Instance, w.Capacity = uuid.New(), 10
	if err := r.RegisterWorker(t.Context(), c, w); err != nil {
		t.Fatal(err)
	}
}

func TestAWorkerIsGivenWhatItCanRunAndItsCredentialAllows(t *testing.T) {
	t.Parallel()
	gpu := map[string]string{"gpu": "true", "zone": "north"}
	team := map[string]string{"team": "a"}
	for what, c := range map[string]struct {
		scope  policy.WorkerScope
		worker task.NewWorker
		task   task.New
		given  bool
	}{
		"anything":                           {given: true},
		"an agent that it can run":           {worker: task.NewWorker{Agents: []string{"a"}}, task: task.New{AgentID: "a"}, given: true},
		"an agent that it cannot run":        {worker: task.NewWorker{Agents: []string{"a"}}, task: task.New{AgentID: "b"}},
		"no agent at all":                    {worker: task.NewWorker{Agents: []string{}}},
		"an agent of its credential's":       {scope: policy.WorkerScope{Agents: []string{"a"}}, task: task.New{AgentID: "a"}, given: true},
		"an agent that the credential lacks": {scope: policy.WorkerScope{Agents: []string{"a"}}, worker: task.NewWorker{Agents: []string{"a", "b"}}, task: task.New{AgentID: "b"}},
		"a label that it has":                {worker: task.NewWorker{Labels: gpu}, task: task.New{Requires: map[string]string{"gpu": "true"}}, given: true},
		"a label of another value":           {worker: task.NewWorker{Labels: gpu}, task: task.New{Requires: map[string]string{"gpu": "false"}}},
		"a label that it lacks":              {task: task.New{Requires: map[string]string{"gpu": "true"}}},
		"a project of its credential's":      {scope: policy.WorkerScope{Projects: []string{"web", "shop"}}, task: task.New{ProjectID: "shop"}, given: true},
		"another project":                    {scope: policy.WorkerScope{Projects: []string{"web"}}, task: task.New{ProjectID: "shop"}},
		"no project":                         {scope: policy.WorkerScope{Projects: []string{"web"}}},
		"no project, as the credential says": {scope: policy.WorkerScope{Projects: []string{""}}, given: true},
		"a task with the labels":             {scope: policy.WorkerScope{Labels: team}, task: task.New{Labels: map[string]string{"team": "a", "x": "y"}}, given: true},
		"a task without the labels":          {scope: policy.WorkerScope{Labels: team}, task: task.New{Labels: map[string]string{"team": "b"}}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c.task.Description = "d"
			if _, err := r.Submit(t.Context(), root, c.task, ""); err != nil {
				t.Fatal(err)
			}
			c.worker.ID = "w"
			key := keyed("k", c.scope)
			r.serve(t, key, c.worker)
			got, _, err := r.Claim(t.Context(), key, "w", 1, 0)
			if err != nil || len(got) == 1 != c.given {
				t.Errorf("claimed %v, %v", got, err)
			}
		})
	}
}

func TestAWorkerActsOnItsOwnLeasesOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	mine, theirs := keyed("mine", policy.WorkerScope{}), keyed("theirs", policy.WorkerScope{})
	id := r.submit(t, task.New{}).ID
	r.serve(t, mine, task.NewWorker{ID: "w"})
	r.serve(t, theirs, task.NewWorker{ID: "v"})
	leases, _, err := r.Claim(t.Context(), mine, "w", 1, 0)
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	lease := leases[0].LeaseToken
	before := r.get(t, id)

	wantFault(t, r.Report(t.Context(), theirs, id, lease, task.Report{Status: task.Running}), fault.LeaseLost)
	_, err = r.Update(t.Context(), theirs, id, task.Patch{Lease: &lease, Status: task.Running})
	wantFault(t, err, fault.LeaseLost)
	_, err = r.Update(t.Context(), annInBank, id, task.Patch{Lease: &lease, Status: task.Running}) // whoever has learnt of the token
	wantFault(t, err, fault.LeaseLost)
	_, _, err = r.Claim(t.Context(), theirs, "w", 1, 0)
	wantFault(t, err, fault.NotFound)
	_, err = r.Heartbeat(t.Context(), theirs, "w", []uuid.UUID{lease}, 0)
	wantFault(t, err, fault.NotFound)
	if lost, err := r.Heartbeat(t.Context(), theirs, "v", []uuid.UUID{lease}, 0); err != nil || !slices.Equal(lost, []uuid.UUID{lease}) {
		t.Errorf("another's lease is renewed: %v, %v", lost, err)
	}
	wantFault(t, r.DrainWorker(t.Context(), theirs, "w"), fault.NotFound)
	wantFault(t, r.RegisterWorker(t.Context(), theirs, task.NewWorker{ID: "w", Instance: uuid.New(), Capacity: 1}), fault.Conflict)
	if after := r.get(t, id); after.LastSeq != before.LastSeq || after.Status != before.Status {
		t.Errorf("the task went from %+v to %+v", before, after)
	}
	if all, err := r.Workers(t.Context(), theirs); err != nil || len(all) != 1 || all[0].ID != "v" {
		t.Errorf("it sees the workers %+v, %v", all, err)
	}

	running, err := r.Update(t.Context(), mine, id, task.Patch{Lease: &lease, Status: task.Running, Progress: new(30)})
	if err != nil || running.Status != task.Running || running.Progress != 30 {
		t.Errorf("the holder's own change: %+v, %v", running, err)
	}
	if err := r.Report(t.Context(), mine, id, lease, task.Report{Status: task.Completed}); err != nil {
		t.Error(err)
	}
}

func TestARegistrationIsRepeatedAndReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := keyed("k", policy.WorkerScope{})
	id := r.submit(t, task.New{AgentID: "a"}).ID
	w := task.NewWorker{ID: "w", Instance: uuid.New(), Agents: []string{"a"}, Capacity: 2}
	register := func() {
		t.Helper()
		if err := r.RegisterWorker(t.Context(), key, w); err != nil {
			t.Fatal(err)
		}
	}
	register()
	if got, _, err := r.Claim(t.Context(), key, "w", 1, 0); err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	w.Agents = []string{"b"}
	register() // the same process, which can run something else
	if got := r.get(t, id); got.Status != task.Planning {
		t.Errorf("the task is %s", got.Status)
	}
	all, err := r.Workers(t.Context(), root)
	if err != nil || len(all) != 1 || all[0].Running != 1 || all[0].Capacity != 2 || !all[0].Present || !slices.Equal(all[0].Agents, w.Agents) {
		t.Errorf("the workers are %+v, %v", all, err)
	}
	w.Instance = uuid.New()
	register() // another process
	if got := r.get(t, id); got.WaitingReason != task.ForWorker {
		t.Errorf("the task is %s %s", got.Status, got.WaitingReason)
	}
	// Long after it was last heard of, another principal may use the name.
	if _, err := r.pool.Exec(t.Context(), `UPDATE workers SET last_seen_at = last_seen_at - interval '2 min'`); err != nil {
		t.Fatal(err)
	}
	key = keyed("new", policy.WorkerScope{})
	w.Instance = uuid.New()
	register()
}

func TestADrainedWorkerIsToldAndTakesNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := keyed("k", policy.WorkerScope{})
	r.serve(t, key, task.NewWorker{ID: "w", Agents: []string{"a"}})
	if served, err := r.Served(t.Context()); err != nil || !slices.Equal(served, []string{"a"}) {
		t.Errorf("served are %v, %v", served, err)
	}
	told := make(chan bool)
	go func() {
		_, draining, err := r.Claim(context.Background(), key, "w", 1, time.Minute)
		if err != nil {
			t.Error(err)
		}
		told <- draining
	}()
	if err := r.DrainWorker(t.Context(), root, "w"); err != nil {
		t.Fatal(err)
	}
	if !<-told {
		t.Error("a waiting claim is not told")
	}
	r.submit(t, task.New{AgentID: "a"})
	if got, draining, err := r.Claim(t.Context(), key, "w", 1, 0); err != nil || len(got) > 0 || !draining {
		t.Errorf("claimed %v, %v, %v", got, draining, err)
	}
	if served, err := r.Served(t.Context()); err != nil || len(served) > 0 {
		t.Errorf("served are %v, %v", served, err)
	}
	if err := r.DrainWorker(t.Context(), key, "w"); err != nil { // it says that it stops
		t.Fatal(err)
	}
	_, _, err := r.Claim(t.Context(), key, "w", 1, 0)
	wantFault(t, err, fault.NotFound)
	wantFault(t, r.DrainWorker(t.Context(), root, "w"), fault.NotFound)
}
