-- Who is told of the status changes of tasks, and where.
CREATE TABLE webhooks (
    id              uuid        NOT NULL,
    created_at      timestamptz NOT NULL,
    -- The last change by a caller, or that the server has disabled it: who
    -- changes it must have seen that.
    updated_at      timestamptz NOT NULL,
    -- It is sent what happens from then on: made, or enabled again.
    begins_at       timestamptz NOT NULL,
    disabled_at     timestamptz,
    -- Since when no attempt has succeeded; NULL: the last one has.
    failing_since   timestamptz,
    -- Until when the former secret signs too.
    former_until    timestamptz,
    enabled         boolean     NOT NULL,
    -- NULL: all projects. '': tasks of user_id's that belong to none.
    project_id      text,
    user_id         text        NOT NULL,
    url             text        NOT NULL,
    description     text        NOT NULL,
    disabled_reason text        NOT NULL DEFAULT '',
    -- '' and empty: any.
    agent_id        text        NOT NULL,
    secret          text        NOT NULL,
    former_secret   text        NOT NULL DEFAULT '',
    statuses        text[]      NOT NULL,
    labels          jsonb       NOT NULL,
    CONSTRAINT webhooks_pkey PRIMARY KEY (id),
    CONSTRAINT webhooks_enabled_or_not CHECK (enabled = (disabled_at IS NULL)),
    CONSTRAINT webhooks_former_has_end CHECK ((former_secret = '') = (former_until IS NULL))
);
CREATE INDEX webhooks_project_idx ON webhooks (project_id, id);

-- As with tasks; and nobody who is confined reads secrets.
ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON webhooks TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON webhooks FOR SELECT TO coderclaw_scoped USING (
    project_id = current_setting('coderclaw.project', true)
    AND (project_id <> '' OR user_id = current_setting('coderclaw.user', true)));
GRANT SELECT (id, created_at, updated_at, begins_at, disabled_at, failing_since, former_until, enabled, project_id, user_id, url,
    description, disabled_reason, agent_id, statuses, labels) ON webhooks TO coderclaw_scoped;

-- Up to where the log of events has been looked through for webhooks: one row.
-- Whoever moves it on queues what it passes, in one transaction. It stands still
-- while no webhook is enabled.
CREATE TABLE webhook_cursor (
    txid     xid8    NOT NULL,
    position bigint  NOT NULL,
    one      boolean NOT NULL DEFAULT true,
    CONSTRAINT webhook_cursor_pkey PRIMARY KEY (one),
    CONSTRAINT webhook_cursor_one_row CHECK (one)
);
INSERT INTO webhook_cursor (txid, position) VALUES (pg_snapshot_xmin(pg_current_snapshot()), 0);

-- What a webhook is to be sent: an event, once. No foreign key to tasks: its
-- lock on a task's row would hide the task from claims that skip locked rows.
CREATE TABLE webhook_deliveries (
    task_id         uuid        NOT NULL,
    seq             bigint      NOT NULL, -- of the event within the task
    webhook_id      uuid        NOT NULL,
    number          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- The next attempt; while one is being made, the end of its lease. NULL: over.
    due_at          timestamptz DEFAULT now(),
    attempted_at    timestamptz,
    ended_at        timestamptz,
    -- The attempt that is being made.
    claim           uuid,
    attempts        integer     NOT NULL DEFAULT 0,
    response_status integer     NOT NULL DEFAULT 0,
    duration_ms     integer     NOT NULL DEFAULT 0,
    status          text        NOT NULL DEFAULT 'pending',
    -- Of the last attempt.
    error           text        NOT NULL DEFAULT '',
    response        text        NOT NULL DEFAULT '',
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (task_id, seq, webhook_id),
    CONSTRAINT webhook_deliveries_webhook_fkey FOREIGN KEY (webhook_id) REFERENCES webhooks (id) ON DELETE CASCADE,
    CONSTRAINT webhook_deliveries_status_known CHECK (status IN ('pending', 'delivered', 'dead')),
    CONSTRAINT webhook_deliveries_pending_is_due CHECK ((status = 'pending') = (due_at IS NOT NULL)),
    CONSTRAINT webhook_deliveries_over_has_end CHECK ((status = 'pending') = (ended_at IS NULL))
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX webhook_deliveries_due_idx ON webhook_deliveries (webhook_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_number_idx ON webhook_deliveries (webhook_id, number);
CREATE INDEX webhook_deliveries_dead_idx ON webhook_deliveries (webhook_id, number) WHERE status = 'dead';
CREATE INDEX webhook_deliveries_age_idx ON webhook_deliveries (created_at);

ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON webhook_deliveries TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON webhook_deliveries FOR SELECT TO coderclaw_scoped USING (
    EXISTS (SELECT FROM webhooks w WHERE w.id = webhook_id));
GRANT SELECT ON webhook_deliveries TO coderclaw_scoped;
