DROP TRIGGER keep_session_in_use ON sessions;
DROP FUNCTION keep_session_in_use;
DROP INDEX tasks_schedule_open_idx;
DROP INDEX tasks_schedule_idx;
ALTER TABLE tasks DROP COLUMN schedule_id;
DROP TABLE schedules;
