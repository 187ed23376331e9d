package task_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

var (
	annInShop = policy.Caller{UserID: "ann", SessionID: "s1", ProjectID: "shop", Roles: []policy.Role{policy.Developer}}
	bobInShop = policy.Caller{UserID: "bob", SessionID: "s2", ProjectID: "shop", Roles: []policy.Role{policy.Developer}}
	annInBank = policy.Caller{UserID: "ann", SessionID: "s3", ProjectID: "bank", Roles: []policy.Role{policy.Developer}}
	annAlone  = policy.Caller{UserID: "ann", SessionID: "s5", Roles: []policy.Role{policy.Developer}}
	bobAlone  = policy.Caller{UserID: "bob", SessionID: "s4", Roles: []policy.Role{policy.Developer}}
	root      = policy.Caller{UserID: "root", AllProjects: true, Roles: []policy.Role{policy.Admin}}
)

func TestNothingCrossesProjects(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	submitted, err := r.Submit(ctx, annInShop, task.New{Description: "in the shop", Dispatch: task.Manual}, "k")
	if err != nil {
		t.Fatal(err)
	}
	id := submitted.ID
	if submitted.ProjectID != "shop" || submitted.SessionID != "s1" {
		t.Errorf("submitted into project %q, session %q", submitted.ProjectID, submitted.SessionID)
	}
	own := r.submit(t, task.New{Dispatch: task.Manual}) // ann's, in no project

	sees := func(c policy.Caller, id uuid.UUID) bool {
		_, err := r.Get(ctx, c, id)
		list, _, listErr := r.List(ctx, c, task.Filter{}, uuid.Max, 500)
		if listErr != nil {
			t.Fatal(listErr)
		}
		listed := false
		for _, l := range list {
			listed = listed || l.ID == id
		}
		if listed != (err == nil) {
			t.Errorf("%s in %q: gets %v, lists %v", c.UserID, c.ProjectID, err, listed)
		}
		if err != nil && fault.CodeOf(err) != fault.NotFound {
			t.Errorf("%s in %q: %v, want not-found", c.UserID, c.ProjectID, err)
		}
		return err == nil
	}
	for _, c := range []struct {
		caller     policy.Caller
		shop, mine bool
	}{
		{annInShop, true, false},
		{bobInShop, true, false},
		{annInBank, false, false},
		{annAlone, false, true},
		{bobAlone, false, false},
		{root, true, true},
	} {
		if sees(c.caller, id) != c.shop || sees(c.caller, own.ID) != c.mine {
			t.Errorf("%s in %q sees the wrong tasks", c.caller.UserID, c.caller.ProjectID)
		}
	}

	for what, err := range map[string]error{
		"get events":              second(r.Events(ctx, annInBank, id, 0, 10)),
		"update":                  second(r.Update(ctx, annInBank, id, task.Patch{Message: "mine?"})),
		"cancel":                  second(r.Cancel(ctx, annInBank, id)),
		"filter by project":       expectNone(r.List(ctx, annInBank, task.Filter{ProjectID: "shop"}, uuid.Max, 10)),
		"filter by session":       expectNone(r.List(ctx, annInBank, task.Filter{SessionID: "s1"}, uuid.Max, 10)),
		"page on from a foreign":  expectNone(r.List(ctx, annInBank, task.Filter{}, id, 10)),
		"update without project":  second(r.Update(ctx, annAlone, id, task.Patch{Message: "mine?"})),
		"list children of it":     expectNone(r.List(ctx, annInBank, task.Filter{ParentTaskID: &id}, uuid.Max, 10)),
		"cancel without project":  second(r.Cancel(ctx, annAlone, id)),
		"read events w/o project": second(r.Events(ctx, annAlone, id, 0, 10)),
	} {
		if fault.CodeOf(err) != fault.NotFound {
			t.Errorf("%s from outside: %v, want not-found", what, err)
		}
	}
	for what, n := range map[string]task.New{
		"parent":     {ParentTaskID: &id},
		"dependency": {DependsOn: []uuid.UUID{id}},
		"project":    {ProjectID: "shop"},
		"session":    {SessionID: "s1"},
	} {
		n.Description, n.Dispatch = "a task", task.Manual
		if _, err := r.Submit(ctx, annInBank, n, ""); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("submit with a foreign %s: %v, want invalid", what, err)
		}
		if _, err := r.SubmitBatch(ctx, annInBank, []task.New{{Description: "fine", Dispatch: task.Manual}, n}, ""); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("submit a batch with a foreign %s: %v, want invalid", what, err)
		}
	}
	if _, err := r.Submit(ctx, root, task.New{Description: "a child elsewhere", ProjectID: "bank", ParentTaskID: &id}, ""); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a child in another project than its parent: %v, want invalid", err)
	}

	// The same key in another project is another request.
	again, err := r.Submit(ctx, annInBank, task.New{Description: "in the bank", Dispatch: task.Manual}, "k")
	if err != nil || again.ID == id {
		t.Errorf("the key of another project gave %v, %v", again.ID, err)
	}
}

