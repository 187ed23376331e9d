DROP TABLE pauses;
-- What was held back comes to its turn.
UPDATE tasks SET parked_by = '', claimable = true
    WHERE completed_at IS NULL AND (parked_by LIKE 'rate:%' OR parked_by LIKE 'paused-%');
DELETE FROM concurrency_limits WHERE max_running IS NULL;
ALTER TABLE concurrency_limits
    DROP CONSTRAINT concurrency_limits_something,
    DROP CONSTRAINT concurrency_limits_rate_whole,
    DROP CONSTRAINT concurrency_limits_rate_of_agent,
    DROP COLUMN tokens,
    DROP COLUMN filled_at,
    DROP COLUMN rate_tasks,
    DROP COLUMN rate_seconds,
    DROP COLUMN rate_burst,
    ALTER COLUMN max_running SET NOT NULL;
