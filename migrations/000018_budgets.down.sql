ALTER TABLE questions DROP COLUMN budget;
DROP FUNCTION budget_exhausted(text, text), budget_period(text);
DROP TABLE spending, budgets;
UPDATE tasks SET claimable = true, parked_by = '' WHERE parked_by ~ '^(project|session)-budget:' AND completed_at IS NULL;
ALTER TABLE tasks DROP COLUMN usage, DROP COLUMN budget;
