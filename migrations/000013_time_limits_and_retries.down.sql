DROP INDEX tasks_deadline_idx, tasks_expiry_idx;
ALTER TABLE tasks DROP COLUMN status_reason, DROP COLUMN retry_on, DROP COLUMN silence_seconds, DROP COLUMN deadline_at, DROP COLUMN expires_at;
