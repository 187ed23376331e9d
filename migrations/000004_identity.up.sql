-- Who may ask: users, what they may do, and by which credentials, devices and
-- sessions they are known. No secret is stored as it is: passwords as argon2id,
-- what is random (keys, tokens, codes, tickets) as its SHA-256.

-- Counts the changes to who may do what. A server that has read what a caller
-- may do need not read it again while this number stands.
CREATE TABLE access_generation (
    n       bigint  NOT NULL,
    one_row boolean NOT NULL DEFAULT true,
    CONSTRAINT access_generation_pkey PRIMARY KEY (one_row),
    CONSTRAINT access_generation_one_row CHECK (one_row)
);
INSERT INTO access_generation (n) VALUES (1);

-- Triggers count, so that no statement, by whatever program, is forgotten.
CREATE FUNCTION count_access_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE access_generation SET n = n + 1;
    RETURN NULL;
END $$;

CREATE TABLE users (
    created_at    timestamptz NOT NULL,
    last_login_at timestamptz,
    disabled_at   timestamptz,
    -- What everything refers to, e.g. local:ann, github:583231.
    id            text        NOT NULL,
    provider      text        NOT NULL,
    issuer        text        NOT NULL,
    subject       text        NOT NULL,
    name          text        NOT NULL DEFAULT '',
    email         text        NOT NULL DEFAULT '',
    disabled_by   text        NOT NULL DEFAULT '',
    password_hash text,
    -- As the provider said at the last login, each with the provider before it.
    groups        text[]      NOT NULL DEFAULT '{}',
    -- Likewise, a list by project; for the user's keys. Sessions have their own.
    roles         jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_subject_key UNIQUE (provider, issuer, subject),
    CONSTRAINT users_password_is_local CHECK ((password_hash IS NOT NULL) = (provider = 'local'))
);
CREATE TRIGGER count_access_change AFTER DELETE OR UPDATE OF disabled_at, groups, roles ON users
    FOR EACH STATEMENT EXECUTE FUNCTION count_access_change();

-- A role that a user, or every user of a group, has in a project or, with
-- project_id '', everywhere. The subject need not have logged in yet.
CREATE TABLE role_bindings (
    id           uuid        NOT NULL,
    created_at   timestamptz NOT NULL,
    subject_kind text        NOT NULL,
    subject      text        NOT NULL,
    role         text        NOT NULL,
    project_id   text        NOT NULL DEFAULT '',
    created_by   text        NOT NULL,
    CONSTRAINT role_bindings_pkey PRIMARY KEY (id),
    CONSTRAINT role_bindings_once UNIQUE (subject, subject_kind, role, project_id),
    CONSTRAINT role_bindings_kind_known CHECK (subject_kind IN ('user', 'group'))
);
CREATE TRIGGER count_access_change AFTER INSERT OR DELETE ON role_bindings
    FOR EACH STATEMENT EXECUTE FUNCTION count_access_change();

-- Keys of services, which are principals of their own, and of users, as whom
-- they act.
CREATE TABLE api_keys (
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    id           text        NOT NULL,
    secret_hash  bytea       NOT NULL,
    name         text        NOT NULL,
    user_id      text,
    project_id   text        NOT NULL DEFAULT '',
    created_by   text        NOT NULL,
    revoked_by   text        NOT NULL DEFAULT '',
    roles        text[]      NOT NULL,
    scopes       text[],
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_user_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT api_keys_within_a_year CHECK (expires_at <= created_at + interval '366 days')
);
CREATE INDEX api_keys_user_idx ON api_keys (user_id);
CREATE TRIGGER count_access_change AFTER DELETE OR UPDATE OF revoked_at ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION count_access_change();

CREATE TABLE devices (
    id           uuid        NOT NULL,
    created_at   timestamptz NOT NULL,
    verified_at  timestamptz,
    trusted_at   timestamptz,
    revoked_at   timestamptz,
    last_seen_at timestamptz,
    user_id      text        NOT NULL,
    name         text        NOT NULL,
    trust        text        NOT NULL DEFAULT 'untrusted',
    -- RFC 7638, base64url.
    thumbprint   text        NOT NULL,
    verified_by  text        NOT NULL DEFAULT '',
    trusted_by   text        NOT NULL DEFAULT '',
    revoked_by   text        NOT NULL DEFAULT '',
    public_key   json        NOT NULL,
    CONSTRAINT devices_pkey PRIMARY KEY (id),
    CONSTRAINT devices_user_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT devices_trust_known CHECK (trust IN ('untrusted', 'verified', 'trusted')),
    CONSTRAINT devices_trust_has_time CHECK
        ((trust = 'untrusted' OR verified_at IS NOT NULL OR trusted_at IS NOT NULL)
         AND (trust <> 'trusted' OR trusted_at IS NOT NULL))
);
-- A key is one device's while that lives, whoever registers it.
CREATE UNIQUE INDEX devices_thumbprint_key ON devices (thumbprint) WHERE revoked_at IS NULL;
CREATE INDEX devices_user_idx ON devices (user_id, id);
CREATE TRIGGER count_access_change AFTER DELETE OR UPDATE OF trust, revoked_at ON devices
    FOR EACH STATEMENT EXECUTE FUNCTION count_access_change();

