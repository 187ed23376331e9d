package clawctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coderclaw/runtime/api"
)

var statuses = []string{"pending", "planning", "running", "waiting", "completed", "failed", "cancelled"}

func (c *cli) tasksCommand() *cobra.Command {
	return group("tasks", "See, watch and cancel tasks",
		c.tasksListCommand(), c.tasksGetCommand(), c.tasksWatchCommand(), c.tasksCancelCommand(), c.tasksEventsCommand(), c.tasksTreeCommand(), c.tasksAttemptsCommand())
}

// filterFlags choose tasks.
type filterFlags struct {
	filter   api.TaskFilter
	statuses []string
	labels   []string
	since    string
}

func (f *filterFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.statuses, "status", nil, "any of these `statuses`: "+strings.Join(statuses, ", "))
	flags.StringVar(&f.filter.AgentID, "agent", "", "tasks of this agent `id`")
	flags.StringVar(&f.filter.SessionID, "session", "", "tasks of this session `id`")
	flags.StringVar(&f.filter.ProjectID, "project", "", "tasks of this project `id`")
	flags.StringVar(&f.filter.ParentTaskID, "parent", "", "parts of this task `id`")
	flags.StringVar(&f.filter.ScheduleID, "schedule", "", "runs of this schedule `id`")
	flags.StringArrayVar(&f.labels, "label", nil, "tasks with this label, `key=value`; repeat it to ask for several at once")
	flags.StringVar(&f.since, "since", "", "tasks submitted after a `time` (2026-01-31T18:00:00Z) or within a duration (24h)")
	flags.StringVarP(&f.filter.Query, "query", "q", "", "tasks whose description holds this `text`")
	completeFlag(cmd, "status", statuses...)
}

// given reports whether the command line holds one of the flags.
func (f *filterFlags) given(cmd *cobra.Command) (found bool) {
	own := cmd.LocalNonPersistentFlags()
	cmd.Flags().Visit(func(flag *pflag.Flag) { found = found || own.Lookup(flag.Name) != nil })
	return found
}

func (f *filterFlags) parse(c *cli) (filter api.TaskFilter, err error) {
	filter = f.filter
	for _, s := range f.statuses {
		if !slices.Contains(statuses, s) {
			return filter, usagef("--status %q: want %s", s, strings.Join(statuses, ", "))
		}
		filter.Status = append(filter.Status, api.TaskStatus(s))
	}
	if filter.Labels, err = parseLabels(f.labels); err != nil {
		return filter, err
	}
	if f.since != "" {
		if filter.CreatedAfter, err = c.parseTime(f.since, -1); err != nil {
			return filter, usagef("--since: %v", err)
		}
	}
	return filter, nil
}

func (c *cli) tasksListCommand() *cobra.Command {
	var f filterFlags
	var limit limit
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tasks, newest first",
		Example: `  clawctl tasks list --status running,waiting
  clawctl tasks list --agent code-reviewer --label team=platform --since 24h --limit 0`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := f.parse(c)
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			filter.Limit = limit.page()
			tasks, more, err := take(client.AllTasks(cmd.Context(), filter), limit)
			if err != nil {
				return err
			}
			err = c.print(api.TaskList{Items: tasks}, func() { c.taskTable(tasks) })
			c.tellMore(more)
			return err
		},
	}
	f.register(cmd)
	limit.register(cmd, "tasks")
	return cmd
}

func (c *cli) taskTable(tasks []api.Task) {
	if len(tasks) == 0 {
		c.err.printf("No tasks.\n")
		return
	}
	t := &table{
		heads:  []string{"ID", "STATUS", "PROGRESS", "AGENT", "AGE", "DESCRIPTION"},
		styles: map[int]func(string) style{1: func(cell string) style { return statusStyle(api.TaskStatus(cell)) }},
	}
	for _, task := range tasks {
		t.row(task.ID, string(task.Status), strconv.Itoa(task.Progress)+"%", task.AgentID, span(c.now().Sub(task.CreatedAt)), task.Description)
	}
	c.out.table(t)
}

func statusStyle(s api.TaskStatus) style {
	switch s {
	case api.TaskCompleted:
		return green
	case api.TaskFailed:
		return red
	case api.TaskWaiting:
		return yellow
	case api.TaskPlanning, api.TaskRunning:
		return cyan
	}
	return dim
}

func (c *cli) tasksGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get ID",
		Short: "Show one task",
		Args:  exactly("the id of the task"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			task, err := client.Task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(task, func() { c.taskDetails(task) })
		},
	}
}

