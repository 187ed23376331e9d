DROP INDEX schedules_idempotency_key;
ALTER TABLE schedules DROP CONSTRAINT schedules_reason_while_paused,
    DROP COLUMN paused_reason, DROP COLUMN idempotency_hash, DROP COLUMN idempotency_key, DROP COLUMN idempotency_user;
DROP TABLE task_log;
