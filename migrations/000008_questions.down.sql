DROP TRIGGER withdraw_questions ON tasks;
DROP TABLE questions;
DROP FUNCTION withdraw_questions;
ALTER TABLE tasks DROP COLUMN retry_of, DROP COLUMN retried_by;
