package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/coder/acp-go-sdk"

	"github.com/coderclaw/runtime/api"
)

// ACP runs agents that speak the Agent Client Protocol, version 1, on their
// standard streams (agentclientprotocol.com). Each attempt starts the agent as
// Process does, gives it the task as one prompt, and ends it when it has
// answered. What the agent wants to read, write or run by way of the protocol
// stays in the workspace; what it wants leave for, a person is asked. What it
// does by itself it does with the rights of the worker's user.
//
// The output is what the agent said. An attempt that follows one which broke
// off on this machine continues the agent's session if the agent can.
type ACP struct {
	process  *Process
	sessions sessions
	limits   acpLimits
}

// acpLimits bound what an agent may do.
type acpLimits struct {
	message  int           // bytes of one message
	messages int           // in all
	bytes    int64         // of all messages
	requests int           // that wait for an answer at a time
	begin    time.Duration // until it has a session
	silence  time.Duration // with nothing to answer for us
	cancel   time.Duration // to end a turn when asked to, before it gets SIGTERM
}

var defaultACPLimits = acpLimits{
	message:  8 << 20,
	messages: 1_000_000,
	bytes:    1 << 30,
	requests: 32,
	begin:    2 * time.Minute,
	silence:  30 * time.Minute,
	cancel:   time.Second,
}

const (
	// maxNotes bounds what one attempt adds to the task's history beside its
	// output, maxDetails the details of each, in bytes.
	maxNotes   = 10_000
	maxDetails = 16 << 10
	// maxComplaint is how much of what an agent did wrong is shown.
	maxComplaint = 300
)

// NewACP returns an executor of agents that work under the absolute path root.
// In the directory state it keeps by which sessions interrupted tasks continue;
// empty: they do not. A killGrace of 0 means 5 s.
func NewACP(root, state string, killGrace time.Duration) *ACP {
	return &ACP{process: NewProcess(root, killGrace), sessions: sessions(state), limits: defaultACPLimits}
}

// runnable says what is missing to run the agent.
func (a *ACP) runnable(agent api.Agent) error { return a.process.runnable(agent) }

// errOver ends an agent that has answered.
var errOver = errors.New("the agent has answered")

// Run starts the agent, has it do the task, and follows it to its end.
func (a *ACP) Run(ctx context.Context, job Job, sink Sink) (string, error) {
	if err := a.runnable(job.Agent); err != nil {
		return "", &Failure{Message: err.Error()}
	}
	cmd, err := a.process.command(job)
	if err != nil {
		return "", err
	}
	workspace := job.workspace(a.process.root)
	root, err := os.OpenRoot(string(workspace))
	if err != nil {
		return "", fmt.Errorf("open workspace: %w", err)
	}
	defer root.Close()

	// The agent outlives ctx for as long as it takes to end its turn.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	c := &conversation{
		job: job, sink: sink, asking: ctx, sessions: a.sessions, limits: a.limits,
		environment: cmd.Env, directory: cmd.Dir,
		report:    report{sink: sink, output: tail{limit: maxOutput}},
		files:     files{workspace: workspace, root: root},
		terminals: terminals{life: life, workspace: workspace, grace: a.process.grace, environment: cmd.Env, directory: cmd.Dir, named: map[string]*terminal{}},
	}
	c.peer = &peer{
		ctx: life, limits: a.limits, calls: map[int64]chan reply{},
		answer: c.answer, notice: c.notice, heard: c.heard,
		broken: func(f *Failure) { end(f) },
	}
	c.patience = time.AfterFunc(a.limits.begin, func() { c.hurry(end) })
	defer c.patience.Stop()

	stderr := &stream{name: "stderr", sink: sink, tail: tail{limit: maxErrorTail}}
	r, err := start(cmd, true, c.peer, stderr)
	if err != nil {
		return "", startFailure(job.Agent.Process.Command[0], err)
	}
	c.peer.out = r.stdin
	defer sink.Hold(r.halt, r.goOn)()
	defer r.stdin.Close()
	defer context.AfterFunc(life, func() { r.stdin.Close() })() // a program may end when its input does
	defer context.AfterFunc(ctx, func() {
		if c.session.Load() == nil {
			end(ctx.Err())
			return
		}
		late := time.AfterFunc(a.limits.cancel, func() { end(ctx.Err()) })
		context.AfterFunc(life, func() { late.Stop() })
		c.peer.notify(acp.AgentMethodSessionCancel, acp.CancelNotification{SessionId: *c.session.Load()})
	})()

	var answer acp.PromptResponse
	var talk error
	talked := make(chan struct{})
	go func() {
		defer close(talked)
		answer, talk = c.talk(life)
		end(errOver)
	}()
	_, err = r.wait(life, a.process.grace)
	end(errGone)
	<-talked
	c.peer.answering.Wait()
	c.terminals.ended.Wait()
	c.report.close(answer.Usage)
	if err != nil {
		return "", fmt.Errorf("wait for %s: %w", cmd.Path, err)
	}
	output, err := c.outcome(ctx, answer, talk, context.Cause(life), func() *Failure {
		return exit("the agent ended before it had answered: ", cmd.ProcessState, &stderr.tail)
	})
	if f, ok := errors.AsType[*Failure](err); err == nil || ok && !f.Retryable {
		a.sessions.forget(job.Task.ID)
	}
	return output, err
}

// outcome is what the agent made of the task, if talk is nil, and otherwise why
// it did not get that far: cause ended it, or it ended itself as exit says.
func (c *conversation) outcome(ctx context.Context, answer acp.PromptResponse, talk, cause error, exit func() *Failure) (string, error) {
	if talk == nil {
		switch answer.StopReason {
		case acp.StopReasonEndTurn:
			return c.report.output.text(), nil
		case acp.StopReasonRefusal:
			return "", &Failure{Message: "the agent refuses to go on with this task"}
		case acp.StopReasonMaxTokens:
			return "", &Failure{Message: "the agent stopped in the middle: it reached its limit of tokens"}
		case acp.StopReasonMaxTurnRequests:
			return "", &Failure{Message: "the agent stopped in the middle: it reached its limit of requests to the model for one turn", Retryable: true}
		}
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if talk == nil {
		return "", &Failure{Message: fmt.Sprintf("the agent stopped in the middle: %.40q", answer.StopReason), Retryable: true}
	}
	if f, ok := errors.AsType[*Failure](cause); ok {
		return "", f
	}
	if f, ok := errors.AsType[*Failure](talk); ok {
		return "", f
	}
	if e, ok := errors.AsType[*acp.RequestError](talk); ok {
		return "", &Failure{Message: "the agent failed: " + complaintOf(e), Retryable: true}
	}
	if errors.Is(talk, errGone) {
		return "", exit()
	}
	return "", talk
}

// complaintOf is an agent's error as a person reads it.
func complaintOf(e *acp.RequestError) string {
	text := e.Message
	if e.Data != nil {
		if data, err := json.Marshal(e.Data); err == nil {
			text += " " + string(data)
		}
	}
	return shortened(text, maxErrorTail)
}
