-- The server works as coderclaw_app, which owns nothing: it can neither change
-- the schema nor, later, what must only be appended to. For reads on behalf of
-- a caller who is confined to a project it becomes coderclaw_scoped, for which
-- row-level security hides every other project, whatever the query says.
--
-- Roles belong to the cluster and may be there already, through another of its
-- databases or because an administrator made them.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY ['coderclaw_app', 'coderclaw_scoped'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL; -- another database was faster
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role % is missing and % may not create it', name, current_user
                    USING HINT = format('As an administrator: CREATE ROLE %I NOLOGIN; GRANT %I TO %I;', name, name, current_user);
        END;
        IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', name);
        END IF;
    END LOOP;
    IF NOT pg_has_role('coderclaw_app', 'coderclaw_scoped', 'MEMBER') THEN
        GRANT coderclaw_scoped TO coderclaw_app;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO coderclaw_app, coderclaw_scoped', current_schema);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO coderclaw_app', current_schema);
    EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %I TO coderclaw_app', current_schema);
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO coderclaw_app', current_schema);
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT USAGE, SELECT ON SEQUENCES TO coderclaw_app', current_schema);
END $$;

-- A caller sees the tasks of the project that it is confined to; without a
-- project, its own ones that belong to none.
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON tasks TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON tasks FOR SELECT TO coderclaw_scoped USING (
    project_id = current_setting('coderclaw.project', true)
    AND (project_id <> '' OR user_id = current_setting('coderclaw.user', true)));
GRANT SELECT ON tasks TO coderclaw_scoped;

-- The history of a task is seen by whoever sees the task. Partitions are
-- reached through their parent only.
ALTER TABLE task_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON task_events TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON task_events FOR SELECT TO coderclaw_scoped USING (
    EXISTS (SELECT FROM tasks t WHERE t.id = task_id));
GRANT SELECT ON task_events TO coderclaw_scoped;

-- A key is a user's within a project.
DROP INDEX tasks_idempotency_key;
CREATE UNIQUE INDEX tasks_idempotency_key ON tasks (user_id, project_id, idempotency_key, idempotency_index)
    WHERE idempotency_key IS NOT NULL;
-- Tasks without a project are listed by who submitted them.
CREATE INDEX tasks_user_idx ON tasks (user_id, id) WHERE project_id = '';

-- Makes a partition of task_events; the server itself may not.
CREATE FUNCTION add_task_events_partition(name text, lower uuid, upper uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF name !~ '^task_events_[0-9]{8}$' THEN
        RAISE EXCEPTION 'not the name of a partition of task_events: %', name;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF task_events FOR VALUES FROM (%L) TO (%L)', name, lower, upper);
END $$;
REVOKE EXECUTE ON FUNCTION add_task_events_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION add_task_events_partition TO coderclaw_app;
