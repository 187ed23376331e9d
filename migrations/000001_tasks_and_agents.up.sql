-- Columns stand widest first, fixed before variable, so that rows carry no
-- alignment padding. Constraint names are part of the contract with the code.

CREATE TABLE tasks (
    id                uuid        NOT NULL,
    lease_token       uuid,
    parent_task_id    uuid,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    started_at        timestamptz,
    completed_at      timestamptz,
    run_after         timestamptz,
    lease_expires_at  timestamptz,
    last_seq          bigint      NOT NULL,
    -- The order key of the task's last event; see task_events.txid.
    last_txid         xid8        NOT NULL,
    timeout_seconds   integer     NOT NULL DEFAULT 0,
    idempotency_index integer,
    priority          smallint    NOT NULL DEFAULT 0,
    progress          smallint    NOT NULL DEFAULT 0,
    attempt           smallint    NOT NULL DEFAULT 0,
    max_attempts      smallint    NOT NULL DEFAULT 1,
    -- How often a lease of this task ran out.
    leases_lost       smallint    NOT NULL DEFAULT 0,
    -- How many of its dependencies have not completed yet.
    blocked_by        smallint    NOT NULL DEFAULT 0,
    -- Whether a worker may claim it now. Kept true exactly for the tasks that
    -- the claim index must hold, so that claiming never meets another row.
    claimable         boolean     NOT NULL,
    status            text        NOT NULL,
    dispatch          text        NOT NULL,
    agent_id          text        NOT NULL,
    user_id           text        NOT NULL,
    description       text        NOT NULL,
    input             text        NOT NULL,
    skill_id          text        NOT NULL DEFAULT '',
    model             text        NOT NULL DEFAULT '',
    thinking          text        NOT NULL DEFAULT '',
    session_id        text        NOT NULL DEFAULT '',
    project_id        text        NOT NULL DEFAULT '',
    waiting_reason    text        NOT NULL DEFAULT '',
    worker_id         text        NOT NULL DEFAULT '',
    output            text        NOT NULL DEFAULT '',
    error             text        NOT NULL DEFAULT '',
    depends_on        uuid[]      NOT NULL DEFAULT '{}',
    labels            jsonb       NOT NULL DEFAULT '{}',
    -- json, not jsonb: kept as the submitter wrote it.
    metadata          json,
    idempotency_key   text,
    idempotency_hash  bytea,

    CONSTRAINT tasks_pkey PRIMARY KEY (id),
    CONSTRAINT tasks_parent_fkey FOREIGN KEY (parent_task_id) REFERENCES tasks (id),
    CONSTRAINT tasks_status_known CHECK (status IN
        ('pending', 'planning', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    CONSTRAINT tasks_dispatch_known CHECK (dispatch IN ('auto', 'manual')),
    CONSTRAINT tasks_progress_percent CHECK (progress BETWEEN 0 AND 100),
    CONSTRAINT tasks_waiting_has_reason CHECK ((status = 'waiting') = (waiting_reason <> '')),
    CONSTRAINT tasks_completed_at_terminal CHECK
        ((status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)),
    CONSTRAINT tasks_lease_whole CHECK
        ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT tasks_lease_while_open CHECK
        (lease_token IS NULL OR status IN ('planning', 'running', 'waiting')),
    CONSTRAINT tasks_claimable_is_free CHECK
        (NOT claimable OR (dispatch = 'auto' AND blocked_by = 0 AND lease_token IS NULL
                           AND status IN ('pending', 'waiting')))
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

CREATE INDEX tasks_claimable_idx ON tasks (priority DESC, id) WHERE claimable;
-- Tasks that become claimable when their time comes.
CREATE INDEX tasks_due_idx ON tasks (run_after)
    WHERE NOT claimable AND dispatch = 'auto' AND blocked_by = 0
      AND (status = 'pending' OR waiting_reason = 'retry');
CREATE INDEX tasks_lease_idx ON tasks (lease_expires_at) WHERE lease_token IS NOT NULL;
CREATE INDEX tasks_worker_idx ON tasks (worker_id) WHERE lease_token IS NOT NULL;
-- One task per key and place in its batch, for as long as the task exists.
CREATE UNIQUE INDEX tasks_idempotency_key ON tasks (user_id, idempotency_key, idempotency_index)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX tasks_status_idx ON tasks (status, id);
CREATE INDEX tasks_parent_idx ON tasks (parent_task_id) WHERE parent_task_id IS NOT NULL;
CREATE INDEX tasks_session_idx ON tasks (session_id, id) WHERE session_id <> '';
CREATE INDEX tasks_project_idx ON tasks (project_id, id) WHERE project_id <> '';
CREATE INDEX tasks_agent_idx ON tasks (agent_id, id);
CREATE INDEX tasks_labels_idx ON tasks USING gin (labels jsonb_path_ops) WHERE labels <> '{}';

-- Who waits for whom. A row goes when the dependency has been settled.
CREATE TABLE task_dependencies (
    depends_on_id uuid NOT NULL,
    task_id       uuid NOT NULL,
    CONSTRAINT task_dependencies_pkey PRIMARY KEY (depends_on_id, task_id),
    CONSTRAINT task_dependencies_depends_on_fkey FOREIGN KEY (depends_on_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT task_dependencies_task_fkey FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE
);

CREATE SEQUENCE task_events_position AS bigint;

-- The history of tasks, append-only.
--
-- (txid, position) orders all events of the database in a way that a reader
-- can follow without missing one: txid is the id of the writing transaction or
-- that of the task's event before, whichever is later, so that a task's events
-- keep their order; everything below the oldest transaction that still runs is
-- complete.
--
-- Partitioned by the task's id, which as a UUIDv7 begins with its time: a
-- task's events share one partition, (task_id, seq) is unique across all, and
-- old ones go by dropping a partition. No foreign key for the same reason.
CREATE TABLE task_events (
    task_id    uuid        NOT NULL,
    seq        bigint      NOT NULL,
    txid       xid8        NOT NULL,
    position   bigint      NOT NULL DEFAULT nextval('task_events_position'),
    created_at timestamptz NOT NULL,
    progress   smallint,
    type       text        NOT NULL,
    status     text        NOT NULL,
    message    text        NOT NULL DEFAULT '',
    data       json,
    CONSTRAINT task_events_pkey PRIMARY KEY (task_id, seq)
) PARTITION BY RANGE (task_id);

CREATE INDEX task_events_order_idx ON task_events (txid, position);

-- Catches whatever has no partition of its own, so that a write never fails
-- for want of one.
CREATE TABLE task_events_default PARTITION OF task_events DEFAULT;

-- Definitions of agents that came through the API.
CREATE TABLE agents (
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    id         text        NOT NULL,
    definition json        NOT NULL,
    CONSTRAINT agents_pkey PRIMARY KEY (id),
    CONSTRAINT agents_id_form CHECK (id ~ '^[a-z0-9][a-z0-9._-]{0,127}$')
);
