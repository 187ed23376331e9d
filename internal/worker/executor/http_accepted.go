package executor

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/coderclaw/runtime/api"
)

// withdrawTimeout bounds how long an agent may take to hear that nobody waits
// for it any more.
const withdrawTimeout = 5 * time.Second

// errReported ends the run of an agent whose attempt is over without us.
var errReported = errors.New("the attempt is over by what the server was told")

// accepted waits for an agent that reports by itself. If the attempt ends in any
// other way the agent is told so at the URL that it has named in its answer.
func accepted(ctx context.Context, client *http.Client, res *http.Response, h *Handover, sink Sink, heard func()) error {
	_ = res.Body.Close() // what it says besides is of no matter
	task, foreign := locationOf(res)
	note := "the agent has accepted the task, and reports by itself"
	if foreign {
		note += "; it will not be told if nobody waits for it any more, for its Location is another server's"
	}
	sink.Note(note, nil)
	st, err := h.Wait(ctx, heard)
	if task != nil && (err != nil || !endedByAgent(st)) {
		withdraw(ctx, client, task, res.Request.Header.Get("Authorization"))
	}
	if err != nil {
		return err
	}
	return errReported
}

// locationOf is where the agent wants to hear that nobody waits for it any more;
// nil: nowhere. It must be of the same origin (RFC 6454, section 4): whatever
// else the agent names it has no right to have us call.
func locationOf(res *http.Response) (at *url.URL, foreign bool) {
	if res.Header.Get("Location") == "" {
		return nil, false
	}
	to := res.Request.URL
	at, err := res.Location()
	if err != nil || at.Scheme != to.Scheme || at.Host != to.Host || at.User != nil {
		return nil, true
	}
	return at, false
}

// endedByAgent reports whether a task whose attempt is over stands as its agent
// can have reported it, and nobody else.
func endedByAgent(st api.LeaseState) bool {
	switch st.Status {
	case api.TaskCompleted:
		return true
	case api.TaskFailed:
		return st.StatusReason != "deadline" && st.StatusReason != "worker-lost"
	}
	return st.WaitingReason == "retry"
}

// withdraw tells the agent that nobody waits for it any more. If it does not
// hear it its reports are refused anyway.
func withdraw(ctx context.Context, client *http.Client, task *url.URL, authorization string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, task.String(), nil)
	if err != nil {
		return
	}
	req.Header.Set("User-Agent", "coderclaw")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	if res, err := client.Do(req); err == nil {
		_ = res.Body.Close()
	}
}
