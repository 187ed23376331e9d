-- How many tasks of an agent may be begun in how long, as a token bucket.
ALTER TABLE concurrency_limits
    ALTER COLUMN max_running DROP NOT NULL, -- NULL: a rate alone
    ADD COLUMN tokens       double precision,
    ADD COLUMN filled_at    timestamptz,
    ADD COLUMN rate_tasks   integer,
    ADD COLUMN rate_seconds integer,
    ADD COLUMN rate_burst   integer,
    ADD CONSTRAINT concurrency_limits_something CHECK (max_running IS NOT NULL OR rate_tasks IS NOT NULL),
    ADD CONSTRAINT concurrency_limits_rate_whole CHECK (num_nulls(tokens, filled_at, rate_tasks, rate_seconds, rate_burst) IN (0, 5)),
    ADD CONSTRAINT concurrency_limits_rate_of_agent CHECK (rate_tasks IS NULL OR kind = 'agent' AND name <> '');

-- Agents and sessions of whose tasks none is begun for now.
CREATE TABLE pauses (
    paused_at timestamptz NOT NULL DEFAULT now(),
    kind      text        NOT NULL,
    name      text        NOT NULL,
    paused_by text        NOT NULL,
    reason    text        NOT NULL,
    CONSTRAINT pauses_pkey PRIMARY KEY (kind, name),
    CONSTRAINT pauses_kind_known CHECK (kind IN ('agent', 'session'))
);
