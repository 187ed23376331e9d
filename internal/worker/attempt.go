package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

var (
	errNotRenewed = errors.New("the lease could not be renewed in time")
	errTimedOut   = errors.New("timed out")
	errSilent     = errors.New("silent")
)

// attempt runs one lease to its end. talking bounds what is said to the server
// of it, working how long the executor may go on. It returns whether its slot is
// in use for another attempt.
func (w *Worker) attempt(talking, working context.Context, l api.Lease) (handedOver bool) {
	log := w.Log.With("worker", w.ID, "task", l.Task.ID, "agent", l.Task.AgentID, "attempt", l.Attempt)
	// Two things can end: the lease, and with it the right to say anything;
	// and only the work, of which the end is then reported.
	leased, endLease := context.WithCancelCause(talking)
	defer endLease(nil)
	held := w.held.add(l, endLease)
	defer w.held.remove(held)
	run, endRun := context.WithCancelCause(leased)
	defer endRun(nil)
	if working.Err() != nil {
		endRun(errStopped) // at once, where AfterFunc lets it begin
	}
	early := context.AfterFunc(working, func() { endRun(errStopped) })
	defer early()
	if s := l.Task.TimeoutSeconds; s > 0 {
		timeout := time.AfterFunc(time.Duration(s)*time.Second, func() { endRun(errTimedOut) })
		defer timeout.Stop()
	}

	r := reporter{server: w.Server, lease: held, log: log}
	began := time.Now()
	last := w.carryOut(run, leased, l, r, log, func(stop func()) func() bool {
		early()
		return context.AfterFunc(working, stop)
	})
	w.held.ending(held)
	handedOver, err := w.conclude(leased, r, last)
	if err != nil {
		r.explain(leased, last, err)
		return handedOver
	}
	log.InfoContext(talking, "attempt ended", "status", ended(last), "took", time.Since(began))
	return handedOver
}

// carryOut does the work and returns what remains to be reported of it. onStop
// has another way of stopping the work take the place of ending run.
func (w *Worker) carryOut(run, leased context.Context, l api.Lease, r reporter, log *slog.Logger, onStop func(stop func()) func() bool) api.Report {
	if run.Err() != nil {
		return outcome(run, l.Task, "", run.Err())
	}
	exec, agent, err := w.executorFor(l)
	if err != nil {
		return outcome(run, l.Task, "", err)
	}
	if l.Task.Status != api.TaskRunning {
		// It is refused if a first try arrived and only its answer did not.
		if err := r.report(leased, api.Report{Status: api.TaskRunning}); err != nil && !errors.Is(err, ErrRefused) {
			return outcome(run, l.Task, "", err)
		}
	}
	log.InfoContext(run, "attempt started")

	files := newFiles(w.MaxArtifact, r.put)
	defer files.discard()
	run, endRun := context.WithCancelCause(run)
	defer endRun(nil)
	quiet := newSilence(l.Task.SilenceSeconds, func() { endRun(errSilent) })
	defer quiet.stop()
	sink := newSink(run, r, files, quiet, func(events []api.ReportEvent) error { return r.report(leased, api.Report{Events: events}) })
	sink.hold = hold{patience: w.Patience, suspend: func() { endRun(executor.ErrSuspended) }}
	defer sink.close()
	defer onStop(func() { endRun(sink.stop()) })()
	if l.Task.Usage != nil { // by an attempt before, perhaps more than there is
		if sink.tellUse(run); run.Err() != nil {
			return outcome(run, l.Task, "", run.Err())
		}
	}
	flushing, stopFlushing := context.WithCancel(leased)
	var flush sync.WaitGroup
	flush.Go(func() { sink.flush(flushing) })
	flush.Go(func() { sink.spend(flushing) })
	output, err := execute(run, exec, executor.Job{Task: l.Task, Agent: agent, Resume: resumed(l), Handover: w.handover(sink)}, sink)
	if len(output) > maxOutput {
		files.replace(outputFile, output)
	}
	files.deliver(leased, func(name string, err error) {
		log.WarnContext(run, "what is more than a history holds is lost", "artifact", name, "error", err)
		sink.Note("the artifact "+name+" could not be kept", nil)
	})
	stopFlushing()
	flush.Wait()
	sink.settle(leased)

	var failure *executor.Failure
	var crash *panicked
	switch {
	case errors.As(err, &crash):
		log.ErrorContext(run, "executor panicked", "value", crash.value, "stack", string(crash.stack))
	case err != nil && run.Err() == nil && !errors.As(err, &failure):
		log.ErrorContext(run, "executor failed", "error", err)
	}
	last := outcome(run, l.Task, output, err)
	if errors.Is(context.Cause(run), executor.ErrSuspended) && crash == nil {
		// Whatever the agent made of being stopped.
		last = api.Report{Release: true, Resume: sink.suspension()}
	}
	last.Events = sink.rest()
	return last
}

// resumed is what an attempt goes on from, or nil.
func resumed(l api.Lease) *executor.Resume {
	if l.Resume == nil {
		return nil
	}
	return &executor.Resume{State: l.Resume.State, Outcomes: l.Resume.Outcomes}
}

// executorFor finds what runs the task: the worker's own definition of the agent
// goes before the server's.
func (w *Worker) executorFor(l api.Lease) (executor.Executor, api.Agent, error) {
	agent, own := w.Definitions[l.Task.AgentID]
	switch {
	case own:
	case l.Agent != nil:
		agent = *l.Agent
	default:
		return nil, agent, &executor.Failure{Message: fmt.Sprintf("the server knows no agent %s any more", l.Task.AgentID)}
	}
	exec, err := w.Executors.For(agent)
	if err != nil {
		return nil, agent, &executor.Failure{Message: err.Error()}
	}
	return exec, agent, nil
}

// panicked is an executor's panic.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("the executor crashed: %v", p.value) }

// execute runs the executor. Its panic is an error of this attempt only.
func execute(ctx context.Context, exec executor.Executor, job executor.Job, s executor.Sink) (output string, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, debug.Stack()}
		}
	}()
	return exec.Run(ctx, job, s)
}

// outcome returns the last report of an attempt that ended with err.
func outcome(run context.Context, t api.Task, output string, err error) api.Report {
	var failure *executor.Failure
	var crash *panicked
	switch {
	case err == nil:
		output = bounded(output, maxOutput)
		return api.Report{Status: api.TaskCompleted, Output: &output}
	case errors.As(err, &failure):
		return api.Report{Status: api.TaskFailed, Error: bounded(failure.Message, maxError), Reason: failure.Reason, Retryable: failure.Retryable}
	case errors.As(err, &crash):
		return api.Report{Status: api.TaskFailed, Error: bounded(crash.Error(), maxError)}
	case errors.Is(context.Cause(run), errStopped):
		return api.Report{Release: true, Message: errStopped.Error()}
	case errors.Is(context.Cause(run), errTimedOut):
		return api.Report{Status: api.TaskFailed, Error: fmt.Sprintf("timed out after %d s", t.TimeoutSeconds), Reason: "timeout", Retryable: true}
	case errors.Is(context.Cause(run), errSilent):
		return api.Report{Status: api.TaskFailed, Error: fmt.Sprintf("said nothing for %d s", t.SilenceSeconds), Reason: "silent", Retryable: true}
	}
	return api.Report{Status: api.TaskFailed, Error: "internal error of the worker; its log tells more", Retryable: true}
}

// ended names what a last report makes of the attempt.
func ended(r api.Report) string {
	switch {
	case r.Resume != nil:
		return "suspended"
	case r.Release:
		return "released"
	}
	return string(r.Status)
}
