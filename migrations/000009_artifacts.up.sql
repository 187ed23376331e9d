-- Files that tasks leave behind. What is in them lies in contents: written
-- before anybody can see it, and never changed. An artifact that is replaced
-- gets another content.
--
-- One row for each content, wherever its bytes are: it is there before the
-- first of them and goes after the last, so that none is left behind unknown.
CREATE TABLE artifact_contents (
    id            uuid NOT NULL,
    -- From when on nobody needs it: of uploads on their way, and of what was
    -- replaced or deleted, which may still be being read. NULL: an artifact's.
    collect_after timestamptz,
    store         text NOT NULL,
    CONSTRAINT artifact_contents_pkey PRIMARY KEY (id)
);
CREATE INDEX artifact_contents_collect_idx ON artifact_contents (collect_after) WHERE collect_after IS NOT NULL;

-- The bytes of contents of the store "postgres", in pieces of equal length but
-- for the last.
CREATE TABLE artifact_chunks (
    content_id uuid    NOT NULL,
    number     integer NOT NULL, -- 0, 1, 2, …
    bytes      bytea   NOT NULL,
    CONSTRAINT artifact_chunks_pkey PRIMARY KEY (content_id, number),
    CONSTRAINT artifact_chunks_content_fkey FOREIGN KEY (content_id) REFERENCES artifact_contents (id)
);
-- Outside of the row and as they are: most of it is compressed already.
ALTER TABLE artifact_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE artifacts (
    task_id      uuid        NOT NULL,
    content_id   uuid        NOT NULL,
    created_at   timestamptz NOT NULL,
    size         bigint      NOT NULL,
    name         text        NOT NULL,
    content_type text        NOT NULL,
    created_by   text        NOT NULL,
    store        text        NOT NULL, -- of the content
    sha256       bytea       NOT NULL,
    CONSTRAINT artifacts_pkey PRIMARY KEY (task_id, name),
    CONSTRAINT artifacts_content_key UNIQUE (content_id),
    CONSTRAINT artifacts_task_fkey FOREIGN KEY (task_id) REFERENCES tasks (id),
    CONSTRAINT artifacts_content_fkey FOREIGN KEY (content_id) REFERENCES artifact_contents (id),
    CONSTRAINT artifacts_sha256_whole CHECK (octet_length(sha256) = 32)
);

-- Artifacts are seen by whoever sees their task. Contents are reached through
-- an artifact that was seen.
ALTER TABLE artifacts ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON artifacts TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON artifacts FOR SELECT TO coderclaw_scoped USING (
    EXISTS (SELECT FROM tasks t WHERE t.id = task_id));
GRANT SELECT ON artifacts TO coderclaw_scoped;
ALTER TABLE artifact_contents ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON artifact_contents TO coderclaw_app USING (true) WITH CHECK (true);
ALTER TABLE artifact_chunks ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON artifact_chunks TO coderclaw_app USING (true) WITH CHECK (true);

-- What depended on a task keeps it from being forgotten.
CREATE INDEX tasks_depends_on_idx ON tasks USING gin (depends_on) WHERE depends_on <> '{}';

-- Drops the partition of a week that is over and of whose tasks none is left.
-- The lock it needs stops all writers, so it does not wait for it long.
CREATE FUNCTION drop_task_events_partition(name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' SET timezone = 'UTC' AS $$
DECLARE
    week timestamptz;
BEGIN
    -- Otherwise a caller's temporary tables would come first.
    PERFORM set_config('search_path', current_setting('search_path') || ', pg_temp', true);
    IF name !~ '^task_events_[0-9]{8}$' THEN
        RAISE EXCEPTION 'not the name of a partition of task_events: %', name;
    END IF;
    week := to_date(right(name, 8), 'YYYYMMDD')::timestamptz;
    IF week + interval '8 days' > now() THEN
        RAISE EXCEPTION '% is too young to be dropped', name USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT FROM tasks WHERE id >= audit_first_id(week) AND id < audit_first_id(week + interval '7 days')) THEN
        RAISE EXCEPTION 'there are tasks of %', name USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('DROP TABLE %I', name);
END $$;
REVOKE EXECUTE ON FUNCTION drop_task_events_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_task_events_partition TO coderclaw_app;
