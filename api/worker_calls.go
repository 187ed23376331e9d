package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// RegisterWorker announces a worker, or what has changed of one.
func (c *Client) RegisterWorker(ctx context.Context, r WorkerRegistration) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/workers", in: r})
}

// Workers returns all workers that were heard of within the last day.
func (c *Client) Workers(ctx context.Context) ([]Worker, error) {
	var out WorkerList
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/workers", out: &out})
	return out.Items, err
}

// DrainWorker has a worker take no more tasks.
func (c *Client) DrainWorker(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/workers/" + url.PathEscape(id)})
}

// Claim leases tasks to a worker, waiting up to r.WaitSeconds for the first, and
// makes the reports that it carries before. A claim whose answer is lost is not
// repeated: its leases run out.
func (c *Client) Claim(ctx context.Context, workerID string, r ClaimRequest) (ClaimAnswer, error) {
	var out ClaimAnswer
	err := c.do(ctx, call{
		method: http.MethodPost, path: "/v1/workers/" + url.PathEscape(workerID) + "/claim", in: r, out: &out,
		once: true, wait: time.Duration(r.WaitSeconds) * time.Second,
	})
	return out, cmp.Or(err, allAnswered(r.Reports, out.Reports))
}

// Heartbeat renews leases, and waits up to h.WaitSeconds for one to be lost.
func (c *Client) Heartbeat(ctx context.Context, workerID string, h Heartbeat) (HeartbeatAnswer, error) {
	var out HeartbeatAnswer
	return out, c.do(ctx, call{
		method: http.MethodPost, path: "/v1/workers/" + url.PathEscape(workerID) + "/heartbeat", in: h, out: &out,
		once: true, wait: time.Duration(h.WaitSeconds) * time.Second,
	})
}

// Report says what happened under a lease: all of r is kept, or nothing.
func (c *Client) Report(ctx context.Context, taskID, leaseToken string, r Report) error {
	h := http.Header{}
	WithLeaseToken(leaseToken)(h)
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/tasks/" + url.PathEscape(taskID) + "/reports", header: h, in: r, once: true})
}

// ReportAll makes several reports in one request, each of which is recorded or
// refused by itself; those about one task keep their order.
func (c *Client) ReportAll(ctx context.Context, reports []LeaseReport) ([]ReportAnswer, error) {
	var out LeaseReportsAnswer
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/tasks/reports", in: LeaseReports{reports}, out: &out, once: true})
	return out.Reports, cmp.Or(err, allAnswered(reports, out.Reports))
}

// allAnswered returns an error unless there is an answer to each report.
func allAnswered(reports []LeaseReport, answers []ReportAnswer) error {
	if len(answers) != len(reports) {
		return fmt.Errorf("the server answers %d of %d reports", len(answers), len(reports))
	}
	return nil
}
