package executor

import (
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
	// KillGrace is how long a process may take to end after SIGTERM. Default:
	// 5 s.
	KillGrace time.Duration
}

// Set holds the executors of a worker. Its methods may be called concurrently.
type Set struct {
	process *Process
	openai  *OpenAI // nil: no endpoint
	builtin *Builtin
}

// NewSet returns the executors. It fails if the endpoint's address is none.
func NewSet(o Options) (*Set, error) {
	root, err := filepath.Abs(o.WorkspaceRoot)
	if err != nil {
		return nil, fmt.Errorf("workspace root: %w", err)
	}
	s := &Set{process: NewProcess(root, o.KillGrace), builtin: NewBuiltin(root)}
	if o.LLM.BaseURL != "" {
		if s.openai, err = NewOpenAI(o.LLM); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// For returns the executor that runs the agent, or an error whose text says
// what to configure.
func (s *Set) For(agent api.Agent) (Executor, error) {
	switch agent.Executor {
	case api.ExecutorProcess:
		return s.process, s.process.runnable(agent)
	case api.ExecutorBuiltin:
		return s.builtin, s.builtin.runnable(agent)
	case api.ExecutorOpenAI:
		if s.openai != nil {
			return s.openai, s.openai.runnable(agent)
		}
		if s.builtin.runnable(agent) == nil {
			return s.builtin, nil
		}
		return nil, fmt.Errorf("agent %s needs a model: set CODERCLAW_LLM_BASE_URL and CODERCLAW_LLM_MODEL, or define it in agents.yaml with executor process", agent.ID)
	}
	return nil, fmt.Errorf("agent %s: executor %q is none of process, openai, builtin", agent.ID, agent.Executor)
}

// Runnable returns nil if something here can run the agent, and otherwise an
// error whose text says what to configure.
func (s *Set) Runnable(agent api.Agent) error {
	_, err := s.For(agent)
	return err
}
