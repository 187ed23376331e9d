-- The roles stay: other databases of the cluster may use them.
DROP FUNCTION add_task_events_partition;
DROP INDEX tasks_user_idx;
DROP INDEX tasks_idempotency_key;
CREATE UNIQUE INDEX tasks_idempotency_key ON tasks (user_id, idempotency_key, idempotency_index)
    WHERE idempotency_key IS NOT NULL;
DROP POLICY scoped ON task_events;
DROP POLICY app ON task_events;
ALTER TABLE task_events DISABLE ROW LEVEL SECURITY;
DROP POLICY scoped ON tasks;
DROP POLICY app ON tasks;
ALTER TABLE tasks DISABLE ROW LEVEL SECURITY;
DO $$
BEGIN
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON TABLES FROM coderclaw_app', current_schema);
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON SEQUENCES FROM coderclaw_app', current_schema);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM coderclaw_app, coderclaw_scoped', current_schema);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM coderclaw_app', current_schema);
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM coderclaw_app, coderclaw_scoped', current_schema);
END $$;
