package task

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Verdict says whether a skill may be used.
type Verdict string

// The verdicts.
const (
	SkillAllowed  Verdict = "allowed"
	SkillDenied   Verdict = "denied"
	SkillApproval Verdict = "approval" // if a person approves it
)

// SkillDecision is the answer to whether a skill may be used.
type SkillDecision struct {
	Verdict Verdict
	Reason  string
	// QuestionID is that of the approval to wait for.
	QuestionID uuid.UUID
}

// Authorize says whether the agent that runs a task may use a skill now, by the
// policies in force and what the task's submitter may do by now. It is asked by
// the right of a lease. If it takes an approval it asks people for it, with the
// id questionID; tool, which may be nil, is what they are shown. Faults are those
// of Ask.
func (s *Service) Authorize(ctx context.Context, w policy.Caller, id, lease uuid.UUID, skillID string, questionID uuid.UUID, tool *ToolCall) (SkillDecision, error) {
	n := NewQuestion{
		ID: questionID, Kind: Approval, Text: "May the agent use the skill " + skillID + "?", Tool: tool, SkillID: skillID, Risk: "high",
	}
	if err := n.check(); err != nil {
		return SkillDecision{}, err
	}
	if skillID == "" || !idForm.MatchString(skillID) {
		return SkillDecision{}, fault.InvalidFields([]fault.Field{{Path: "path.skillId", Message: "must be the id of a skill"}})
	}
	t, err := leased(ctx, s.pool, w, id, lease)
	if err != nil {
		return SkillDecision{}, err
	}
	t.SkillID = skillID
	c, d, err := s.reconsider(ctx, t)
	if err != nil {
		return SkillDecision{}, err
	}
	entry := audit.NewEntry(c, actionAuthorize, resourceType, id.String(), d)
	entry.ProjectID = t.ProjectID
	if entry.Details, err = t.wants().Circumstances(c); err != nil {
		return SkillDecision{}, fmt.Errorf("encode circumstances: %w", err)
	}
	if !d.Allowed {
		s.recorder.Record(ctx, entry)
		return SkillDecision{Verdict: SkillDenied, Reason: d.Err().Error()}, nil
	}
	if d.Approval {
		q, err := s.Ask(ctx, w, id, lease, n)
		return SkillDecision{Verdict: SkillApproval, Reason: "the skill " + skillID + " is dangerous: a person must approve its use", QuestionID: q.ID}, err
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := lockLeased(ctx, tx, w, id, lease); err != nil {
			return err
		}
		return audit.Append(ctx, tx, entry)
	})
	return SkillDecision{Verdict: SkillAllowed, Reason: d.Reason}, err
}
