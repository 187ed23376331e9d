package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/coderclaw/runtime/api"
)

// reporter tells the server of one attempt. One goroutine at a time uses it.
type reporter struct {
	server Server
	lease  *lease
	log    *slog.Logger
}

// report sends r until it arrives. It gives up when the server refuses it, when
// ctx, which ends with the lease, is over, and when an unreachable server must
// have taken the lease away.
func (r reporter) report(ctx context.Context, report api.Report) error {
	began := time.Now()
	for retry := (backoff{longest: urgentPause}); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := r.once(ctx, report)
		switch {
		case err == nil, r.refused(ctx, report, err):
			return err
		case time.Since(began) > r.lease.length:
			return err
		case ctx.Err() == nil:
			r.log.WarnContext(ctx, "worker cannot report, trying again", "error", err)
			retry.wait(ctx)
		}
	}
}

// refused reports whether err is the server's last word on a report, and draws
// the consequences.
func (r reporter) refused(ctx context.Context, report api.Report, err error) bool {
	switch {
	case errors.Is(err, ErrLeaseLost):
		r.lease.end(ErrLeaseLost)
		return true
	case errors.Is(err, ErrRefused):
		r.log.WarnContext(ctx, "the server refuses a report", "status", report.Status, "events", len(report.Events), "error", err)
		return true
	}
	return false
}

// putPatience is how long it is tried to keep an artifact while the server
// cannot.
const putPatience = 2 * time.Minute

// put keeps an artifact of the task. It gives up when the server refuses it,
// when ctx is over, and after putPatience.
func (r reporter) put(ctx context.Context, name, contentType string, content io.ReadSeeker) error {
	began := time.Now()
	for retry := (backoff{longest: longestPause}); ; {
		if _, err := content.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read %s again: %w", name, err)
		}
		err := r.server.PutArtifact(ctx, r.lease.taskID, r.lease.token, name, contentType, content)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrLeaseLost):
			r.lease.end(ErrLeaseLost)
			return ErrLeaseLost
		case errors.Is(err, ErrRefused), errors.Is(err, ErrUnknown), time.Since(began) > putPatience:
			return err
		}
		r.log.WarnContext(ctx, "worker cannot put an artifact, trying again", "artifact", name, "error", err)
		retry.wait(ctx)
	}
}

func (r reporter) once(ctx context.Context, report api.Report) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.server.Report(ctx, r.lease.taskID, r.lease.token, report)
}

// explain deals with a last report that did not get through for err.
func (r reporter) explain(ctx context.Context, last api.Report, err error) {
	if errors.Is(err, ErrRefused) && last.Resume != nil {
		// It is done once more from the beginning.
		if err = r.report(ctx, api.Report{Release: true, Message: "the server refused to have it wait without a worker"}); err == nil {
			return
		}
	}
	if errors.Is(err, ErrRefused) && !last.Release {
		// Without a last word the task would be offered to worker after worker.
		err = r.report(ctx, api.Report{Status: api.TaskFailed, Error: "the server refused the attempt's result"})
		if err == nil {
			return
		}
	}
	if errors.Is(err, ErrLeaseLost) {
		r.log.InfoContext(ctx, "attempt stopped: its agent has ended the task, or it was cancelled, or is another worker's by now")
		return
	}
	r.log.WarnContext(ctx, "attempt given up, the server will offer the task again", "reason", err)
}
