package clawctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

// view shows what happens to a task while it happens.
type view interface {
	event(api.Event)
	// reconnecting says that the connection is lost and will be made again.
	reconnecting(error)
	// hold keeps the view from writing, for as long as the person is asked
	// something.
	hold(on bool)
	// close takes away what will be out of date.
	close()
}

func (c *cli) tasksWatchCommand() *cobra.Command {
	var f filterFlags
	cmd := &cobra.Command{
		Use:   "watch [ID]",
		Short: "Follow a task to its end, or all tasks",
		Long: `Follow a task to its end and print its output, or, without an id, tell what
happens to all tasks, or to those that the flags choose, until interrupted.

The exit code is 0 if the task completed, 1 if it failed or was cancelled.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("tasks watch takes one task, or none to watch all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.parse(c)
			if err != nil {
				return err
			}
			client, err := c.client()
			switch {
			case err != nil:
				return err
			case len(args) == 0:
				return c.watchAll(cmd.Context(), client, filter)
			case f.given(cmd):
				return usagef("flags choose among all tasks, but this is to watch one")
			}
			return c.watch(cmd.Context(), client, args[0], nil)
		},
	}
	f.register(cmd)
	return cmd
}

// watch shows the events of a task, its history too if they start after a given
// one, and at the end prints its output. It returns nil if the task completed.
func (c *cli) watch(ctx context.Context, client *api.Client, id string, after *int64) error {
	v := c.view()
	if in := c.terminalIn(); in != nil && c.format.value == "table" {
		v = newAsker(ctx, c, client, id, v, in)
	}
	task, err := c.follow(ctx, client, id, after, v)
	v.close()
	switch {
	case err != nil && ctx.Err() != nil:
		c.err.printf("Stopped watching; the task goes on. Watch it again, or cancel it:\n  clawctl tasks watch %s\n  clawctl tasks cancel %s\n", cleanLine(id), cleanLine(id))
		return exitError(exitInterrupted)
	case err != nil:
		return err
	}
	return c.result(task)
}

// follow shows the events of a task until it has ended, and returns it.
func (c *cli) follow(ctx context.Context, client *api.Client, id string, after *int64, v view) (api.Task, error) {
	for ev, err := range client.WatchTask(ctx, id, api.WatchOptions{After: after, Reconnecting: v.reconnecting}) {
		if err != nil {
			return api.Task{}, err
		}
		v.event(ev)
	}
	// The server may go away between the last event and this request.
	for {
		task, err := client.Task(ctx, id)
		var answer *api.Error
		if err == nil || ctx.Err() != nil || errors.As(err, &answer) && answer.Status < 500 {
			return task, err
		}
		v.reconnecting(err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// result prints what came of a task that has ended.
func (c *cli) result(task api.Task) error {
	if c.format.value != "table" {
		text, err := c.document(task, true)
		if err != nil {
			return err
		}
		c.out.printf("%s", text)
	} else {
		c.err.printf("%s\n", c.verdict(task))
		c.out.text(task.Output)
	}
	if task.Status != api.TaskCompleted {
		return exitError(exitFailed)
	}
	return nil
}

func (c *cli) verdict(task api.Task) string {
	ended := map[api.TaskStatus]string{api.TaskCompleted: "Completed", api.TaskFailed: "Failed", api.TaskCancelled: "Cancelled"}
	text := c.err.style(statusStyle(task.Status), ended[task.Status])
	if task.StartedAt != nil && task.CompletedAt != nil {
		text += " after " + exactSpan(task.CompletedAt.Sub(*task.StartedAt))
	}
	if task.Error != "" {
		text += ": " + strings.TrimSpace(cleanText(task.Error))
	}
	return text
}

func (c *cli) watchAll(ctx context.Context, client *api.Client, filter api.TaskFilter) error {
	var v view = &documents{cli: c}
	if c.format.value == "table" {
		v = &plainLines{cli: c, many: true}
		c.err.printf("Watching; Ctrl-C ends it.\n")
	}
	for ev, err := range client.Watch(ctx, filter, api.FeedOptions{Reconnecting: v.reconnecting}) {
		if err != nil {
			return err
		}
		v.event(ev.Event)
	}
	return nil
}

// view returns what suits the --output flag and the terminal.
func (c *cli) view() view {
	switch {
	case c.format.value != "table":
		return &documents{cli: c}
	case c.err.cursor:
		return newLiveLine(c)
	}
	return &plainLines{cli: c}
}

// documents prints each event as JSON on a line, or as a YAML document.
type documents struct{ cli *cli }

func (d *documents) event(ev api.Event) {
	text, err := d.cli.document(ev, true)
	if err != nil { // its data is not JSON, though it came in JSON
		text = err.Error() + "\n"
	}
	d.cli.out.printf("%s", text)
}

func (d *documents) reconnecting(err error) {
	d.cli.err.printf("Connection lost, reconnecting: %s\n", cleanLine(err.Error()))
}

func (d *documents) hold(bool) {}

func (d *documents) close() {}

// plainLines prints a line for each event, for logs and pipes.
type plainLines struct {
	cli  *cli
	many bool // name the task of each
}

func (p *plainLines) event(ev api.Event) {
	s := p.cli.err
	what := []string{p.cli.clock(ev.Timestamp)}
	if p.many {
		s = p.cli.out // it is what was asked for
		what = append(what, ev.TaskID)
	}
	switch ev.Type {
	case api.EventOutput: // comes at the end, as a whole
		return
	case api.EventReset:
		what = append(what, "what happened before is gone")
	case api.EventSnapshot, api.EventStatus, api.EventProgress:
		what = append(what, string(ev.Status), percent(ev.Progress), ev.Message)
	default:
		what = append(what, string(ev.Type), percent(ev.Progress), ev.Message)
	}
	s.printf("%s\n", cleanLine(strings.Join(what, " ")))
}

func (p *plainLines) reconnecting(err error) {
	p.cli.err.printf("%s connection lost, reconnecting: %s\n", p.cli.clock(p.cli.now()), cleanLine(err.Error()))
}

func (p *plainLines) hold(bool) {}

func (p *plainLines) close() {}

// waits says what a waiting task waits for, from the data of a snapshot.
func waits(snapshot json.RawMessage) string {
	var task api.Task
	if json.Unmarshal(snapshot, &task) != nil || task.WaitingReason == "" {
		return ""
	}
	return fmt.Sprintf("for %s", task.WaitingReason)
}
