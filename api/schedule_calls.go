package api

import (
	"context"
	"iter"
	"net/http"
)

// CreateSchedule makes a schedule. The options are those of a submission: with a
// key, another call returns the schedule that the first has made.
func (c *Client) CreateSchedule(ctx context.Context, n NewSchedule, opts ...SubmitOption) (Schedule, error) {
	var out Schedule
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/schedules", header: submitHeader(opts), in: n, out: &out})
}

// Schedules yields the schedules that the caller sees, newest first. It ends
// after an error.
func (c *Client) Schedules(ctx context.Context) iter.Seq2[Schedule, error] {
	return pages("", func(cursor string) ([]Schedule, string, error) {
		var out ScheduleList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/schedules", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// Schedule returns one schedule.
func (c *Client) Schedule(ctx context.Context, id string) (Schedule, error) {
	var out Schedule
	return out, c.get(ctx, "/v1/schedules", id, "", nil, &out)
}

// UpdateSchedule changes a schedule and returns it. Whoever changes more than
// whether it is paused takes it over: its tasks are then submitted by their
// rights.
func (c *Client) UpdateSchedule(ctx context.Context, id string, p SchedulePatch) (Schedule, error) {
	path, err := item("/v1/schedules", id, "")
	if err != nil {
		return Schedule{}, err
	}
	var out Schedule
	return out, c.do(ctx, call{method: http.MethodPatch, path: path, in: p, out: &out, once: true})
}

// DeleteSchedule removes a schedule. Tasks that it submitted go on.
func (c *Client) DeleteSchedule(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/schedules", id)
}

// TriggerSchedule submits the task of a schedule at once, in the caller's name,
// and returns it.
func (c *Client) TriggerSchedule(ctx context.Context, id string) (Task, error) {
	path, err := item("/v1/schedules", id, "/trigger")
	if err != nil {
		return Task{}, err
	}
	var out Task
	return out, c.do(ctx, call{method: http.MethodPost, path: path, out: &out, once: true})
}
