ALTER TABLE api_keys DROP COLUMN worker;
ALTER TABLE tasks DROP COLUMN requires;
DROP TABLE workers;
