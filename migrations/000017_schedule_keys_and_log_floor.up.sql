-- What has gone from the log of all events: those of a transaction up to this
-- one may be missing.
CREATE TABLE task_log (
    forgotten xid8    NOT NULL,
    single    boolean NOT NULL DEFAULT true,

    CONSTRAINT task_log_pkey PRIMARY KEY (single),
    CONSTRAINT task_log_one_row CHECK (single)
);
INSERT INTO task_log (forgotten) VALUES ('0');

ALTER TABLE schedules
    -- A key is that of whoever made the schedule, whoever has taken it over since.
    ADD COLUMN idempotency_user text,
    ADD COLUMN idempotency_key  text,
    ADD COLUMN idempotency_hash bytea,
    -- Why the server has paused it.
    ADD COLUMN paused_reason    text NOT NULL DEFAULT '',
    ADD CONSTRAINT schedules_reason_while_paused CHECK (paused OR paused_reason = '');
CREATE UNIQUE INDEX schedules_idempotency_key ON schedules (idempotency_user, project_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
