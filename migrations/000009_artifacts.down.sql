DROP FUNCTION drop_task_events_partition;
DROP INDEX tasks_depends_on_idx;
DROP TABLE artifacts;
DROP TABLE artifact_chunks;
DROP TABLE artifact_contents;