func (c *cli) taskDetails(t api.Task) {
	status := string(t.Status)
	if t.WaitingReason != "" {
		status += " (" + string(t.WaitingReason) + ")"
	}
	if t.StatusReason != "" {
		status += ", " + t.StatusReason
	}
	if p := t.Pending; p != nil {
		status += ", " + pendingText(*p)
	}
	if !t.Status.Terminal() {
		status += fmt.Sprintf(", %d%%", t.Progress)
	}
	pairs := [][2]string{
		{"Task", t.ID}, {"Description", t.Description}, {"Status", status}, {"Agent", t.AgentID}, {"Skill", t.SkillID},
		{"Model", t.Model}, {"Thinking", string(t.Thinking)}, {"Session", t.SessionID}, {"Project", t.ProjectID}, {"Submitted by", t.UserID},
		{"Parent", t.ParentTaskID}, {"Retry of", t.RetryOf}, {"Retried by", t.RetriedBy}, {"Depends on", strings.Join(t.DependsOn, ", ")}, {"Labels", labelText(t.Labels)}, {"Requires", labelText(t.Requires)}, {"Metadata", string(t.Metadata)},
		{"Budget", mostText(t.Budget)}, {"Used", usageText(t.Usage)},
	}
	if t.Dispatch == api.DispatchManual {
		pairs = append(pairs, [2]string{"Dispatch", string(t.Dispatch)})
	}
	if t.Priority != 0 {
		pairs = append(pairs, [2]string{"Priority", strconv.Itoa(t.Priority)})
	}
	if t.MaxAttempts > 1 {
		pairs = append(pairs, [2]string{"Attempt", fmt.Sprintf("%d of %d", t.Attempt, t.MaxAttempts)})
	}
	pairs = append(pairs, [2]string{"Submitted", c.moment(t.CreatedAt)})
	for _, at := range []struct {
		name string
		time *time.Time
	}{{"Not before", t.RunAfter}, {"Started", t.StartedAt}, {"Ended", t.CompletedAt}} {
		if at.time != nil {
			pairs = append(pairs, [2]string{at.name, c.moment(*at.time)})
		}
	}
	c.details(pairs)
	if t.Input != t.Description {
		c.block("Input", t.Input)
	}
	c.block("Output", t.Output)
	c.block("Error", t.Error)
}

// block prints a text of several lines under a heading.
func (c *cli) block(heading, text string) {
	if text == "" {
		return
	}
	c.out.printf("\n%s\n%s\n", c.out.style(bold, heading+":"), strings.TrimRight(cleanText(text), "\n"))
}

func (c *cli) tasksAttemptsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "attempts ID",
		Short: "Show who tried a task, and what came of it",
		Args:  exactly("the id of the task"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			attempts, err := client.Attempts(ctx, args[0])
			if err != nil {
				return err
			}
			return c.print(api.AttemptList{Items: attempts}, func() {
				t := &table{heads: []string{"ATTEMPT", "WORKER", "STARTED", "ENDED", "OUTCOME", "REASON"}}
				for _, a := range attempts {
					ended := ""
					if a.EndedAt != nil {
						ended = a.EndedAt.In(c.zone).Format(time.DateTime)
					}
					t.row(strconv.Itoa(a.Attempt), a.WorkerID, a.StartedAt.In(c.zone).Format(time.DateTime), ended, a.Outcome, a.Reason)
				}
				c.out.table(t)
			})
		}),
	}
}

func (c *cli) tasksEventsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "events ID",
		Short: "Show the history of a task",
		Args:  exactly("the id of the task"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			list := api.EventList{Items: []api.Event{}}
			for ev, err := range client.TaskEvents(cmd.Context(), args[0]) {
				if err != nil {
					return err
				}
				list.Items = append(list.Items, ev)
			}
			return c.print(list, func() {
				t := &table{heads: []string{"SEQ", "TIME", "TYPE", "STATUS", "PROGRESS", "MESSAGE"},
					styles: map[int]func(string) style{3: func(cell string) style { return statusStyle(api.TaskStatus(cell)) }}}
				for _, ev := range list.Items {
					t.row(strconv.FormatInt(ev.Seq, 10), ev.Timestamp.In(c.zone).Format(time.DateTime), string(ev.Type), string(ev.Status), percent(ev.Progress), ev.Message)
				}
				c.out.table(t)
			})
		},
	}
}

func percent(p *int) string {
	if p == nil {
		return ""
	}
	return strconv.Itoa(*p) + "%"
}

func labelText(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, key+"="+labels[key])
	}
	return strings.Join(list, ", ")
}

// pendingText says why a task does not run.
func pendingText(p api.PendingReason) string {
	switch p.Reason {
	case "dependency":
		return "waits for tasks that it depends on"
	case "not-before":
		return "its time has not come"
	case "budget":
		return "the budget of " + p.Limit + " is used up"
	case "limit":
		return "the limit " + p.Limit + " is reached"
	case "rate":
		return "as many tasks of its agent were begun as may be for now"
	case "paused":
		if p.Pause != nil {
			return strings.TrimSuffix(fmt.Sprintf("%s %s is paused by %s: %s", p.Pause.Kind, p.Pause.Name, p.Pause.PausedBy, p.Pause.Reason), ": ")
		}
	case "no-worker":
		return "no worker is there that could run it"
	}
	if p.Ahead == 0 {
		return "next in turn"
	}
	return fmt.Sprintf("behind %d others", p.Ahead)
}
