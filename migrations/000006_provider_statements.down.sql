ALTER TABLE users DROP COLUMN stated_at;
