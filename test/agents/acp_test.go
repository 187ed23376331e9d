// Package agents_test runs tasks with real agents.
package agents_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// listener is a sink that keeps what it is told and answers what it is asked.
type listener struct {
	output strings.Builder
	notes  []string
	asked  []api.NewQuestion
	status api.QuestionStatus
	cancel context.CancelFunc // when the agent begins to speak; nil: not
}

func (l *listener) Progress(int, string) {}
func (l *listener) Log(string, string)   {}
func (l *listener) Note(message string, _ any) {
	l.notes = append(l.notes, message)
}

func (l *listener) Output(text string) {
	l.output.WriteString(text)
	if l.cancel != nil {
		l.cancel()
	}
}

func (*listener) Used(string, api.Usage)        {}
func (*listener) Hold(stop, goOn func()) func() { return func() {} }
func (*listener) Held() bool                    { return false }

func (l *listener) Ask(_ context.Context, q api.NewQuestion) (api.Question, error) {
	l.asked = append(l.asked, q)
	return api.Question{Status: l.status}, nil
}

func (l *listener) Authorize(context.Context, string, api.ToolCall) (bool, string, error) {
	return false, "", errors.ErrUnsupported
}

func (l *listener) Resumable(func() string) {}

func (l *listener) Artifact(context.Context, string, string, io.Reader) error {
	return errors.ErrUnsupported
}

// example is the agent that comes with the Agent Client Protocol's own kit. It
// pretends to read, asks for leave to write, and says what it was told.
func example() executor.Job {
	return executor.Job{
		Task: api.Task{ID: "0190b8a1", Description: "Improve the project", AgentID: "example"},
		Agent: api.Agent{ID: "example", Executor: api.ExecutorACP, Process: &api.Process{
			Command: []string{"node", "../node_modules/@agentclientprotocol/sdk/dist/examples/agent.js"},
		}},
	}
}

func run(t *testing.T, ctx context.Context, l *listener) (string, error) {
	t.Helper()
	return executor.NewACP(".", "", 0).Run(ctx, example(), l)
}

func TestTheExampleAgentDoesWhatItIsAllowed(t *testing.T) {
	t.Parallel()
	for status, want := range map[api.QuestionStatus]string{
		api.QuestionApproved: "The changes have been applied.",
		api.QuestionDenied:   "I'll skip the configuration update.",
		api.QuestionExpired:  "I'll skip the configuration update.",
	} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			l := &listener{status: status}
			output, err := run(t, t.Context(), l)
			if err != nil || !strings.HasSuffix(output, want) || output != l.output.String() {
				t.Errorf("output %q, %v, streamed %q", output, err, l.output.String())
			}
			if len(l.asked) != 1 || l.asked[0].Text != "The agent asks for leave: Modifying critical configuration file" || l.asked[0].Tool.Name != "edit" ||
				!strings.Contains(string(l.asked[0].Tool.Input), `"path":"/home/user/project/config.json"`) {
				t.Errorf("asked %+v", l.asked)
			}
			if all := strings.Join(l.notes, "\n"); !strings.Contains(all, "Reading project files: completed") {
				t.Errorf("noted\n%s", all)
			}
		})
	}
}

func TestTheExampleAgentIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	l := &listener{cancel: cancel}
	began := time.Now()
	if output, err := run(t, ctx, l); err != context.Canceled {
		t.Errorf("output %q, %v", output, err)
	}
	if len(l.asked) > 0 {
		t.Errorf("asked %+v after %v", l.asked, time.Since(began))
	}
}
