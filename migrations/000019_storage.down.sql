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
END $$;

CREATE OR REPLACE FUNCTION add_task_events_partition(name text, lower uuid, upper uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF name !~ '^task_events_[0-9]{8}$' THEN
        RAISE EXCEPTION 'not the name of a partition of task_events: %', name;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF task_events FOR VALUES FROM (%L) TO (%L)', name, lower, upper);
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT relname FROM pg_class WHERE oid = 'audit_leaves'::regclass
        OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('task_events'::regclass, 'audit_entries'::regclass) AND relkind = 'r') LOOP
        EXECUTE format('ALTER TABLE %I RESET (autovacuum_vacuum_insert_scale_factor, autovacuum_freeze_min_age)', name);
    END LOOP;
END $$;
DROP FUNCTION store_append_only(text);

ALTER TABLE webhook_deliveries RESET (autovacuum_vacuum_cost_limit, autovacuum_vacuum_insert_scale_factor);
ALTER TABLE task_dependencies RESET (autovacuum_vacuum_scale_factor);
ALTER TABLE grants RESET (fillfactor);
ALTER TABLE schedules RESET (fillfactor);
ALTER TABLE concurrency_limits RESET (fillfactor);
ALTER TABLE tasks SET (fillfactor = 85);
ALTER TABLE tasks RESET (autovacuum_vacuum_cost_limit, autovacuum_vacuum_insert_scale_factor);

DROP INDEX task_events_created_idx, task_dependencies_task_idx;
CREATE INDEX tasks_lease_idx ON tasks (lease_expires_at) WHERE lease_token IS NOT NULL;
