package task_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/artifact"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// ann is confined to no project, as the user of a server on her own machine.
var ann = policy.Caller{UserID: "ann", AllProjects: true, Roles: []policy.Role{policy.Developer}}

// maxArtifact is the largest artifact of a test's server.
const maxArtifact = 2 << 20

// retention is how long a test's server keeps tasks.
const retention = 30 * 24 * time.Hour

// anyAgent can run every agent but those named.
type anyAgent map[string]error

func (a anyAgent) Runnable(_ context.Context, id string) error { return a[id] }

// rights are the policies, the users and the record of denials of a test.
type rights struct {
	mu      sync.Mutex
	forbids map[string]policy.Decision // by agent
	gone    map[string]bool            // users
	denied  []audit.Entry
}

func (r *rights) Decide(_ context.Context, c policy.Caller, req policy.Request) (policy.Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.forbids[req.AgentID]; ok {
		return d, nil
	}
	if req.SkillID == "denied-skill" {
		return policy.Decision{Layer: policy.LayerSkill, Reason: "skill denied-skill is denied"}, nil
	}
	d := policy.Authorize(c, req.Permission)
	d.Approval = d.Allowed && req.SkillID == "dangerous-skill"
	return d, nil
}

func (r *rights) Submitter(_ context.Context, userID, sessionID, projectID string) (policy.Caller, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone[userID] {
		return policy.Caller{}, fault.New(fault.Unauthenticated, "user %s is disabled", userID)
	}
	return policy.Caller{UserID: userID, SessionID: sessionID, ProjectID: projectID, Roles: []policy.Role{policy.Developer}}, nil
}

func (r *rights) Record(_ context.Context, e audit.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied = append(r.denied, e)
}

// forbid lets nobody use the agent any more.
func (r *rights) forbid(agent, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forbids = map[string]policy.Decision{agent: {Layer: policy.LayerAgent, Rule: "agentPolicies[" + agent + "]", Reason: reason}}
}

func (r *rights) denials() []audit.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.denied)
}

type rig struct {
	*task.Service
	pool   *pgxpool.Pool
	bus    *stream.Memory
	rights *rights
}

func newRig(t *testing.T) rig {
	t.Helper()
	return rigOn(t, pgtest.DB(t))
}

func rigOn(t *testing.T, pool *pgxpool.Pool) rig {
	t.Helper()
	bus, may := &stream.Memory{}, &rights{}
	return rig{
		Service: task.NewService(pool, task.Options{
			Agents: anyAgent{
				"nobody": fault.New(fault.NotFound, "no agent nobody"),
				"idle":   fault.New(fault.AgentUnavailable, "agent idle needs a model"),
			},
			Access: may, Submitters: may, Recorder: may,
			Bus: bus, Log: slog.New(slog.DiscardHandler),
			Contents: []task.Contents{artifact.NewChunks(pool)}, MaxArtifact: maxArtifact, MaxArtifacts: 4 * maxArtifact, Retention: retention,
		}),
		pool: pool, bus: bus, rights: may,
	}
}

