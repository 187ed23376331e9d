package task_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/task"
)

// oldWeek is a Monday from long before what a test's server keeps.
var oldWeek = time.Date(2020, 3, 2, 0, 0, 0, 0, time.UTC)

// old is an id of a task that was submitted so many minutes into oldWeek.
func old(minutes int) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	ms := oldWeek.Add(time.Duration(minutes) * time.Minute).UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// age moves an ended task to another time of submission and end, with all that
// belongs to it.
func (r rig) age(t *testing.T, id, to uuid.UUID) uuid.UUID {
	t.Helper()
	_, err := r.pool.Exec(t.Context(), fmt.Sprintf(`
		INSERT INTO tasks SELECT (json_populate_record(t, json_build_object('id', '%[2]s', 'completed_at', '%[3]s'))).* FROM tasks t WHERE id = '%[1]s';
		UPDATE task_events SET task_id = '%[2]s' WHERE task_id = '%[1]s';
		UPDATE artifacts SET task_id = '%[2]s' WHERE task_id = '%[1]s';
		UPDATE tasks SET parent_task_id = '%[2]s' WHERE parent_task_id = '%[1]s';
		UPDATE tasks SET depends_on = array_replace(depends_on, '%[1]s', '%[2]s') WHERE '%[1]s' = ANY (depends_on);
		DELETE FROM tasks WHERE id = '%[1]s'`, id, to, oldWeek.Add(time.Hour).Format(time.RFC3339)))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func (r rig) ended(t *testing.T, n task.New, minutes int) uuid.UUID {
	t.Helper()
	n.Dispatch = task.Manual
	id := r.submit(t, n).ID
	r.put(t, id, "a", []byte("x"))
	r.to(t, id, task.Completed)
	return r.age(t, id, old(minutes))
}

func (r rig) partition(t *testing.T) (there bool, events int) {
	t.Helper()
	err := r.pool.QueryRow(t.Context(), `SELECT to_regclass('task_events_20200302') IS NOT NULL, (SELECT count(*) FROM task_events WHERE task_id < '017f0000-0000-7000-8000-000000000000')`).Scan(&there, &events)
	if err != nil {
		t.Fatal(err)
	}
	return there, events
}

func (r rig) addOldPartition(t *testing.T) {
	t.Helper()
	_, err := r.pool.Exec(t.Context(), `SELECT add_task_events_partition('task_events_20200302', $1, $2)`, postgres.FirstID(oldWeek), postgres.FirstID(oldWeek.AddDate(0, 0, 7)))
	if err != nil {
		t.Fatal(err)
	}
}

func TestTasksThatEndedLongAgoAreForgottenWithAllThatIsTheirs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addOldPartition(t)
	young := r.manual(t).ID
	r.put(t, young, "a", []byte("x"))
	r.to(t, young, task.Completed)
	var gone []uuid.UUID
	for i := range 5 {
		gone = append(gone, r.ended(t, task.New{}, i))
	}
	if there, events := r.partition(t); !there || events != 25 {
		t.Fatalf("a partition: %v, %d events", there, events)
	}
	// Another database's transaction may keep the newest events from being settled.
	var newest uint64
	if err := r.pool.QueryRow(ctx, `SELECT max(txid) FROM task_events`).Scan(&newest); err != nil {
		t.Fatal(err)
	}
	var seen task.Position
	eventually(t, func() bool {
		head, oldest, err := r.Ends(ctx)
		if err != nil || oldest != (task.Position{}) {
			t.Fatalf("before anything is forgotten the log begins at %v, %v", oldest, err)
		}
		seen = head
		return seen.Tx > newest
	})
	if err := r.Retain(ctx, false); err != nil {
		t.Fatal(err)
	}
	// Whoever has seen all that is gone has missed nothing.
	if head, oldest, err := r.Ends(ctx); err != nil || oldest.Tx == 0 || oldest.Tx > seen.Tx || head.Tx < seen.Tx {
		t.Errorf("the log begins at %v and goes to %v, after one that went to %v; %v", oldest, head, seen, err)
	}
	for _, id := range gone {
		_, err := r.Get(ctx, ann, id)
		wantFault(t, err, fault.NotFound)
	}
	if there, events := r.partition(t); there || events != 0 {
		t.Errorf("there still is a partition: %v, %d events", there, events)
	}
	if events := r.history(t, young); len(events) != 5 {
		t.Errorf("of a young task %d events are left", len(events))
	}
	r.afterTransfers(t)
	if contents, chunks := r.contents(t); contents != 1 || chunks != 1 {
		t.Errorf("%d contents of %d pieces are left", contents, chunks)
	}
	var told string
	err := r.pool.QueryRow(ctx, `SELECT string_agg(details ->> 'tasks', ',') FROM audit_entries WHERE action = 'task.forget'`).Scan(&told)
	if err != nil || told != "5" {
		t.Errorf("the audit log tells of %q tasks, %v", told, err)
	}
}

func TestTasksThatOthersNameAreKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addOldPartition(t)
	// The submission of the later ones needs the earlier ones to be open, or
	// completed, so they are aged last.
	parent, dependency, lone := r.manual(t).ID, r.manual(t).ID, r.manual(t).ID
	child := r.submit(t, task.New{Dispatch: task.Manual, ParentTaskID: &parent}).ID
	for _, id := range []uuid.UUID{parent, dependency, lone} {
		r.to(t, id, task.Completed)
	}
	dependent := r.submit(t, task.New{Dispatch: task.Manual, DependsOn: []uuid.UUID{dependency}}).ID
	parent, dependency, lone = r.age(t, parent, old(1)), r.age(t, dependency, old(2)), r.age(t, lone, old(3))
	is := func(id uuid.UUID) bool {
		_, err := r.Get(ctx, ann, id)
		if err != nil && fault.CodeOf(err) != fault.NotFound {
			t.Fatal(err)
		}
		return err == nil
	}
	if err := r.Retain(ctx, false); err != nil {
		t.Fatal(err)
	}
	if !is(parent) || !is(dependency) || is(lone) {
		t.Errorf("the parent is there: %v, the dependency: %v, the lone one: %v", is(parent), is(dependency), is(lone))
	}
	if there, events := r.partition(t); !there || events != 8 {
		t.Errorf("a partition: %v, %d events, want those of two tasks", there, events)
	}
	// With those that name them they go, in one pass.
	for i, id := range []uuid.UUID{child, dependent} {
		r.to(t, id, task.Completed)
		r.age(t, id, old(10+i))
	}
	if err := r.Retain(ctx, false); err != nil {
		t.Fatal(err)
	}
	if is(parent) || is(dependency) {
		t.Error("they stay for nobody")
	}
	if there, events := r.partition(t); there || events != 0 {
		t.Errorf("a partition: %v, %d events", there, events)
	}
}

func TestOpenTasksAreKeptAndLeftoversFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addOldPartition(t)
	open := r.manual(t).ID
	kept := old(1)
	for _, sql := range []string{`UPDATE task_events SET task_id = $2 WHERE task_id = $1`, `UPDATE tasks SET id = $2 WHERE id = $1`} {
		if _, err := r.pool.Exec(t.Context(), sql, open, kept); err != nil {
			t.Fatal(err)
		}
	}
	// What a process that was killed has left behind.
	_, err := r.pool.Exec(t.Context(), `INSERT INTO task_events (task_id, seq, txid, created_at, type, status) SELECT $1, n, '3', now(), 'log', 'failed' FROM generate_series(1, 6000) n`, old(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Retain(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if there, events := r.partition(t); !there || events != 1 {
		t.Errorf("a partition: %v, %d events, want the open task's", there, events)
	}
	r.get(t, kept)
	if _, err := r.pool.Exec(t.Context(), `SELECT drop_task_events_partition('task_events_20200302')`); err == nil {
		t.Error("a partition of an open task can be dropped")
	}
	for _, name := range []string{"tasks", "task_events_default", "task_events_20200302; DROP TABLE tasks"} {
		if _, err := r.pool.Exec(t.Context(), `SELECT drop_task_events_partition($1)`, name); err == nil {
			t.Errorf("%s can be dropped", name)
		}
	}
}
