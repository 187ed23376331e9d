package worker

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
)

// answerWait is how long one call waits for an answer.
const answerWait = 30 * time.Second

// Ask implements executor.Sink.
func (s *sink) Ask(ctx context.Context, q api.NewQuestion) (api.Question, error) {
	if q.ID == "" {
		q.ID = uuid.NewString()
	}
	return s.await(ctx, s.waits, func(ctx context.Context) (api.Question, error) {
		return s.server.Ask(ctx, s.lease.taskID, s.lease.token, q)
	})
}

// Authorize implements executor.Sink.
func (s *sink) Authorize(ctx context.Context, skillID string, tool api.ToolCall) (allowed bool, reason string, err error) {
	use := api.SkillUse{QuestionID: uuid.NewString(), Tool: &tool}
	var d api.SkillDecision
	q, err := s.await(ctx, s.waits, func(ctx context.Context) (api.Question, error) {
		var err error
		d, err = s.server.Authorize(ctx, s.lease.taskID, s.lease.token, skillID, use)
		if d.Decision == api.SkillApproval {
			return api.Question{ID: d.QuestionID, Status: api.QuestionOpen}, err
		}
		return api.Question{}, err
	})
	if err != nil || d.Decision != api.SkillApproval {
		return d.Decision == api.SkillAllowed && err == nil, d.Reason, err
	}
	reason = string(q.Status)
	if q.AnsweredBy != "" {
		reason += " by " + q.AnsweredBy
	}
	if q.Answer != nil && q.Answer.Reason != "" {
		reason += ": " + q.Answer.Reason
	}
	return q.Status == api.QuestionApproved, reason, nil
}

// await asks and waits until the question is open no more, over as many lost
// connections as it takes. waits hears of a question that is open.
func (s *sink) await(ctx context.Context, waits func(id string), ask func(context.Context) (api.Question, error)) (q api.Question, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.heard, cancel)()
	s.asks.Lock()
	s.asking++
	s.asks.Unlock()
	var id string
	defer s.quiet.suspend()()
	err = s.insist(ctx, 0, func(ctx context.Context) (err error) {
		q, err = ask(ctx)
		return err
	})
	if err == nil && q.Status == api.QuestionOpen {
		id = q.ID
		waits(id)
	}
	for err == nil && q.Status == api.QuestionOpen {
		err = s.insist(ctx, answerWait, func(ctx context.Context) (err error) {
			q, err = s.server.Question(ctx, s.lease.taskID, s.lease.token, id, int(answerWait.Seconds()))
			return err
		})
	}
	s.asks.Lock()
	defer s.asks.Unlock()
	s.asking--
	if s.heard.Err() != nil {
		return q, s.heard.Err() // and the agent has not heard the outcome
	}
	s.hears(id)
	if ctx.Err() != nil && err != nil && s.asking == 0 {
		s.goOn()
	}
	return q, err
}

// goOn withdraws what nobody waits for any more: the task runs on. It is
// refused if the answer has come meanwhile.
func (s *sink) goOn() {
	err := s.insist(s.heard, 0, func(ctx context.Context) error {
		return s.server.Report(ctx, s.lease.taskID, s.lease.token,
			api.Report{Status: api.TaskRunning, Message: "goes on without an answer"})
	})
	if err != nil && s.heard.Err() == nil && !errors.Is(err, ErrRefused) {
		s.log.WarnContext(s.heard, "a question that nobody waits for stays open", "error", err)
	}
}

// insist calls the server until it answers, which it may take the time wait
// for. It gives up when ctx ends, when the server refuses, and when the lease is
// lost, which ends the attempt.
func (s *sink) insist(ctx context.Context, wait time.Duration, call func(context.Context) error) error {
	once := func() error {
		ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
		defer cancel()
		return call(ctx)
	}
	for retry := (backoff{longest: urgentPause}); ctx.Err() == nil; {
		err := once()
		switch {
		case err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrUnknown):
			return err
		case errors.Is(err, ErrLeaseLost):
			s.lease.end(ErrLeaseLost)
			return err
		case ctx.Err() == nil:
			s.log.WarnContext(ctx, "worker cannot ask the server, trying again", "error", err)
			retry.wait(ctx)
		}
	}
	return ctx.Err()
}
