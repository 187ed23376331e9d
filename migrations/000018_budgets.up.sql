-- What tasks may use, and what they have used: units are tokens, toolCalls and
-- currencies (ISO 4217), the last in millionths.
ALTER TABLE tasks
    ADD COLUMN budget jsonb,
    -- What it has used, by each source that told of it, in all; NULL: nothing.
    ADD COLUMN usage  jsonb;

-- What the tasks of a session, or of a project in a calendar month (UTC), may
-- use together. With name '' it holds for each that has no budget of its own.
CREATE TABLE budgets (
    updated_at  timestamptz NOT NULL DEFAULT now(),
    kind        text        NOT NULL,
    name        text        NOT NULL,
    on_exceeded text        NOT NULL,
    updated_by  text        NOT NULL,
    most        jsonb       NOT NULL, -- by unit
    CONSTRAINT budgets_pkey PRIMARY KEY (kind, name),
    CONSTRAINT budgets_kind_known CHECK (kind IN ('session', 'project')),
    CONSTRAINT budgets_on_exceeded_known CHECK (on_exceeded IN ('approval', 'fail'))
);

-- What the tasks of a session or a project have used in a period, whether it has
-- a budget or not, and by how much people have raised its budget meanwhile.
CREATE TABLE spending (
    used   bigint NOT NULL,
    raised bigint NOT NULL DEFAULT 0,
    kind   text   NOT NULL,
    name   text   NOT NULL,
    period text   NOT NULL, -- as of budget_period
    unit   text   NOT NULL,
    CONSTRAINT spending_pkey PRIMARY KEY (kind, name, period, unit),
    CONSTRAINT spending_kind_known CHECK (kind IN ('session', 'project')),
    CONSTRAINT spending_not_negative CHECK (used >= 0 AND raised >= 0)
) WITH (fillfactor = 50);

-- The present period of a budget: a session's is its life, a project's a month.
CREATE FUNCTION budget_period(kind text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE kind WHEN 'project' THEN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM') ELSE '' END
$$;

-- Whether nothing is left of the budget of a session or a project.
CREATE FUNCTION budget_exhausted(kind text, name text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT EXISTS (
        SELECT FROM (SELECT b.most FROM budgets b WHERE b.kind = $1 AND b.name IN ('', $2) ORDER BY b.name DESC LIMIT 1) b
        CROSS JOIN LATERAL jsonb_each_text(b.most) AS m (unit, most)
        JOIN spending s ON s.kind = $1 AND s.name = $2 AND s.period = budget_period($1) AND s.unit = m.unit
        WHERE s.used >= m.most::bigint + s.raised)
$$;

-- A session is seen by itself, and by whoever sees a task of it.
ALTER TABLE budgets ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON budgets TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON budgets FOR SELECT TO coderclaw_scoped USING (
    name = '' OR kind = 'project' AND name = current_setting('coderclaw.project', true)
    OR kind = 'session' AND name <> '' AND (name = current_setting('coderclaw.session', true)
        OR EXISTS (SELECT FROM tasks t WHERE t.session_id = name AND t.session_id <> '')));
GRANT SELECT ON budgets TO coderclaw_scoped;
ALTER TABLE spending ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON spending TO coderclaw_app USING (true) WITH CHECK (true);
CREATE POLICY scoped ON spending FOR SELECT TO coderclaw_scoped USING (
    kind = 'project' AND name = current_setting('coderclaw.project', true)
    OR kind = 'session' AND name <> '' AND (name = current_setting('coderclaw.session', true)
        OR EXISTS (SELECT FROM tasks t WHERE t.session_id = name AND t.session_id <> '')));
GRANT SELECT ON spending TO coderclaw_scoped;

-- The budget that is to be raised.
ALTER TABLE questions ADD COLUMN budget json;
