-- Whose turn it is. Within a project tasks are claimed in the order of rank: a
-- virtual time at which each session's tasks follow one another, less what their
-- priority is worth. Between projects the one with the fewest running tasks
-- comes first.
ALTER TABLE tasks
    ADD COLUMN tag  bigint NOT NULL DEFAULT 0, -- the virtual time, as of start-time fair queueing
    ADD COLUMN rank bigint NOT NULL DEFAULT 0, -- tag less the worth of the priority
    -- At most concurrency_limit tasks of a project with the same key run at once.
    ADD COLUMN concurrency_key   text     NOT NULL DEFAULT '',
    ADD COLUMN concurrency_limit smallint NOT NULL DEFAULT 0,
    -- The limit that keeps the task from being claimed, as kind:name. Such tasks
    -- are not claimable, so that claims do not meet them again and again.
    ADD COLUMN parked_by text NOT NULL DEFAULT '',
    ADD CONSTRAINT tasks_parked_is_held CHECK (parked_by = '' OR NOT claimable OR completed_at IS NOT NULL);

UPDATE tasks SET rank = -50 * priority WHERE claimable AND priority <> 0;

DROP INDEX tasks_claimable_idx;
CREATE INDEX tasks_turn_idx ON tasks (project_id, rank, id) WHERE claimable;
CREATE INDEX tasks_flow_idx ON tasks (project_id, (CASE session_id WHEN '' THEN user_id ELSE session_id END), tag) WHERE claimable;
CREATE INDEX tasks_parked_idx ON tasks (parked_by, rank, id) WHERE parked_by <> '' AND completed_at IS NULL;
DROP INDEX tasks_due_idx;
CREATE INDEX tasks_due_idx ON tasks (run_after)
    WHERE NOT claimable AND dispatch = 'auto' AND blocked_by = 0 AND parked_by = ''
      AND (status = 'pending' OR waiting_reason = 'retry');

-- The latest tag, in each project, whose turn has come.
CREATE TABLE turns (
    tag        bigint NOT NULL,
    project_id text   NOT NULL,
    CONSTRAINT turns_pkey PRIMARY KEY (project_id)
) WITH (fillfactor = 50);

-- How many tasks may run at once: of all, of a project, of a session, of an
-- agent. With name '' it holds for each that has no limit of its own.
CREATE TABLE concurrency_limits (
    max_running integer     NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    kind        text        NOT NULL,
    name        text        NOT NULL,
    updated_by  text        NOT NULL,
    CONSTRAINT concurrency_limits_pkey PRIMARY KEY (kind, name),
    CONSTRAINT concurrency_limits_kind_known CHECK (kind IN ('all', 'project', 'session', 'agent')),
    CONSTRAINT concurrency_limits_not_negative CHECK (max_running >= 0)
);
