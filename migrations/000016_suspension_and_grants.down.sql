DROP TABLE grants;
ALTER TABLE questions DROP COLUMN remember;
-- What waits without a lease begins anew.
UPDATE tasks SET waiting_reason = 'worker-lost', claimable = parked_by = ''
    WHERE status = 'waiting' AND resume IS NOT NULL AND lease_token IS NULL AND waiting_reason IN ('input', 'approval', 'resume');
DROP TRIGGER withdraw_questions ON tasks;
ALTER TABLE tasks DROP COLUMN resume_worker, DROP COLUMN resume;
CREATE TRIGGER withdraw_questions BEFORE UPDATE ON tasks FOR EACH ROW
    WHEN (OLD.waiting_reason IN ('input', 'approval') AND OLD.lease_token IS NOT NULL
        AND (NEW.waiting_reason NOT IN ('input', 'approval') OR NEW.lease_token IS DISTINCT FROM OLD.lease_token))
    EXECUTE FUNCTION withdraw_questions();
