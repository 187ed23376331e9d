package identity

import (
	"context"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Submitter returns what somebody who submitted a task in a session may do now,
// when the task is about to run or is running. What they asked for goes on
// after they have logged out, and after the session's time; not after the
// session was revoked by somebody else, nor without the user, key or device
// that it rests on.
//
// Faults: Unauthenticated, with the reason, and Unavailable.
func (s *Service) Submitter(ctx context.Context, sessionID string) (policy.Caller, error) {
	id, err := uuid.Parse(sessionID)
	if err != nil {
		return policy.Caller{}, unauthenticated(errNoSession)
	}
	st, err := s.standing(ctx, id)
	if err != nil {
		if st, err = s.readStandingOf(ctx, s.pool, id, true); err != nil {
			return policy.Caller{}, answer(postgres.Fault(err))
		}
	}
	p, err := s.policies.Policy(ctx, "")
	if err != nil {
		return policy.Caller{}, err
	}
	return requester(p, st, Origin{Local: st.caller.Local}), nil
}
