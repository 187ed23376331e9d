-- What submits tasks again and again. The row is the state: a tick is claimed
-- by moving next_at on, in the transaction that inserts its task.
CREATE TABLE schedules (
    id                uuid        NOT NULL,
    created_at        timestamptz NOT NULL,
    -- The last change by a caller; ticks leave it alone.
    updated_at        timestamptz NOT NULL,
    -- The next tick; NULL while paused, or where there is none.
    next_at           timestamptz,
    -- A tick that waits for the run before to end.
    queued_at         timestamptz,
    -- The last tick that was dealt with, when that was, and what came of it.
    last_tick_at      timestamptz,
    last_run_at       timestamptz,
    -- The task of the last run that submitted one.
    last_task_id      uuid,
    missed            bigint      NOT NULL DEFAULT 0,
    interval_seconds  integer     NOT NULL DEFAULT 0,
    deadline_seconds  integer     NOT NULL,
    paused            boolean     NOT NULL,
    overlap           text        NOT NULL,
    -- By whose rights its tasks are submitted.
    user_id           text        NOT NULL,
    session_id        text        NOT NULL,
    project_id        text        NOT NULL,
    name              text        NOT NULL,
    cron              text        NOT NULL DEFAULT '',
    time_zone         text        NOT NULL DEFAULT '',
    last_result       text        NOT NULL DEFAULT '',
    last_reason       text        NOT NULL DEFAULT '',
    -- The task to be submitted.
    task              json        NOT NULL,

    CONSTRAINT schedules_pkey PRIMARY KEY (id),
    CONSTRAINT schedules_overlap_known CHECK (overlap IN ('skip', 'queue', 'replace')),
    CONSTRAINT schedules_result_known CHECK (last_result IN ('', 'submitted', 'skipped', 'queued', 'denied', 'failed')),
    CONSTRAINT schedules_cron_or_interval CHECK ((cron <> '') <> (interval_seconds > 0)),
    CONSTRAINT schedules_zone_with_cron CHECK ((cron <> '') = (time_zone <> '')),
    CONSTRAINT schedules_paused_is_idle CHECK (NOT paused OR next_at IS NULL AND queued_at IS NULL)
);
CREATE INDEX schedules_next_idx ON schedules (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_queued_idx ON schedules (queued_at) WHERE queued_at IS NOT NULL;
CREATE INDEX schedules_project_idx ON schedules (project_id, id);
CREATE INDEX schedules_session_idx ON schedules (session_id) WHERE session_id <> '';

ALTER TABLE tasks ADD COLUMN schedule_id uuid;
CREATE INDEX tasks_schedule_idx ON tasks (schedule_id, id) WHERE schedule_id IS NOT NULL;
-- The runs that have not ended.
CREATE INDEX tasks_schedule_open_idx ON tasks (schedule_id) WHERE schedule_id IS NOT NULL AND completed_at IS NULL;

-- As with tasks.
ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON schedules TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON schedules FOR SELECT TO coderclaw_scoped USING (
    project_id = current_setting('coderclaw.project', true)
    AND (project_id <> '' OR user_id = current_setting('coderclaw.user', true)));
GRANT SELECT ON schedules TO coderclaw_scoped;

-- What goes on by the rights of a session needs the session, long after its
-- time: one that has expired stays while something refers to it, unless the
-- user, the key or the device that it rests on is gone.
CREATE FUNCTION keep_session_in_use() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM schedules WHERE session_id = OLD.id::text)
        AND (OLD.key_id IS NOT NULL OR EXISTS (SELECT FROM users WHERE id = OLD.user_id))
        AND (OLD.key_id IS NULL OR EXISTS (SELECT FROM api_keys WHERE id = OLD.key_id))
        AND (OLD.device_id IS NULL OR EXISTS (SELECT FROM devices WHERE id = OLD.device_id)) THEN
        RETURN NULL;
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER keep_session_in_use BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION keep_session_in_use();
