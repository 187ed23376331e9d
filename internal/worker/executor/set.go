package executor

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/coderclaw/runtime/api"
)

// Options say what a Set can run.
type Options struct {
	// WorkspaceRoot is the directory that agents work in. Required.
	WorkspaceRoot string
	// LLM is the model endpoint. Without a BaseURL there is none.
	LLM OpenAIOptions
	// ACP is the command of an agent that speaks the Agent Client Protocol and
	// runs the agents that need a model when there is no endpoint; nil: none.
	ACP *api.Process
	// Own are the ids of the agents that the worker's own agents.yaml defines.
	Own []string
	// StateDir is a directory of the worker's own, for what it remembers of
	// interrupted tasks and for checkouts; empty: it does not, and makes none.
	StateDir string
	// Checkouts say which repositories a task may have checked out.
	Checkouts CheckoutOptions
	// KillGrace is how long a process may take to end after SIGTERM. Default:
	// 5 s.
	KillGrace time.Duration
}

// Set holds the executors of a worker. Its methods may be called concurrently.
type Set struct {
	process *Process
	acp     *ACP
	instead *api.Process // of a model endpoint; nil: nothing
	openai  *OpenAI      // nil: no endpoint
	http    *HTTP
	builtin *Builtin

	checkouts *checkouts
}

// NewSet returns the executors. It fails if the endpoint's address is none.
func NewSet(o Options) (*Set, error) {
	root, err := filepath.Abs(o.WorkspaceRoot)
	if err != nil {
		return nil, fmt.Errorf("workspace root: %w", err)
	}
	var sessions, checkedOut string
	if o.StateDir != "" {
		state, err := filepath.Abs(o.StateDir)
		if err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		sessions, checkedOut = filepath.Join(state, "acp"), filepath.Join(state, "checkouts")
	}
	s := &Set{process: NewProcess(root, o.KillGrace), acp: NewACP(root, sessions, o.KillGrace), instead: o.ACP, http: NewHTTP(o.Own), builtin: NewBuiltin(root)}
	s.checkouts = &checkouts{CheckoutOptions: o.Checkouts, dir: checkedOut, grace: cmp.Or(o.KillGrace, defaultGrace), measure: 2 * time.Second}
	if o.LLM.BaseURL != "" {
		if s.openai, err = NewOpenAI(o.LLM); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// For returns the executor that runs the agent, in a checkout if the task wants
// one, or an error whose text says what to configure.
func (s *Set) For(agent api.Agent) (Executor, error) {
	exec, err := s.executor(agent)
	if err != nil {
		return nil, err
	}
	return &inCheckout{Executor: exec, checkouts: s.checkouts}, nil
}

func (s *Set) executor(agent api.Agent) (Executor, error) {
	switch agent.Executor {
	case api.ExecutorProcess:
		return s.process, s.process.runnable(agent)
	case api.ExecutorHTTP:
		return s.http, s.http.runnable(agent)
	case api.ExecutorBuiltin:
		return s.builtin, s.builtin.runnable(agent)
	case api.ExecutorACP:
		return s.acp, s.acp.runnable(agent)
	case api.ExecutorOpenAI:
		if s.openai != nil {
			return s.openai, s.openai.runnable(agent)
		}
		if s.instead != nil {
			exec := &standIn{acp: s.acp, process: *s.instead}
			return exec, exec.runnable(agent)
		}
		if s.builtin.runnable(agent) == nil {
			return s.builtin, nil
		}
		return nil, fmt.Errorf("agent %s needs a model: set CODERCLAW_LLM_BASE_URL and CODERCLAW_LLM_MODEL, or CODERCLAW_ACP_COMMAND, or define it in agents.yaml with executor process or acp", agent.ID)
	}
	return nil, fmt.Errorf("agent %s: executor %q is none of process, acp, http, openai, builtin", agent.ID, agent.Executor)
}

// standIn runs an agent that needs a model through one that brings its own.
type standIn struct {
	acp     *ACP
	process api.Process
}

func (s *standIn) runnable(agent api.Agent) error {
	agent.Process = &s.process
	return s.acp.runnable(agent)
}

func (s *standIn) Run(ctx context.Context, job Job, sink Sink) (string, error) {
	job.Agent.Process = &s.process
	return s.acp.Run(ctx, job, sink)
}

// Runnable returns nil if something here can run the agent, and otherwise an
// error whose text says what to configure.
func (s *Set) Runnable(agent api.Agent) error {
	_, err := s.executor(agent)
	return err
}
