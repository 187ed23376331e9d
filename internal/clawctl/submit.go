package clawctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

// maxInput bounds what is read as a task's input. The server takes less, and
// says how much.
const maxInput = 1 << 20

type submitFlags struct {
	task      api.NewTask
	input     string
	inputFile string
	thinking  choice
	budget    budgetFlags
	labels    []string
	requires  []string
	metadata  string
	timeout   time.Duration
	runAfter  string
	expires   string
	deadline  string
	silence   time.Duration
	manual    bool
	key       string
	watch     bool
}

func (c *cli) submitCommand() *cobra.Command {
	f := newSubmitFlags()
	cmd := &cobra.Command{
		Use:   "submit [DESCRIPTION]",
		Short: "Submit a task",
		Long: `Submit a task and print its id, or, with --watch, follow it and print its output.

Without an input the agent is given the description; without a description the
first line of the input stands for it.`,
		Example: `  clawctl submit "Analyze project architecture" --agent architecture-advisor --watch
  git diff main | clawctl submit "Review this change" --agent code-reviewer --input-file - --watch > review.md
  clawctl submit "Nightly report" --run-after 8h --label team=platform --max-attempts 3
  id=$(clawctl submit "Deploy" --manual)`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("a task has one description: put it in quotes")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.submit(cmd, args, f, (*api.Client).SubmitTask)
		},
	}
	f.registerOnce(cmd)
	return cmd
}

func (c *cli) skillsExecuteCommand() *cobra.Command {
	f := newSubmitFlags()
	cmd := &cobra.Command{
		Use:   "execute ID [DESCRIPTION]",
		Short: "Submit a task that uses a skill",
		Long: `Submit a task that uses a skill and print its id, or, with --watch, follow it and
print its output. It takes the permission skill:execute instead of task:submit.`,
		Example: `  clawctl skills execute run-tests "Run the tests of the billing module" --watch`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("this takes the id of a skill and a description, which you put in quotes")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.submit(cmd, args[1:], f, func(client *api.Client, ctx context.Context, t api.NewTask, opts ...api.SubmitOption) (api.Task, error) {
				return client.ExecuteSkill(ctx, args[0], t, opts...)
			})
		},
	}
	f.registerOnce(cmd)
	return cmd
}

// registerOnce adds the flags of a task that is submitted once.
func (f *submitFlags) registerOnce(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.register(cmd)
	flags.StringVar(&f.task.ParentTaskID, "parent", "", "`id` of the task that this one is a part of")
	flags.StringSliceVar(&f.task.DependsOn, "depends-on", nil, "`ids` of tasks that must complete first; repeat it or separate by commas")
	flags.StringVar(&f.runAfter, "run-after", "", "not before then: a `time` (2026-01-31T18:00:00Z) or a duration from now (8h)")
	flags.StringVar(&f.key, "idempotency-key", "", "a `key` of your own: submits once, however often it is given")
	flags.BoolVarP(&f.watch, "watch", "w", false, "follow the task to its end, then print its output")
}

func newSubmitFlags() *submitFlags {
	return &submitFlags{budget: newBudgetFlags(), thinking: choice{of: []string{"off", "minimal", "low", "medium", "high"}}}
}

// register adds the flags that say what a task is.
func (f *submitFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.task.AgentID, "agent", "", "`id` of the agent that is to run it (default general-purpose)")
	flags.StringVar(&f.input, "input", "", "`text` that the agent is given: a prompt, a document, a diff")
	flags.StringVar(&f.inputFile, "input-file", "", "a `file` that holds the input; - is standard input")
	flags.StringVar(&f.task.SkillID, "skill", "", "`id` of a skill that the agent is asked to use")
	flags.StringVar(&f.task.Model, "model", "", "`name` of the model to use, where the agent has a choice")
	flags.Var(&f.thinking, "thinking", "how much the model may reason: "+strings.Join(f.thinking.of, ", "))
	flags.StringVar(&f.task.SessionID, "session", "", "`id` of the session that the task belongs to")
	flags.StringVar(&f.task.ProjectID, "project", "", "`id` of the project that the task belongs to")
	flags.StringArrayVar(&f.labels, "label", nil, "a label, `key=value`; repeat it for more")
	flags.StringArrayVar(&f.requires, "requires", nil, "a label that the worker must have, `key=value`; repeat it for more")
	flags.StringVar(&f.metadata, "metadata", "", "a `JSON` object that agents may read")
	flags.IntVar(&f.task.Priority, "priority", 0, "`number` from -100 to 100; higher is run first")
	flags.StringVar(&f.task.ConcurrencyKey, "concurrency-key", "", "tasks of the project with this `key` do not run at once")
	flags.IntVar(&f.task.ConcurrencyLimit, "concurrency-limit", 0, "`number` of tasks with the key that may run at once (default 1)")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long one attempt may take, for example 30m (default no limit)")
	flags.IntVar(&f.task.MaxAttempts, "max-attempts", 0, "`number` of times it may be tried (default 1)")
	flags.StringVar(&f.expires, "expires", "", "fail if nothing has begun by then: a `time` or a duration from now")
	flags.StringVar(&f.deadline, "deadline", "", "fail if it has not ended by then: a `time` or a duration from now")
	flags.DurationVar(&f.silence, "silence", 0, "how long the agent may say nothing (default any time)")
	flags.StringSliceVar(&f.task.RetryOn, "retry-on", nil, "the only `reasons` of failures that are tried again, such as exit:75 or timeout")
	f.budget.register(flags)
	flags.BoolVar(&f.manual, "manual", false, "nobody runs it: the submitter reports on it")
	completeFlag(cmd, "thinking", f.thinking.of...)
	completeFlag(cmd, "on-exceeded", f.budget.then.of...)
}

