DROP TABLE concurrency_limits, turns;
UPDATE tasks SET claimable = true WHERE parked_by <> '' AND completed_at IS NULL;
DROP INDEX tasks_due_idx, tasks_parked_idx, tasks_flow_idx, tasks_turn_idx;
ALTER TABLE tasks DROP COLUMN parked_by, DROP COLUMN concurrency_limit, DROP COLUMN concurrency_key, DROP COLUMN rank, DROP COLUMN tag;
CREATE INDEX tasks_claimable_idx ON tasks (priority DESC, id) WHERE claimable;
CREATE INDEX tasks_due_idx ON tasks (run_after)
    WHERE NOT claimable AND dispatch = 'auto' AND blocked_by = 0
      AND (status = 'pending' OR waiting_reason = 'retry');
