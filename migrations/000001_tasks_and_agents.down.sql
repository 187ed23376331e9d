DROP TABLE agents;
DROP TABLE task_events;
DROP SEQUENCE task_events_position;
DROP TABLE task_dependencies;
DROP TABLE tasks;
