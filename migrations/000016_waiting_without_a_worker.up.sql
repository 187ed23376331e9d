-- A task that waits for people can give its worker back. What its agent is taken
-- up again from, and by which worker, stands here from then on.
ALTER TABLE tasks
    ADD COLUMN resume        json, -- NULL: it would begin anew
    ADD COLUMN resume_worker text NOT NULL DEFAULT '';

-- Questions stay open while their task waits without a lease; there is no other
-- way to lose one and to wait on for the same.
DROP TRIGGER withdraw_questions ON tasks;
CREATE TRIGGER withdraw_questions BEFORE UPDATE ON tasks FOR EACH ROW
    WHEN (OLD.waiting_reason IN ('input', 'approval') AND (OLD.lease_token IS NOT NULL OR OLD.resume IS NOT NULL)
        AND (NEW.waiting_reason NOT IN ('input', 'approval') OR NEW.lease_token IS NOT NULL AND NEW.lease_token IS DISTINCT FROM OLD.lease_token))
    EXECUTE FUNCTION withdraw_questions();