func second[T any](_ T, err error) error { return err }

func expectNone(tasks []task.Task, _ bool, err error) error {
	if err == nil && len(tasks) == 0 {
		return fault.New(fault.NotFound, "none")
	}
	return err
}

func TestTheDatabaseHidesOtherProjectsWhateverTheQuery(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []policy.Caller{annInShop, annInBank, bobAlone} {
		if _, err := r.Submit(t.Context(), c, task.New{Description: "a task", Dispatch: task.Manual}, ""); err != nil {
			t.Fatal(err)
		}
	}
	r.submit(t, task.New{Dispatch: task.Manual})
	for _, c := range []policy.Caller{annInShop, annInBank, annAlone, bobAlone} {
		tasks, events := 0, 0
		count := func(into *int) func(pgx.Rows) error {
			return func(rows pgx.Rows) (err error) {
				*into, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
				return err
			}
		}
		// Neither query says whose tasks it wants.
		if err := r.ReadAs(t.Context(), c, `SELECT count(*) FROM tasks`, count(&tasks)); err != nil {
			t.Fatal(err)
		}
		if err := r.ReadAs(t.Context(), c, `SELECT count(*) FROM task_events`, count(&events)); err != nil {
			t.Fatal(err)
		}
		if tasks != 1 || events != 1 {
			t.Errorf("%s in %q sees %d tasks and %d events, want one of each", c.UserID, c.ProjectID, tasks, events)
		}
		for _, sql := range []string{
			`UPDATE tasks SET priority = 1`, `DELETE FROM tasks`, `INSERT INTO task_events SELECT * FROM task_events`,
			`SELECT count(*) FROM task_events_default`, `SELECT count(*) FROM audit_entries`,
		} {
			if err := r.ReadAs(t.Context(), c, sql, func(rows pgx.Rows) error { rows.Close(); return rows.Err() }); err == nil {
				t.Errorf("%s: %q was not refused", c.UserID, sql)
			}
		}
	}
	// What one caller was is gone with its transaction.
	var role string
	if err := r.pool.QueryRow(t.Context(), `SELECT current_user`).Scan(&role); err != nil || role != postgres.AppRole {
		t.Errorf("afterwards the role is %q, %v", role, err)
	}
}

func TestDecisionsStandInTheTransactionOfTheirEffect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	submitted, err := r.Submit(ctx, annInShop, task.New{Description: "a task", Dispatch: task.Manual}, "k")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the same request, answered again, changes nothing
		if _, err := r.Submit(ctx, annInShop, task.New{Description: "a task", Dispatch: task.Manual}, "k"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Update(ctx, annInShop, submitted.ID, task.Patch{Status: task.Planning}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(ctx, annInShop, submitted.ID, task.Patch{Status: task.Completed}); fault.CodeOf(err) != fault.InvalidTransition {
		t.Fatal(err) // and no entry, for it had no effect
	}
	if _, err := r.Cancel(ctx, annInShop, submitted.ID); err != nil {
		t.Fatal(err)
	}
	queued := r.submit(t, task.New{})
	r.claim(t, "w1", 5)
	rows, err := r.pool.Query(ctx, `SELECT action || ' ' || result || ' ' || user_id || ' ' || project_id || ' ' ||
		CASE resource_id WHEN $1 THEN 'first' WHEN $2 THEN 'second' ELSE resource_id END FROM audit_entries ORDER BY created_at, id`,
		submitted.ID.String(), queued.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"task.submit allowed ann shop first", "task.update allowed ann shop first", "task.cancel allowed ann shop first",
		"task.submit allowed ann  second", "task.claim allowed server  second",
	}
	if g, w := asJSON(got), asJSON(want); g != w {
		t.Errorf("audited:\n%s\nwant:\n%s", g, w)
	}
}

func asJSON(v any) string {
	b, _ := json.Marshal(v) // strings
	return string(b)
}

func TestWhatCannotBeAuditedDoesNotHappen(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := postgres.Open(t.Context(), url, postgres.As(postgres.AppRole))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r := rigOn(t, pool)
	before := r.submit(t, task.New{Dispatch: task.Manual})
	queued := r.submit(t, task.New{})
	owner, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(context.WithoutCancel(t.Context())) })
	r.register(t, task.NewWorker{ID: "w1"})
	if _, err := owner.Exec(t.Context(), `REVOKE INSERT ON audit_entries FROM coderclaw_app`); err != nil {
		t.Fatal(err)
	}
	_, submitErr := r.Submit(t.Context(), ann, task.New{Description: "a task"}, "")
	_, batchErr := r.SubmitBatch(t.Context(), ann, []task.New{{Description: "one"}, {Description: "two"}}, "")
	_, updateErr := r.Update(t.Context(), ann, before.ID, task.Patch{Status: task.Planning})
	_, cancelErr := r.Cancel(t.Context(), ann, before.ID)
	_, _, claimErr := r.Claim(t.Context(), task.InProcess, "w1", 5, 0)
	for what, err := range map[string]error{
		"submit": submitErr, "submit a batch": batchErr, "update": updateErr, "cancel": cancelErr, "claim": claimErr,
	} {
		if fault.CodeOf(err) != fault.AuditUnavailable {
			t.Errorf("%s: %v, want audit-unavailable", what, err)
		}
	}
	if got := r.get(t, before.ID); got.Status != task.Pending || got.LastSeq != 1 {
		t.Errorf("the task was changed: %+v", got)
	}
	if got := r.get(t, queued.ID); got.Status != task.Pending {
		t.Errorf("the task was claimed: %+v", got)
	}
	if tasks, _, err := r.List(t.Context(), ann, task.Filter{}, uuid.Max, 10); err != nil || len(tasks) != 2 {
		t.Errorf("%d tasks, %v; want the two from before", len(tasks), err)
	}
}

