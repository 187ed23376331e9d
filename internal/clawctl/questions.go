package clawctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) approvalsCommand() *cobra.Command {
	var f api.QuestionFilter
	kind := choice{of: []string{"input", "approval"}}
	states := []string{"open", "answered", "approved", "denied", "expired", "withdrawn"}
	var status []string
	var limit limit
	cmd := &cobra.Command{
		Use:   "approvals",
		Short: "List what agents ask of people",
		Long:  "List the questions and the requests for approval of agents, newest first: those that are open, or that the flags choose.",
		Args:  none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			f.Kind, f.Limit = api.QuestionKind(kind.value), limit.page()
			for _, s := range status {
				if !slices.Contains(states, s) {
					return usagef("--status %q: want %s", s, strings.Join(states, ", "))
				}
				f.Status = append(f.Status, api.QuestionStatus(s))
			}
			all, more, err := take(client.Questions(ctx, f), limit)
			if err != nil {
				return err
			}
			err = c.print(api.QuestionList{Items: all}, func() { c.questionTable(all) })
			c.tellMore(more)
			return err
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.TaskID, "task", "", "those of this task `id`")
	flags.Var(&kind, "kind", "input or approval")
	flags.StringSliceVar(&status, "status", nil, "any of these `statuses`: "+strings.Join(states, ", ")+" (default open)")
	completeFlag(cmd, "kind", kind.of...)
	completeFlag(cmd, "status", states...)
	limit.register(cmd, "questions")
	return cmd
}

func (c *cli) questionTable(all []api.Question) {
	if len(all) == 0 {
		c.err.printf("Nobody asks.\n")
		return
	}
	t := &table{heads: []string{"ID", "TASK", "KIND", "RISK", "STATUS", "QUESTION"}}
	for _, q := range all {
		status := string(q.Status)
		if q.Status == api.QuestionOpen {
			status = "expires in " + span(q.ExpiresAt.Sub(c.now()))
		} else if q.AnsweredBy != "" {
			status += " by " + q.AnsweredBy
		}
		t.row(q.ID, q.TaskID, string(q.Kind), string(q.Risk), status, asked(q))
	}
	c.out.table(t)
}

// asked is a question in a line.
func asked(q api.Question) string {
	text := q.Text
	if q.Tool != nil {
		text += " [" + q.Tool.Name + "]"
	}
	if len(q.Choices) == 0 {
		return text
	}
	ids := make([]string, len(q.Choices))
	for i, choice := range q.Choices {
		ids[i] = choice.ID
	}
	return text + ": " + strings.Join(ids, " ")
}

type answerFlags struct {
	approve, deny        bool
	reason, choice, data string
	raiseBy              string
	remember             choice
}

func (c *cli) answerCommand() *cobra.Command {
	f := answerFlags{remember: choice{of: []string{"task", "session", "project"}}}
	cmd := &cobra.Command{
		Use:   "answer TASK|QUESTION [TEXT]",
		Short: "Answer what an agent asks, approve it or deny it",
		Long:  "Answer a question by its id, or the one open question of a task by the task's.",
		Example: `  clawctl answer 0190b8a1-0000-7000-8000-000000000000 "the staging database"
  clawctl answer 0190b8a1-0000-7000-8000-000000000000 --approve --reason "reviewed by ops"
  clawctl answer 0190b8a1-0000-7000-8000-000000000000 --approve --raise-by 0.50
  clawctl answer 0190b8a1-0000-7000-8000-000000000000 --data form.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return usagef("this takes the id of a task or a question and an answer in quotes; there are %d arguments", len(args))
			}
			return nil
		},
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			a, err := c.answer(&f, args[1:])
			if err != nil {
				return err
			}
			q, err := client.AnswerQuestion(ctx, args[0], a)
			var refused *api.Error
			if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
				task, err := client.AnswerTask(ctx, args[0], a)
				if err != nil {
					return err
				}
				return c.print(task, func() { c.out.printf("%s is %s\n", cleanLine(task.ID), cleanLine(string(task.Status))) })
			}
			if err != nil {
				return err
			}
			return c.print(q, func() { c.out.printf("%s %s\n", cleanLine(q.ID), cleanLine(string(q.Status))) })
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.approve, "approve", false, "let the agent do it")
	flags.BoolVar(&f.deny, "deny", false, "do not let the agent do it")
	flags.StringVar(&f.reason, "reason", "", "why, a `text` for the record and the agent")
	flags.StringVar(&f.choice, "choice", "", "the `id` of one of the choices")
	flags.Var(&f.remember, "remember", "with --approve: also the very same request later, in this task, session or project")
	completeFlag(cmd, "remember", f.remember.of...)
	flags.StringVar(&f.raiseBy, "raise-by", "", "with --approve: how much more of the budget may be used, a `figure` such as 200000 or, of money, 1.50 (default: as much as the budget has)")
	flags.StringVar(&f.data, "data", "", "a `file` with the JSON object that a form asks for; - is standard input")
	return cmd
}

func (c *cli) answer(f *answerFlags, text []string) (a api.Answer, err error) {
	a = api.Answer{Input: strings.Join(append(text, f.choice), ""), Reason: f.reason}
	switch {
	case f.approve && f.deny:
		return a, usagef("--approve and --deny exclude each other")
	case len(text) > 0 && f.choice != "":
		return a, usagef("a text and --choice exclude each other")
	case f.approve || f.deny:
		if a.Input != "" || f.data != "" {
			return a, usagef("an approval takes no text, choice or data; --reason says why")
		}
		a.Approve, a.Remember, a.RaiseBy = &f.approve, api.GrantScope(f.remember.value), f.raiseBy
	case a.Input == "" && f.data == "":
		return a, usagef("say what the answer is: a text, --choice, --data, --approve or --deny")
	}
	if f.remember.value != "" && !f.approve {
		return a, usagef("--remember goes with --approve")
	}
	if f.raiseBy != "" && !f.approve {
		return a, usagef("--raise-by goes with --approve")
	}
	if f.data != "" {
		if a.Data, err = c.readObject(f.data); err != nil {
			return a, err
		}
	}
	return a, nil
}

// readObject reads a JSON object from a file; - is standard input.
func (c *cli) readObject(file string) (json.RawMessage, error) {
	text, err := c.readText(file)
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil || object == nil {
		return nil, fmt.Errorf("%s does not hold a JSON object", file)
	}
	return json.RawMessage(text), nil
}
