-- Who runs tasks, and until when it was heard of. The server's own worker is one
-- of them. A row that was not heard of for long, and holds no lease, goes.
CREATE TABLE workers (
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    capacity      integer     NOT NULL,
    draining      boolean     NOT NULL DEFAULT false,
    id            text        NOT NULL,
    -- The principal that registered it; nobody else acts as the worker.
    owner         text        NOT NULL,
    -- The process; another one of the same id holds no lease of this one's.
    instance      uuid        NOT NULL,
    version       text        NOT NULL DEFAULT '',
    agents        text[],     -- NULL: any
    labels        jsonb       NOT NULL DEFAULT '{}',
    -- Bounds by its credential: which tasks it may be given; NULL: any.
    projects      text[],
    only_agents   text[],
    only_labels   jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT workers_pkey PRIMARY KEY (id),
    CONSTRAINT workers_capacity_positive CHECK (capacity > 0)
) WITH (fillfactor = 70);

-- What a worker must have to be given the task.
ALTER TABLE tasks ADD COLUMN requires jsonb NOT NULL DEFAULT '{}';

-- Of a worker's key; NULL: it is none.
ALTER TABLE api_keys ADD COLUMN worker jsonb;
