-- A task that waits for people can give its worker back. What its agent is taken
-- up again from, and by which worker, stands here from then on.
ALTER TABLE tasks
    ADD COLUMN resume        json, -- NULL: it would begin anew
    ADD COLUMN resume_worker text NOT NULL DEFAULT '';

-- Questions stay open while their task waits without a lease; there is no other
-- way to lose one and to wait on for the same.
DROP TRIGGER withdraw_questions ON tasks;
CREATE TRIGGER withdraw_questions BEFORE UPDATE ON tasks FOR EACH ROW
    WHEN (OLD.waiting_reason IN ('input', 'approval') AND (OLD.lease_token IS NOT NULL OR OLD.resume IS NOT NULL)
        AND (NEW.waiting_reason NOT IN ('input', 'approval') OR NEW.lease_token IS NOT NULL AND NEW.lease_token IS DISTINCT FROM OLD.lease_token))
    EXECUTE FUNCTION withdraw_questions();

-- Whether an approval can be remembered, as whoever asked says.
ALTER TABLE questions ADD COLUMN remember boolean NOT NULL DEFAULT false;

-- Approvals that are remembered: they hold for the very same request of the same
-- agent, within their scope, for as long as who gave them may approve it.
CREATE TABLE grants (
    id           uuid        NOT NULL,
    task_id      uuid, -- with scope task
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    uses         integer     NOT NULL DEFAULT 0,
    scope        text        NOT NULL,
    -- Those of the task for which it was given.
    project_id   text        NOT NULL,
    user_id      text        NOT NULL,
    session_id   text        NOT NULL,
    agent_id     text        NOT NULL,
    -- Who gave it, and in which session.
    granted_by   text        NOT NULL,
    granted_in   text        NOT NULL,
    digest       bytea       NOT NULL, -- of what was asked
    text         text        NOT NULL,
    tool         json,
    CONSTRAINT grants_pkey PRIMARY KEY (id),
    CONSTRAINT grants_task_fkey FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT grants_scope_known CHECK (scope IN ('task', 'session', 'project')),
    CONSTRAINT grants_scope_named CHECK (CASE scope WHEN 'task' THEN task_id IS NOT NULL WHEN 'session' THEN session_id <> '' ELSE project_id <> '' END)
);
CREATE INDEX grants_digest_idx ON grants (digest);
CREATE INDEX grants_task_idx ON grants (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX grants_project_idx ON grants (project_id, id);

ALTER TABLE grants ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON grants TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON grants FOR SELECT TO coderclaw_scoped USING (
    project_id = current_setting('coderclaw.project', true)
    AND (project_id <> '' OR user_id = current_setting('coderclaw.user', true)));
GRANT SELECT ON grants TO coderclaw_scoped;
