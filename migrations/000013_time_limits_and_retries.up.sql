ALTER TABLE tasks
    ADD COLUMN expires_at      timestamptz, -- fails if nothing has begun by then
    ADD COLUMN deadline_at     timestamptz, -- fails if it has not ended by then
    ADD COLUMN silence_seconds integer NOT NULL DEFAULT 0,
    -- Which failures are tried again, by their reason; none: all that may be.
    ADD COLUMN retry_on        text[]  NOT NULL DEFAULT '{}',
    -- Why the task, or its last attempt, did not succeed.
    ADD COLUMN status_reason   text    NOT NULL DEFAULT '';
CREATE INDEX tasks_expiry_idx ON tasks (expires_at) WHERE expires_at IS NOT NULL AND status = 'pending';
CREATE INDEX tasks_deadline_idx ON tasks (deadline_at) WHERE deadline_at IS NOT NULL AND completed_at IS NULL;
