-- How tables are stored and cleaned, by how they are written; docs/decisions/011.

-- Leases are renewed all the time. With their end in an index each renewal would
-- write to all indexes of the task. Those that have one, no more than workers
-- hold, are found by tasks_worker_idx.
DROP INDEX tasks_lease_idx;

-- When a task is deleted.
CREATE INDEX task_dependencies_task_idx ON task_dependencies (task_id);

-- What happened in a time. Events are written in the order of their time, nearly:
-- that takes no more than the bounds of each range of pages.
CREATE INDEX task_events_created_idx ON task_events USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

-- Room for the next versions of rows beside them, and vacuums that keep up.
ALTER TABLE tasks SET (fillfactor = 70, autovacuum_vacuum_cost_limit = 2000, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE concurrency_limits SET (fillfactor = 50);
ALTER TABLE schedules SET (fillfactor = 70);
ALTER TABLE grants SET (fillfactor = 90);
-- Each row is deleted, some soon after it was written.
ALTER TABLE task_dependencies SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE webhook_deliveries SET (autovacuum_vacuum_cost_limit = 2000, autovacuum_vacuum_insert_scale_factor = 0.05);

-- Has a table whose rows never change frozen as it grows: later there is nothing
-- left to do for its age.
CREATE FUNCTION store_append_only(name text) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_freeze_min_age = 0)', name);
END $$;
REVOKE EXECUTE ON FUNCTION store_append_only FROM PUBLIC;
SELECT store_append_only(relname) FROM pg_class WHERE oid = 'audit_leaves'::regclass
    OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('task_events'::regclass, 'audit_entries'::regclass) AND relkind = 'r');

-- Partitions are made by these; they take no settings from their parent.
CREATE OR REPLACE FUNCTION add_task_events_partition(name text, lower uuid, upper uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF name !~ '^task_events_[0-9]{8}$' THEN
        RAISE EXCEPTION 'not the name of a partition of task_events: %', name;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF task_events FOR VALUES FROM (%L) TO (%L)', name, lower, upper);
    PERFORM store_append_only(name);
END $$;

CREATE OR REPLACE FUNCTION add_audit_partition(month date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' SET timezone = 'UTC' AS $$
DECLARE
    name  text := 'audit_entries_' || to_char(month, 'YYYYMM');
    lower uuid := audit_first_id(date_trunc('month', month::timestamptz));
    upper uuid := audit_first_id(date_trunc('month', month::timestamptz) + interval '1 month');
BEGIN
    -- Otherwise a caller's temporary tables would come first.
    PERFORM set_config('search_path', current_setting('search_path') || ', pg_temp', true);
    IF to_regclass(name) IS NOT NULL
        OR EXISTS (SELECT FROM audit_entries_default WHERE id >= lower AND id < upper) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF audit_entries FOR VALUES FROM (%L) TO (%L)', name, lower, upper);
    PERFORM audit_guard(name);
    PERFORM store_append_only(name);
END $$;
