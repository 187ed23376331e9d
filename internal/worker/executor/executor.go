// Package executor starts real agents: a process, a model endpoint, or one
// that is built in.
package executor

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/coderclaw/runtime/api"
)

// Executor runs one attempt of a task and returns its output. It stops soon
// after ctx ends and then returns ctx's error; nothing that it started
// survives its return. Any other error fails the attempt; wrap it in a
// *Failure to say what the task's error shall read and whether trying again
// may help.
type Executor interface {
	Run(ctx context.Context, job Job, sink Sink) (output string, err error)
}

// Job is what an executor is given.
type Job struct {
	Task  api.Task
	Agent api.Agent
	// Workspace is the absolute path of a directory made for this attempt; empty:
	// it works in the workspace root.
	Workspace string
	// Resume is what the attempt goes on from, after it was suspended; nil: it
	// begins anew.
	Resume *Resume
	// Handover lets the agent report by itself; nil: there is no address at which
	// it could.
	Handover *Handover
}

// Handover is how an agent reports to the server by itself.
type Handover struct {
	// URL is where reports on the task are posted, absolute, and Token the bearer
	// token that is good for them for as long as the attempt lasts.
	URL, Token string
	// Wait returns how the task stands once the attempt is over: the agent has
	// ended it, or it was taken away. It returns ctx's error when ctx ends first.
	// heard is called at each sign of life.
	Wait func(ctx context.Context, heard func()) (api.LeaseState, error)
}

// Resume is where a suspended attempt was, and what it waited for.
type Resume struct {
	State    string         // as Sink.Resumable was told
	Outcomes []api.Question // all that it had asked and not heard the outcome of
}

// ErrSuspended is the cause with which the context of an attempt ends that is to
// go on later, by a Job with Resume.
var ErrSuspended = errors.New("suspended until people have answered")

// workspace is what the attempt works in.
func (j Job) workspace(root workspace) workspace { return cmp.Or(workspace(j.Workspace), root) }

// Sink takes what an agent says while it works, and asks on its behalf. Its
// methods may be called from several goroutines; they bound what they keep and
// may block to slow the agent down. Those that return no error never fail.
type Sink interface {
	// Progress reports percent done, 0 to 100, and optionally what is being done.
	Progress(percent int, message string)
	// Output passes on a piece of the output as it is made.
	Output(text string)
	// Log passes on one line of what the agent says; stream is "stdout",
	// "stderr" or empty.
	Log(stream, line string)
	// Note passes on a remark of the executor itself, with details for
	// programs: a value that encodes as a small JSON object, or nil.
	Note(message string, details any)
	// Ask puts a question to people and waits for what becomes of it, which may
	// take days: it is answered, approved, denied, expired or withdrawn. All but
	// the first two are a no. An empty q.ID is filled in. When the attempt ends,
	// or ctx, it returns the error of its context, and nobody is asked any more;
	// any other error says that the server will not put such a question.
	Ask(ctx context.Context, q api.NewQuestion) (api.Question, error)
	// Artifact keeps content, to its end, as a file of the task, in place of one
	// of that name; an empty contentType is application/octet-stream. It returns
	// once that is done, with an error if it cannot be.
	Artifact(ctx context.Context, name, contentType string, content io.Reader) error
	// Authorize asks whether the agent may use a skill now, by that call of a
	// tool, and waits for a person's approval where one is needed. The reason
	// can be told to the agent. Errors are as those of Ask.
	Authorize(ctx context.Context, skillID string, tool api.ToolCall) (allowed bool, reason string, err error)
	// Resumable says that the attempt can be suspended while it does nothing but
	// wait for people: it is stopped with ErrSuspended, and goes on later from
	// what state returns. "" is for not now; state may be called at any time, also
	// after the executor has returned.
	Resumable(state func() string)
	// Used passes on what the agent has used by now, in all: what comes from the
	// same source takes the place of what came before. A source that other
	// attempts continue, such as a session of the agent, has a name; otherwise it
	// is empty.
	Used(source string, total api.Usage)
	// Hold has stop called when the agent is to do nothing, for a budget is
	// exceeded, and goOn when it may go on, until release has returned. It is
	// stopped at once if that is so already.
	Hold(stop, goOn func()) (release func())
	// Held reports whether the agent is to do nothing. What it says then waits.
	Held() bool
}

// Failure is an error of an agent, as opposed to one of ours.
type Failure struct {
	Message   string // shown as the task's error
	Retryable bool
	// Reason is the kind of failure, for whoever chooses what is tried again:
	// exit:75, signal:9, …. "": failed.
	Reason string
}

func (f *Failure) Error() string { return f.Message }
