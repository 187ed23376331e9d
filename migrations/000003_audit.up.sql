-- Every decision. Rows are only ever inserted; their place in the log, and the
-- hashes that make later changes show, stand in tables of their own.
--
-- Partitioned by id, which as a UUIDv7 begins with its time, so that old
-- entries go by dropping a partition.
CREATE TABLE audit_entries (
    id             uuid        NOT NULL,
    created_at     timestamptz NOT NULL,
    txid           xid8        NOT NULL DEFAULT pg_current_xact_id(),
    policy_version bigint      NOT NULL DEFAULT 0,
    user_id        text        NOT NULL,
    session_id     text        NOT NULL DEFAULT '',
    device_id      text        NOT NULL DEFAULT '',
    project_id     text        NOT NULL DEFAULT '',
    action         text        NOT NULL,
    resource_type  text        NOT NULL DEFAULT '',
    resource_id    text        NOT NULL DEFAULT '',
    result         text        NOT NULL,
    layer          text        NOT NULL DEFAULT '',
    rule           text        NOT NULL DEFAULT '',
    reason         text        NOT NULL DEFAULT '',
    request_id     text        NOT NULL DEFAULT '',
    address        text        NOT NULL DEFAULT '',
    -- json, not jsonb: what was hashed must be read back as it was.
    details        json,
    CONSTRAINT audit_entries_pkey PRIMARY KEY (id),
    CONSTRAINT audit_entries_result_known CHECK (result IN ('allowed', 'denied', 'error'))
) PARTITION BY RANGE (id);
CREATE TABLE audit_entries_default PARTITION OF audit_entries DEFAULT;