func TestATaskIsDecidedAboutAgainWhenItIsClaimed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	forbidden := r.submit(t, task.New{AgentID: "code-modifier"})
	fine := r.submit(t, task.New{})
	r.rights.forbid("code-modifier", "a verified device is needed")
	leases := r.claim(t, "w1", 5)
	if len(leases) != 1 || leases[0].ID != fine.ID {
		t.Errorf("claimed %+v, want only the task that is still allowed", leases)
	}
	got := r.get(t, forbidden.ID)
	if got.Status != task.Failed || got.Error != "not allowed any more: a verified device is needed" {
		t.Errorf("the forbidden task is %s: %s", got.Status, got.Error)
	}
	denied := r.rights.denials()
	if len(denied) != 1 || denied[0].Action != "task.claim" || denied[0].ResourceID != forbidden.ID.String() || denied[0].UserID != "ann" {
		t.Errorf("recorded %+v", denied)
	}
}

func TestARunningTaskThatIsNotAllowedAnyMoreIsCancelled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	running := r.submit(t, task.New{AgentID: "code-modifier"})
	other := r.submit(t, task.New{})
	r.claim(t, "w1", 5)
	cancelled := make(chan stream.Signal, 100)
	r.bus.Subscribe(func(s stream.Signal) {
		if s.Topic == stream.LeaseLost {
			cancelled <- s
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = r.Run(ctx); close(done) }()
	r.rights.forbid("code-modifier", "a verified device is needed")
	r.bus.Publish(stream.Signal{Topic: stream.AccessChanged})
	<-cancelled // its worker hears of it
	if got := r.get(t, running.ID); got.Status != task.Cancelled {
		t.Errorf("the forbidden task is %s", got.Status)
	}
	if got := r.get(t, other.ID); got.Status != task.Planning {
		t.Errorf("the other task is %s", got.Status)
	}
	var reason string
	if err := r.pool.QueryRow(ctx, `SELECT user_id || ': ' || reason FROM audit_entries WHERE action = 'task.cancel'`).Scan(&reason); err != nil {
		t.Fatal(err)
	}
	if want := "system: not allowed any more: a verified device is needed"; reason != want {
		t.Errorf("audited %q, want %q", reason, want)
	}
	cancel()
	<-done
}

func TestADeniedSubmissionIsRecordedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rights.forbid("code-modifier", "a verified device is needed")
	_, err := r.SubmitBatch(t.Context(), ann, []task.New{{Description: "one"}, {Description: "two", AgentID: "code-modifier"}}, "")
	if fault.CodeOf(err) != fault.Forbidden || err.Error() != "a verified device is needed (agentPolicies[code-modifier])" {
		t.Errorf("answered %v", err)
	}
	if tasks, _, err := r.List(t.Context(), ann, task.Filter{}, uuid.Max, 10); err != nil || len(tasks) != 0 {
		t.Errorf("%d tasks are there, %v", len(tasks), err)
	}
	if denied := r.rights.denials(); len(denied) != 1 || denied[0].Action != "task.submit" || denied[0].Rule != "agentPolicies[code-modifier]" {
		t.Errorf("recorded %+v", denied)
	}
}
