-- What agents ask of people. A question is open only while its task waits for
-- people under the lease that asked.
CREATE TABLE questions (
    id          uuid        NOT NULL, -- chosen by whoever asked
    task_id     uuid        NOT NULL,
    lease_token uuid        NOT NULL,
    number      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    asked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,
    answered_at timestamptz, -- or expired, or withdrawn
    kind        text        NOT NULL,
    status      text        NOT NULL DEFAULT 'open',
    -- Those of the task, which never change there.
    project_id  text        NOT NULL,
    user_id     text        NOT NULL,
    text        text        NOT NULL,
    skill_id    text        NOT NULL,
    risk        text        NOT NULL,
    answered_by text        NOT NULL DEFAULT '',
    -- json, not jsonb: kept as they were written.
    choices     json,
    schema      json,
    tool        json,
    answer      json,
    CONSTRAINT questions_pkey PRIMARY KEY (id),
    CONSTRAINT questions_task_fkey FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT questions_kind_known CHECK (kind IN ('input', 'approval')),
    CONSTRAINT questions_status_known CHECK (status = ANY (CASE kind
        WHEN 'input' THEN ARRAY ['open', 'answered', 'expired', 'withdrawn']
        ELSE ARRAY ['open', 'approved', 'denied', 'expired', 'withdrawn'] END)),
    CONSTRAINT questions_open_or_over CHECK ((status = 'open') = (answered_at IS NULL)),
    CONSTRAINT questions_answer_has_author CHECK
        ((status IN ('answered', 'approved', 'denied')) = (answer IS NOT NULL AND answered_by <> ''))
);

CREATE INDEX questions_task_idx ON questions (task_id, number);
CREATE INDEX questions_open_idx ON questions (expires_at) WHERE status = 'open';
CREATE INDEX questions_number_idx ON questions (number);
CREATE INDEX questions_project_idx ON questions (project_id, number) WHERE project_id <> '';
CREATE INDEX questions_user_idx ON questions (user_id, number) WHERE project_id = '';

ALTER TABLE questions ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON questions TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON questions FOR SELECT TO coderclaw_scoped USING (
    project_id = current_setting('coderclaw.project', true)
    AND (project_id <> '' OR user_id = current_setting('coderclaw.user', true)));
GRANT SELECT ON questions TO coderclaw_scoped;

-- Withdraws the open questions of a task that stops waiting for people,
-- whichever statement makes it stop: it ended, was cancelled, goes on, or its
-- lease is gone. Their events come before those of the statement, which numbers
-- its own from the end.
CREATE FUNCTION withdraw_questions() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    q record;
BEGIN
    FOR q IN UPDATE questions SET status = 'withdrawn', answered_at = NEW.updated_at
        WHERE task_id = OLD.id AND status = 'open' RETURNING id, kind, answered_at
    LOOP
        OLD.last_seq := OLD.last_seq + 1;
        NEW.last_seq := NEW.last_seq + 1;
        INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
        VALUES (OLD.id, OLD.last_seq, NEW.last_txid, NEW.updated_at, 'question', OLD.status, 'the question was withdrawn',
            json_build_object('id', q.id, 'taskId', OLD.id, 'kind', q.kind, 'status', 'withdrawn', 'answeredAt', q.answered_at));
    END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER withdraw_questions BEFORE UPDATE ON tasks FOR EACH ROW
    WHEN (OLD.waiting_reason IN ('input', 'approval') AND OLD.lease_token IS NOT NULL
        AND (NEW.waiting_reason NOT IN ('input', 'approval') OR NEW.lease_token IS DISTINCT FROM OLD.lease_token))
    EXECUTE FUNCTION withdraw_questions();

-- A task that failed or was cancelled can be done again, once: by another task.
ALTER TABLE tasks ADD COLUMN retry_of uuid, ADD COLUMN retried_by uuid;
