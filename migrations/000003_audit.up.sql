-- Every decision. Rows are only ever inserted; their place in the log, and the
-- hashes that make later changes show, stand in a table of their own.
--
-- Partitioned by id, which as a UUIDv7 begins with its time, so that old
-- entries go by dropping a partition.
CREATE TABLE audit_entries (
    id             uuid        NOT NULL,
    created_at     timestamptz NOT NULL,
    -- The transaction that wrote it. Everything below the oldest transaction
    -- that still runs is complete: so entries are sealed in this order.
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

-- Each index costs every submission of a task something: other filters look
-- through the entries from the newest.
CREATE INDEX audit_entries_txid_idx ON audit_entries (txid);
CREATE INDEX audit_entries_user_idx ON audit_entries (user_id, id);
CREATE INDEX audit_entries_session_idx ON audit_entries (session_id, id) WHERE session_id <> '';
CREATE INDEX audit_entries_resource_idx ON audit_entries (resource_id, id) WHERE resource_id <> '';
-- What is refused is rare, and what is searched for most.
CREATE INDEX audit_entries_refused_idx ON audit_entries (id) WHERE result <> 'allowed';

-- The order of the log. hashes are those of RFC 6962's tree that the entry
-- completes: its own first, then those of the subtrees above it that end with
-- it. Leaves outlive their entries, so that the tree stays whole.
CREATE TABLE audit_leaves (
    seq      bigint NOT NULL,
    entry_id uuid   NOT NULL,
    hashes   bytea  NOT NULL,
    CONSTRAINT audit_leaves_pkey PRIMARY KEY (seq),
    CONSTRAINT audit_leaves_entry_key UNIQUE (entry_id),
    CONSTRAINT audit_leaves_hashes_whole CHECK (octet_length(hashes) > 0 AND octet_length(hashes) % 32 = 0)
);

-- How far the log is sealed: one row. cluster tells a database that was
-- restored elsewhere, where transactions are numbered anew.
CREATE TABLE audit_seal (
    one        boolean NOT NULL DEFAULT true,
    size       bigint  NOT NULL DEFAULT 0,
    cluster    bigint  NOT NULL DEFAULT 0,
    checkpoint text    NOT NULL DEFAULT '', -- the signed one of that size
    CONSTRAINT audit_seal_pkey PRIMARY KEY (one),
    CONSTRAINT audit_seal_one_row CHECK (one)
);
INSERT INTO audit_seal DEFAULT VALUES;

CREATE FUNCTION audit_refuse() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION '% is only appended to: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;

-- Triggers on statements, which guard a table only under its own name: each
-- partition has one too.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_leaves
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON audit_seal
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

-- The transaction's id is not the writer's to choose.
REVOKE ALL ON audit_entries, audit_leaves, audit_seal FROM coderclaw_app;
GRANT SELECT, INSERT (id, created_at, policy_version, user_id, session_id, device_id, project_id, action,
    resource_type, resource_id, result, layer, rule, reason, request_id, address, details)
    ON audit_entries TO coderclaw_app;
GRANT SELECT, INSERT ON audit_leaves TO coderclaw_app;
GRANT SELECT, UPDATE ON audit_seal TO coderclaw_app;

-- A partition that nobody reaches but through its parent.
CREATE FUNCTION audit_guard(name text) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()', name);
    EXECUTE format('REVOKE ALL ON %I FROM coderclaw_app', name);
END $$;
REVOKE EXECUTE ON FUNCTION audit_guard FROM PUBLIC;

-- Catches whatever has no partition of its own, so that a write never fails
-- for want of one.
CREATE TABLE audit_entries_default PARTITION OF audit_entries DEFAULT;
SELECT audit_guard('audit_entries_default');

-- The smallest UUIDv7 of a time (RFC 9562, section 5.7).
CREATE FUNCTION audit_first_id(at timestamptz) RETURNS uuid
    LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

-- Makes the partition of a month, unless it is there or its entries have
-- fallen to the default one already; the server itself may not. The lock it
-- needs stops all writers, so it does not wait for it long.
CREATE FUNCTION add_audit_partition(month date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' SET timezone = 'UTC' AS $$
DECLARE
    name  text := 'audit_entries_' || to_char(month, 'YYYYMM');
    lower uuid := audit_first_id(date_trunc('month', month::timestamptz));
    upper uuid := audit_first_id(date_trunc('month', month::timestamptz) + interval '1 month');
BEGIN
    -- Otherwise a caller's temporary tables would come first.
    PERFORM set_config('search_path', current_setting('search_path') || ', pg_temp', true);
    IF to_regclass(name) IS NOT NULL
        OR EXISTS (SELECT FROM audit_entries_default WHERE id >= lower AND id < upper) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF audit_entries FOR VALUES FROM (%L) TO (%L)', name, lower, upper);
    PERFORM audit_guard(name);
END $$;
REVOKE EXECUTE ON FUNCTION add_audit_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION add_audit_partition TO coderclaw_app;

-- Drops the partition of a month that is over for at least 30 days and whose
-- entries are all sealed.
CREATE FUNCTION drop_audit_partition(month date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' SET timezone = 'UTC' AS $$
DECLARE
    name     text := 'audit_entries_' || to_char(month, 'YYYYMM');
    unsealed boolean;
BEGIN
    PERFORM set_config('search_path', current_setting('search_path') || ', pg_temp', true); -- likewise
    IF date_trunc('month', month::timestamptz) + interval '1 month 30 days' > now() THEN
        RAISE EXCEPTION '% is too young to be dropped', name USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I e WHERE NOT EXISTS
        (SELECT FROM audit_leaves l WHERE l.entry_id = e.id))', name) INTO unsealed;
    IF unsealed THEN
        RAISE EXCEPTION '% has entries that are not sealed', name USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('DROP TABLE %I', name);
END $$;
REVOKE EXECUTE ON FUNCTION drop_audit_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_audit_partition TO coderclaw_app;
