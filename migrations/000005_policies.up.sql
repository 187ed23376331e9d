-- Definitions of skills that came through the API.
CREATE TABLE skills (
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    id         text        NOT NULL,
    definition json        NOT NULL,
    CONSTRAINT skills_pkey PRIMARY KEY (id),
    CONSTRAINT skills_id_form CHECK (id ~ '^[a-z0-9][a-z0-9._-]{0,127}$')
);

-- Every version of every policy document, append-only: to undo a version, its
-- predecessor's text becomes the next one. project_id '' is the organisation.
CREATE TABLE policy_documents (
    version    bigint      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    project_id text        NOT NULL,
    author     text        NOT NULL,
    comment    text        NOT NULL,
    origin     text        NOT NULL,
    hash       bytea       NOT NULL, -- SHA-256
    document   text        NOT NULL,
    CONSTRAINT policy_documents_pkey PRIMARY KEY (project_id, version),
    CONSTRAINT policy_documents_version_counts CHECK (version > 0),
    CONSTRAINT policy_documents_origin_known CHECK (origin IN ('file', 'api', 'rollback')),
    CONSTRAINT policy_documents_hash_right CHECK (hash = sha256(convert_to(document, 'UTF8')))
);

-- Which version is in force. Who has a document is found here, without reading
-- any of them.
CREATE TABLE policies (
    version    bigint NOT NULL,
    project_id text   NOT NULL,
    CONSTRAINT policies_pkey PRIMARY KEY (project_id),
    CONSTRAINT policies_version_fkey FOREIGN KEY (project_id, version) REFERENCES policy_documents (project_id, version)
);

REVOKE UPDATE, DELETE ON policy_documents FROM coderclaw_app;
REVOKE DELETE ON policies FROM coderclaw_app;
