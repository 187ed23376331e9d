-- When the provider said what is stored of a user. Two tokens may come in
-- another order than they were made in; the later one counts.
ALTER TABLE users ADD COLUMN stated_at timestamptz NOT NULL DEFAULT '-infinity';
-- Nothing older than the last login can undo what it said.
UPDATE users SET stated_at = last_login_at WHERE last_login_at IS NOT NULL;