func (r rig) submit(t *testing.T, n task.New) task.Task {
	t.Helper()
	if n.Description == "" {
		n.Description = "a task"
	}
	got, err := r.Submit(t.Context(), ann, n, "")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (r rig) manual(t *testing.T) task.Task { return r.submit(t, task.New{Dispatch: task.Manual}) }

// to brings a manual task to a status by the shortest way.
func (r rig) to(t *testing.T, id uuid.UUID, want task.Status) task.Task {
	t.Helper()
	way := map[task.Status][]task.Status{
		task.Pending:   nil,
		task.Planning:  {task.Planning},
		task.Running:   {task.Planning, task.Running},
		task.Waiting:   {task.Planning, task.Waiting},
		task.Completed: {task.Planning, task.Running, task.Completed},
		task.Failed:    {task.Failed},
		task.Cancelled: {task.Cancelled},
	}
	for _, st := range way[want] {
		if _, err := r.Update(t.Context(), ann, id, task.Patch{Status: st}); err != nil {
			t.Fatal(err)
		}
	}
	return r.get(t, id)
}

func (r rig) get(t *testing.T, id uuid.UUID) task.Task {
	t.Helper()
	got, err := r.Get(t.Context(), ann, id)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (r rig) claim(t *testing.T, worker string, max int) []task.Lease {
	t.Helper()
	r.register(t, task.NewWorker{ID: worker})
	leases, _, err := r.Claim(t.Context(), task.InProcess, worker, max, 0)
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

// register makes a worker of the server's own known. Without an instance it is
// the same each time.
func (r rig) register(t *testing.T, w task.NewWorker) {
	t.Helper()
	if w.Instance == uuid.Nil {
		w.Instance = uuid.NewSHA1(uuid.Nil, []byte(w.ID))
	}
	w.Capacity = max(w.Capacity, 1)
	if err := r.RegisterWorker(t.Context(), task.InProcess, w); err != nil {
		t.Fatal(err)
	}
}

func (r rig) report(t *testing.T, l task.Lease, rep task.Report) error {
	t.Helper()
	return r.Report(t.Context(), task.InProcess, l.ID, l.LeaseToken, rep)
}

// history returns the task's events and fails unless they are numbered 1, 2, 3, …
func (r rig) history(t *testing.T, id uuid.UUID) []task.Event {
	t.Helper()
	events, err := r.Events(t.Context(), ann, id, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d of task %s has number %d", i+1, id, e.Seq)
		}
		if i > 0 && e.CreatedAt.Before(events[i-1].CreatedAt) {
			t.Errorf("event %d of task %s is older than the one before", e.Seq, id)
		}
	}
	return events
}

func wantFault(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != want {
		t.Errorf("got error %v (%q), want fault %q", err, fault.CodeOf(err), want)
	}
}

func TestEveryStepOfTheStatusMachineIsAllowedOrRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	steps := map[task.Status][]task.Status{
		task.Pending:  {task.Planning, task.Failed, task.Cancelled},
		task.Planning: {task.Running, task.Waiting, task.Failed, task.Cancelled},
		task.Running:  {task.Waiting, task.Completed, task.Failed, task.Cancelled},
		task.Waiting:  {task.Running, task.Failed, task.Cancelled},
	}
	for _, from := range task.Statuses {
		for _, to := range task.Statuses {
			if to == task.Pending {
				continue // cannot even be asked for
			}
			id := r.manual(t).ID
			before := r.to(t, id, from)
			after, err := r.Update(t.Context(), ann, id, task.Patch{Status: to})
			if !slices.Contains(steps[from], to) {
				wantFault(t, err, fault.InvalidTransition)
				if got := r.get(t, id); got.Status != from || got.LastSeq != before.LastSeq {
					t.Errorf("a refused step from %s to %s left the task %s", from, to, got.Status)
				}
				continue
			}
			if err != nil || after.Status != to {
				t.Errorf("step from %s to %s: %v, %v", from, to, after.Status, err)
			}
			if events := r.history(t, id); events[len(events)-1].Status != to {
				t.Errorf("step from %s to %s: last event says %s", from, to, events[len(events)-1].Status)
			}
			if (after.CompletedAt != nil) != to.Terminal() {
				t.Errorf("step from %s to %s: completedAt is %v", from, to, after.CompletedAt)
			}
		}
	}
}

func TestStartedAtIsSetOnceAndProgressIsClamped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	if got := r.get(t, id); got.StartedAt != nil {
		t.Errorf("a pending task has started at %v", got.StartedAt)
	}
	first := r.to(t, id, task.Planning).StartedAt
	if first == nil {
		t.Fatal("planning did not start the task")
	}
	second, err := r.Update(t.Context(), ann, id, task.Patch{Status: task.Running})
	if err != nil || !second.StartedAt.Equal(*first) {
		t.Errorf("startedAt moved from %v to %v (%v)", first, second.StartedAt, err)
	}
	for asked, want := range map[int]int{-5: 0, 0: 0, 40: 40, 100: 100, 1 << 40: 100} {
		got, err := r.Update(t.Context(), ann, id, task.Patch{Progress: &asked})
		if err != nil || got.Progress != want {
			t.Errorf("progress %d became %d (%v), want %d", asked, got.Progress, err, want)
		}
	}
}

func TestATerminalTaskIsChangedByNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, end := range []task.Status{task.Completed, task.Failed, task.Cancelled} {
		id := r.manual(t).ID
		before := r.to(t, id, end)
		for name, p := range map[string]task.Patch{
			"progress": {Progress: new(10)}, "output": {Output: new("late")},
			"error": {Error: new("late")}, "message": {Message: "late"},
		} {
			_, err := r.Update(t.Context(), ann, id, p)
			if fault.CodeOf(err) != fault.InvalidTransition {
				t.Errorf("%s of a %s task: %v", name, end, err)
			}
		}
		_, err := r.Cancel(t.Context(), ann, id)
		wantFault(t, err, fault.InvalidTransition)
		if after := r.get(t, id); after.LastSeq != before.LastSeq || after.Status != end || after.Output != "" || after.Progress != 0 {
			t.Errorf("%s task was changed: %+v", end, after)
		}
	}
}

func TestSettingAnErrorFailsTheTask(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	r.to(t, id, task.Running)
	got, err := r.Update(t.Context(), ann, id, task.Patch{Error: new("out of disk")})
	if err != nil || got.Status != task.Failed || got.Error != "out of disk" {
		t.Errorf("got %s %q, %v", got.Status, got.Error, err)
	}
	_, err = r.Update(t.Context(), ann, r.manual(t).ID, task.Patch{Error: new("x"), Status: task.Completed})
	wantFault(t, err, fault.Invalid)
}

func TestOnlyTheSubmitterDrivesAManualTaskAndNobodyAnAutomaticOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.Update(t.Context(), root, r.manual(t).ID, task.Patch{Status: task.Planning})
	wantFault(t, err, fault.Forbidden)
	_, err = r.Update(t.Context(), ann, r.submit(t, task.New{}).ID, task.Patch{Status: task.Planning})
	wantFault(t, err, fault.Forbidden)
	_, err = r.Update(t.Context(), ann, uuid.New(), task.Patch{Status: task.Planning})
	wantFault(t, err, fault.NotFound)
}

func TestManualTasksAreNeverOfferedToWorkers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.manual(t)
	want := r.submit(t, task.New{})
	if got := r.claim(t, "w", 10); len(got) != 1 || got[0].ID != want.ID {
		t.Errorf("claimed %v", got)
	}
}

func TestAgentsThatCannotRunAreRefusedAtSubmission(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.Submit(t.Context(), ann, task.New{Description: "d", AgentID: "nobody"}, "")
	wantFault(t, err, fault.Invalid)
	_, err = r.Submit(t.Context(), ann, task.New{Description: "d", AgentID: "idle"}, "")
	wantFault(t, err, fault.AgentUnavailable)
	if _, err = r.Submit(t.Context(), ann, task.New{Description: "d", AgentID: "idle", Dispatch: task.Manual}, ""); err != nil {
		t.Errorf("a manual task needs nobody to run it: %v", err)
	}
}

func TestPrepareMakesPartitionsAndMayRunTwiceAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() { errs <- r.Prepare(context.Background()) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	id := r.manual(t).ID
	var home string
	err := r.pool.QueryRow(t.Context(), `SELECT tableoid::regclass::text FROM task_events WHERE task_id = $1`, id).Scan(&home)
	if err != nil || home == "task_events_default" {
		t.Errorf("the event of a new task is in %s (%v)", home, err)
	}
	if time.Since(r.get(t, id).CreatedAt) > time.Minute {
		t.Error("createdAt is not now")
	}
}
