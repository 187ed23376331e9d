// Package executor starts real agents: a process, a model endpoint, or one
// that is built in.
package executor

import (
	"context"
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
}

// Sink takes what an agent says while it works. Its methods may be called from
// several goroutines; they bound what they keep and may block to slow the agent
// down, but never fail, Artifact excepted.
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
	// Artifact keeps content, to its end, as a file of the task, in place of one
	// of that name; an empty contentType is application/octet-stream. It returns
	// once that is done, with an error if it cannot be.
	Artifact(ctx context.Context, name, contentType string, content io.Reader) error
}

// Failure is an error of an agent, as opposed to one of ours.
type Failure struct {
	Message   string // shown as the task's error
	Retryable bool
}

func (f *Failure) Error() string { return f.Message }