CREATE TABLE sessions (
    id              uuid        NOT NULL,
    device_id       uuid,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    last_seen_at    timestamptz,
    revoked_at      timestamptz,
    local           boolean     NOT NULL DEFAULT false,
    -- Whether the configured default roles stand in where no binding gives any.
    default_roles   boolean     NOT NULL DEFAULT false,
    -- Whether it stands for a credential that is used as it is, without login.
    direct          boolean     NOT NULL DEFAULT false,
    -- Of that credential, or of the browser's cookie.
    secret_hash     bytea,
    user_id         text        NOT NULL, -- of users, or a service's key
    -- How it was opened: a provider's name, local or key.
    method          text        NOT NULL,
    key_id          text,
    project_id      text        NOT NULL DEFAULT '',
    -- RFC 7638 thumbprint of the key that must sign every request; '': none.
    key_thumbprint  text        NOT NULL DEFAULT '',
    revoked_by      text        NOT NULL DEFAULT '',
    revoked_because text        NOT NULL DEFAULT '',
    address         text        NOT NULL DEFAULT '',
    user_agent      text        NOT NULL DEFAULT '',
    -- The roles that the credential gave, on top of those by bindings.
    given_roles     text[]      NOT NULL DEFAULT '{}',
    -- What it is narrowed to, of all roles that the user has; NULL: not.
    roles           text[],
    scopes          text[],
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_device_fkey FOREIGN KEY (device_id) REFERENCES devices (id) ON DELETE CASCADE,
    CONSTRAINT sessions_key_fkey FOREIGN KEY (key_id) REFERENCES api_keys (id) ON DELETE CASCADE,
    CONSTRAINT sessions_device_has_key CHECK (device_id IS NULL OR key_thumbprint <> '')
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX sessions_secret_key ON sessions (secret_hash) WHERE secret_hash IS NOT NULL;
CREATE INDEX sessions_user_idx ON sessions (user_id, id);
CREATE INDEX sessions_device_idx ON sessions (device_id) WHERE device_id IS NOT NULL;
CREATE INDEX sessions_key_idx ON sessions (key_id) WHERE key_id IS NOT NULL;
CREATE INDEX sessions_expires_idx ON sessions (expires_at);
-- Rows go when they have long expired, which changes nothing.
CREATE TRIGGER count_access_change AFTER UPDATE OF revoked_at, device_id ON sessions
    FOR EACH STATEMENT EXECUTE FUNCTION count_access_change();

CREATE TABLE refresh_tokens (
    session_id uuid        NOT NULL,
    created_at timestamptz NOT NULL,
    used_at    timestamptz,
    hash       bytea       NOT NULL,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (hash),
    CONSTRAINT refresh_tokens_session_fkey FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_session_idx ON refresh_tokens (session_id);

-- Codes that a person is given to type in, once: for the first administrator,
-- or to verify a device.
CREATE TABLE enrolment_codes (
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    purpose    text        NOT NULL,
    user_id    text        NOT NULL DEFAULT '', -- the only one who may use it; '': anyone
    created_by text        NOT NULL,
    hash       bytea       NOT NULL,
    CONSTRAINT enrolment_codes_pkey PRIMARY KEY (hash),
    CONSTRAINT enrolment_codes_purpose_known CHECK (purpose IN ('device', 'administrator'))
);

-- What a device is given to sign, once.
CREATE TABLE device_challenges (
    expires_at timestamptz NOT NULL,
    user_id    text        NOT NULL,
    hash       bytea       NOT NULL,
    CONSTRAINT device_challenges_pkey PRIMARY KEY (hash)
);

-- The keys that access tokens are signed with: one that signs, and those that
-- still verify what they have signed.
CREATE TABLE signing_keys (
    created_at  timestamptz NOT NULL,
    retired_at  timestamptz,
    id          text        NOT NULL,
    private_key text        NOT NULL, -- PKCS #8 in PEM
    CONSTRAINT signing_keys_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX signing_keys_one_signs ON signing_keys ((true)) WHERE retired_at IS NULL;

-- What may be shown once: tokens of CI jobs, proofs of device keys.
CREATE TABLE used_tokens (
    expires_at timestamptz NOT NULL,
    issuer     text        NOT NULL,
    token_id   text        NOT NULL,
    CONSTRAINT used_tokens_pkey PRIMARY KEY (issuer, token_id)
);
CREATE INDEX used_tokens_expires_idx ON used_tokens (expires_at);

CREATE TABLE stream_tickets (
    session_id uuid        NOT NULL,
    expires_at timestamptz NOT NULL,
    hash       bytea       NOT NULL,
    CONSTRAINT stream_tickets_pkey PRIMARY KEY (hash),
    CONSTRAINT stream_tickets_session_fkey FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE INDEX stream_tickets_session_idx ON stream_tickets (session_id);

-- So that no version comes twice, even of what was deleted between.
CREATE SEQUENCE session_memory_versions;
CREATE TABLE session_memory (
    session_id uuid        NOT NULL,
    updated_at timestamptz NOT NULL,
    version    bigint      NOT NULL,
    key        text        NOT NULL,
    -- json, not jsonb: given back as it came.
    value      json        NOT NULL,
    CONSTRAINT session_memory_pkey PRIMARY KEY (session_id, key),
    CONSTRAINT session_memory_session_fkey FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE,
    CONSTRAINT session_memory_value_size CHECK (octet_length(value::text) <= 65536)
);

-- Logins at providers that are under way.
CREATE TABLE logins (
    expires_at timestamptz NOT NULL,
    next_at    timestamptz NOT NULL, -- when the provider may be asked again
    stage      text        NOT NULL,
    hash       bytea       NOT NULL,
    data       json        NOT NULL,
    CONSTRAINT logins_pkey PRIMARY KEY (hash),
    CONSTRAINT logins_stage_known CHECK (stage IN ('browser', 'device'))
);

-- The server adds and removes these, but never rewrites them; and of the
-- generation there is one.
REVOKE INSERT, DELETE ON access_generation FROM coderclaw_app;
REVOKE UPDATE ON role_bindings, enrolment_codes, device_challenges, used_tokens, stream_tickets FROM coderclaw_app;
