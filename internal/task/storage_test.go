package task_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestEveryPartitionIsFrozenAsItGrows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.addOldPartition(t)
	if _, err := r.pool.Exec(t.Context(), `SELECT add_audit_partition('2020-03-01')`); err != nil {
		t.Fatal(err)
	}
	rows, err := r.pool.Query(t.Context(), `
		SELECT c.relname::text, coalesce(c.reloptions, '{}') @> '{autovacuum_freeze_min_age=0,autovacuum_vacuum_insert_scale_factor=0.1}' FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
		WHERE inhparent IN ('task_events'::regclass, 'audit_entries'::regclass)`)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	var name string
	var frozen bool
	if _, err := pgx.ForEachRow(rows, []any{&name, &frozen}, func() error { found[name] = frozen; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"task_events_default", "task_events_20200302", "audit_entries_default", "audit_entries_202003"} {
		if _, there := found[name]; !there {
			t.Errorf("there is no partition %s", name)
		}
	}
	for name, frozen := range found {
		if !frozen {
			t.Errorf("partition %s is stored like any table", name)
		}
	}
}

// Else the deletion of a task reads all of the table that refers to it.
func TestWhatRefersToTasksIsFoundByAnIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rows, err := r.pool.Query(t.Context(), `
		SELECT f.conrelid::regclass::text || ' (' || a.attname || ')',
			EXISTS (SELECT FROM pg_index i WHERE i.indrelid = f.conrelid AND i.indkey[0] = f.conkey[1])
		FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
		WHERE f.contype = 'f' AND f.confrelid = 'tasks'::regclass`)
	if err != nil {
		t.Fatal(err)
	}
	var column string
	var indexed bool
	seen := 0
	if _, err := pgx.ForEachRow(rows, []any{&column, &indexed}, func() error {
		if seen++; !indexed {
			t.Errorf("no index begins with %s", column)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if seen < 4 {
		t.Errorf("%d foreign keys name tasks", seen)
	}
}
