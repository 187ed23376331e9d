DROP FUNCTION drop_audit_partition;
DROP FUNCTION add_audit_partition;
DROP FUNCTION audit_first_id;
DROP FUNCTION audit_guard;
DROP TABLE audit_seal;
DROP TABLE audit_leaves;
DROP TABLE audit_entries;
DROP FUNCTION audit_refuse;
