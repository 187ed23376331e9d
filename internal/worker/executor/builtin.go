package executor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor/survey"
)

// Builtin runs the agents that need neither a model nor a program: the survey
// of a repository.
type Builtin struct{ root workspace }

// NewBuiltin returns an executor that surveys what lies under the absolute path
// root.
func NewBuiltin(root string) *Builtin { return &Builtin{root: workspace(root)} }

// prefaces are, by the ids of the agents that the survey can run, what its
// report says first.
var prefaces = map[string]string{
	"codebase-survey": "",
	"architecture-advisor": "No model is configured, so this is not a model's advice: it is what CoderClaw's own survey measured, and the conclusions that follow from the numbers. " +
		"For advice in answer to the question, set CODERCLAW_LLM_BASE_URL and CODERCLAW_LLM_MODEL and submit the task again.",
}

// runnable says what is missing to run the agent.
func (b *Builtin) runnable(agent api.Agent) error {
	if _, ok := prefaces[agent.ID]; !ok {
		return fmt.Errorf("agent %s has executor builtin, which runs only %s", agent.ID, strings.Join(slices.Sorted(maps.Keys(prefaces)), " and "))
	}
	return nil
}

// Run surveys the directory that the task names in metadata.path, or the whole
// workspace, and returns the report.
func (b *Builtin) Run(ctx context.Context, job Job, sink Sink) (string, error) {
	if err := b.runnable(job.Agent); err != nil {
		return "", &Failure{Message: err.Error()}
	}
	path, err := pathOf(job.Task)
	if err != nil {
		return "", err
	}
	root := job.workspace(b.root)
	if path, err = root.locate(path); err != nil {
		return "", err
	}
	return survey.Run(ctx, survey.Request{
		Workspace:   string(root),
		Path:        path,
		Description: job.Task.Description,
		Input:       job.Task.Input,
		Preface:     prefaces[job.Agent.ID],
		Progress:    sink.Progress,
	})
}
