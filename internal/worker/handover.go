package worker

import (
	"context"
	"errors"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

const (
	// standWait is how long one call waits for news of a task whose agent
	// reports by itself.
	standWait = 30 * time.Second
	// standTimeout bounds how long an attempt that is over may take to find out
	// why.
	standTimeout = 2 * time.Second
)

// handover is how the agent of the attempt reports by itself; nil if there is no
// address at which it could.
func (w *Worker) handover(s *sink) *executor.Handover {
	if w.ServerURL == "" {
		return nil
	}
	return &executor.Handover{
		URL:   w.ServerURL + "/v1/tasks/" + s.lease.taskID + "/reports",
		Token: api.AgentToken(s.lease.taskID, s.lease.token),
		Wait:  s.standBy,
	}
}

// standBy follows what the agent reports to the server, until the lease is over.
func (s *sink) standBy(ctx context.Context, heard func()) (st api.LeaseState, err error) {
	resume := func() {}
	defer func() { resume() }()
	for {
		last := st.LastSeq
		err = s.insist(ctx, standWait, func(ctx context.Context) (err error) {
			st, err = s.server.LeaseState(ctx, s.lease.taskID, s.lease.token, last, int(standWait.Seconds()))
			return err
		})
		switch {
		case err != nil && errors.Is(context.Cause(ctx), ErrLeaseLost):
			return s.lastStanding(ctx)
		case err != nil:
			return st, err
		case !st.Held:
			s.lease.end(ErrLeaseLost)
			return st, nil
		}
		asks := st.Status == api.TaskWaiting
		if asks || st.LastSeq > last {
			heard()
			s.quiet.broken()
		}
		resume()
		resume = func() {}
		if asks { // people, who may take their time
			resume = s.quiet.suspend()
		}
		pause(ctx, settle)
	}
}

// lastStanding is how the task stands once its lease is lost.
func (s *sink) lastStanding(ctx context.Context) (api.LeaseState, error) {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), standTimeout)
	defer cancel()
	st, err := s.server.LeaseState(asking, s.lease.taskID, s.lease.token, 0, 0)
	if err != nil {
		return st, context.Cause(ctx)
	}
	return st, nil
}