// submit submits what the flags say by the call, and tells of it.
func (c *cli) submit(cmd *cobra.Command, args []string, f *submitFlags, call func(*api.Client, context.Context, api.NewTask, ...api.SubmitOption) (api.Task, error)) error {
	if err := c.complete(&f.task, args, f); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	var opts []api.SubmitOption
	if f.key != "" {
		opts = append(opts, api.WithIdempotencyKey(f.key))
	}
	task, err := call(client, cmd.Context(), f.task, opts...)
	if err != nil {
		return err
	}
	return c.submitted(cmd.Context(), client, task, f.watch)
}

// submitted tells of a task that was submitted or, with watch, follows it.
func (c *cli) submitted(ctx context.Context, client *api.Client, task api.Task, watch bool) error {
	if watch {
		if c.format.value == "table" {
			c.err.printf("%s\n", c.err.style(dim, "Submitted "+cleanLine(task.ID)))
		}
		return c.watch(ctx, client, task.ID, new(int64))
	}
	return c.print(task, func() {
		c.out.printf("%s\n", cleanLine(task.ID))
		if c.err.tty && c.out.tty {
			c.err.printf("%s\n", c.err.style(dim, "Watch it: clawctl tasks watch "+cleanLine(task.ID)))
		}
	})
}

// complete fills in what flags say in their own way.
func (c *cli) complete(t *api.NewTask, args []string, f *submitFlags) (err error) {
	if t.Input, err = c.readInput(f); err != nil {
		return err
	}
	if len(args) == 1 {
		t.Description = strings.TrimSpace(args[0])
	} else {
		first, _, _ := strings.Cut(strings.TrimSpace(t.Input), "\n")
		t.Description = fit(cleanLine(first), 200)
	}
	if t.Description == "" {
		return usagef("a task needs a description, or an input to take it from")
	}
	if t.Input == "" {
		t.Input = t.Description
	}
	t.Thinking = api.Thinking(f.thinking.value)
	if t.Budget, err = f.budget.budget(); err != nil {
		return err
	}
	if t.Requires, err = parseLabels(f.requires); err != nil {
		return err
	}
	if t.Labels, err = parseLabels(f.labels); err != nil {
		return err
	}
	if f.metadata != "" {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(f.metadata), &object); err != nil || object == nil {
			return usagef("--metadata must be a JSON object")
		}
		t.Metadata = json.RawMessage(f.metadata)
	}
	switch {
	case f.timeout < 0:
		return usagef("--timeout must not be negative")
	case f.silence < 0:
		return usagef("--silence must not be negative")
	}
	t.TimeoutSeconds, t.SilenceSeconds = int(math.Ceil(f.timeout.Seconds())), int(math.Ceil(f.silence.Seconds()))
	for _, at := range []struct {
		flag, text string
		to         **time.Time
	}{{"run-after", f.runAfter, &t.RunAfter}, {"expires", f.expires, &t.ExpiresAt}, {"deadline", f.deadline, &t.DeadlineAt}} {
		if at.text == "" {
			continue
		}
		parsed, err := c.parseTime(at.text, 1)
		if err != nil {
			return usagef("--%s: %v", at.flag, err)
		}
		*at.to = &parsed
	}
	if f.manual {
		t.Dispatch = api.DispatchManual
	}
	return nil
}

func (c *cli) readInput(f *submitFlags) (string, error) {
	if f.inputFile == "" {
		return f.input, nil
	}
	if f.input != "" {
		return "", usagef("--input and --input-file exclude each other")
	}
	in := c.stdin
	if f.inputFile != "-" {
		file, err := os.Open(f.inputFile)
		if err != nil {
			return "", fmt.Errorf("read input: %w", err)
		}
		defer file.Close()
		in = file
	}
	input, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read input: %w", err)
	case len(input) > maxInput:
		return "", fmt.Errorf("read input: there is more than %d KiB", maxInput>>10)
	case !utf8.Valid(input):
		return "", fmt.Errorf("read input: %s is not UTF-8 text", f.inputFile)
	}
	return string(input), nil
}

func parseLabels(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	labels := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("--label %q: want key=value", pair)
		}
		labels[key] = value
	}
	return labels, nil
}

// parseTime reads a time, or a duration that counts from now: forward with
// sign 1, back with -1.
func (c *cli) parseTime(text string, sign int) (time.Time, error) {
	if d, err := parseDuration(text); err == nil && d >= 0 {
		return c.now().Add(time.Duration(sign) * d).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a time like 2026-01-31T18:00:00Z nor a duration like 90m", text)
}
