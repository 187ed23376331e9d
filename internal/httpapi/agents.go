package httpapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

func (s *Server) registerAgents() {
	handle(s, operation{
		id: "getLease", action: "task.lease", method: http.MethodGet, path: "/v1/tasks/{id}/lease", permission: policy.Work, tag: "Workers", wait: maxWait,
		summary: "See how a leased task stands, waiting for something to happen",
		detail:  "For a worker whose agent reports by itself. Answers as soon as the task has an event after the given one or the lease is lost, else after waitSeconds; with 409 lease-lost if another principal's worker has the task.",
		errors:  []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.getLease)
}

// agent is who an agent's token speaks for. It returns LeaseLost for a token
// whose lease is over, which cannot be told from one that never was good.
func (s *Server) agent(ctx context.Context, bearer string) (policy.Caller, error) {
	taskID, ok := api.TaskOfAgentToken(bearer)
	if !ok {
		return policy.Caller{}, fault.New(fault.Unauthenticated, "the credential is not accepted")
	}
	id, err := uuid.Parse(taskID)
	if err != nil {
		return policy.Caller{}, fault.New(fault.Unauthenticated, "the credential is not accepted")
	}
	lease, err := s.workers.Lease(ctx, id)
	if err == nil && !equal(bearer, api.AgentToken(taskID, lease.String())) {
		err = fault.New(fault.LeaseLost, "the lease of task %s is held no more", id)
	}
	if err != nil {
		return policy.Caller{}, err
	}
	return policy.Caller{UserID: "task:" + taskID, Lease: &policy.LeaseScope{TaskID: taskID, Token: lease.String()}}, nil
}

// names reports whether the token of an agent is for the task.
func (s *Server) names(r *http.Request, id string) bool {
	cred, err := credentialOf(r)
	taskID, ok := api.TaskOfAgentToken(cred.bearer)
	return err == nil && ok && strings.EqualFold(taskID, id)
}

// ofAgent is the task of the agent that asks.
func (s *Server) ofAgent(ctx context.Context, c policy.Caller, id uuid.UUID) (*taskOutput, error) {
	lease, err := uuid.Parse(c.Lease.Token)
	if err != nil {
		return nil, err
	}
	t, err := s.workers.Leased(ctx, c, id, lease)
	return &taskOutput{WireTask(t)}, err
}

func (s *Server) getLease(ctx context.Context, c policy.Caller, in *struct {
	LeasedInput
	After       int64 `query:"after" minimum:"0" doc:"The lastSeq of the answer before."`
	WaitSeconds int   `query:"waitSeconds" minimum:"0" maximum:"60" doc:"How long to wait while nothing happens."`
}) (*struct{ Body api.LeaseState }, error) {
	id, lease, err := in.parse(c)
	if err != nil {
		return nil, err
	}
	waiting, stop := s.untilStopping(ctx)
	defer stop()
	st, err := s.workers.Holding(waiting, c, id, lease, in.After, time.Duration(in.WaitSeconds)*time.Second)
	return &struct{ Body api.LeaseState }{WireLeaseState(st)}, err
}

// WireLeaseState is how a leased task stands, as its worker sees it.
func WireLeaseState(st task.Holding) api.LeaseState {
	return api.LeaseState{
		Held: st.Held, Status: api.TaskStatus(st.Status), WaitingReason: api.WaitingReason(st.WaitingReason), StatusReason: st.StatusReason, LastSeq: st.LastSeq,
	}
}
