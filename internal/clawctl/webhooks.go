package clawctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

var taskStatuses = []string{"pending", "planning", "running", "waiting", "completed", "failed", "cancelled"}

func (c *cli) webhooksCommand() *cobra.Command {
	list := listing(c, "List webhooks, newest first", "webhooks",
		everyOne(c, (*api.Client).Webhooks), func(all []api.Webhook) any { return api.WebhookList{Items: all} },
		[]string{"ID", "TARGET", "PROJECT", "STATUSES", "STATE"},
		func(w api.Webhook) []string {
			return []string{w.ID, w.URL, webhookProject(w), webhookStatuses(w), c.webhookState(w)}
		})
	const what = "the id of a webhook"
	get := &cobra.Command{
		Use: "get ID", Short: "Show a webhook", Args: exactly(what),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			w, err := client.Webhook(ctx, args[0])
			if err != nil {
				return err
			}
			return c.print(w, func() { c.webhook(w) })
		}),
	}
	remove := c.each("delete ID...", "Delete webhooks with their deliveries", what, func(ctx context.Context, client *api.Client, id string) error {
		if err := client.DeleteWebhook(ctx, id); err != nil {
			return err
		}
		return c.print(revoked{id}, func() { c.out.printf("%s deleted\n", cleanLine(id)) })
	})
	test := c.each("test ID...", "Send webhooks a ping, and see what they answer", what, func(ctx context.Context, client *api.Client, id string) error {
		a, err := client.TestWebhook(ctx, id)
		if err != nil {
			return err
		}
		err = c.print(a, func() {
			if a.Delivered {
				c.out.printf("%s %s\n", cleanLine(id), cleanLine(attemptText(a)))
			}
		})
		if err == nil && !a.Delivered {
			err = fmt.Errorf("webhook %s: %s", id, attemptText(a))
		}
		return err
	})
	return group("webhooks", "Have others told of the status changes of tasks", list, get, c.webhooksCreateCommand(), c.webhooksUpdateCommand(),
		c.webhookEnabling("enable ID...", "Have webhooks sent what happens from now on, and what was queued before", true),
		c.webhookEnabling("disable ID...", "Have webhooks sent nothing", false),
		remove, c.webhooksRotateCommand(), test, c.webhooksDeliveriesCommand(), c.webhooksRetryCommand(), c.webhooksReplayCommand(), c.webhooksVerifyCommand())
}

func webhookProject(w api.Webhook) string {
	if w.AllProjects {
		return "all"
	}
	return w.ProjectID
}

func webhookStatuses(w api.Webhook) string {
	if len(w.Statuses) == 0 {
		return "all"
	}
	names := make([]string, len(w.Statuses))
	for i, s := range w.Statuses {
		names[i] = string(s)
	}
	return strings.Join(names, ",")
}

func (c *cli) webhookState(w api.Webhook) string {
	switch {
	case !w.Enabled && w.DisabledReason != "":
		return "disabled: " + w.DisabledReason
	case !w.Enabled:
		return "disabled"
	case w.FailingSince != nil:
		return "failing for " + span(c.now().Sub(*w.FailingSince))
	}
	return "enabled"
}

func (c *cli) webhook(w api.Webhook) {
	pairs := [][2]string{
		{"ID", w.ID}, {"Target", w.URL}, {"State", c.webhookState(w)}, {"Project", webhookProject(w)}, {"Statuses", webhookStatuses(w)},
		{"Agent", w.AgentID}, {"Labels", labelText(w.Labels)}, {"Description", w.Description}, {"By", w.UserID}, {"Created", c.moment(w.CreatedAt)},
	}
	if w.FormerSecretUntil != nil {
		pairs = append(pairs, [2]string{"Former secret", "signs until " + c.moment(*w.FormerSecretUntil)})
	}
	c.details(pairs)
}

// attemptText says in a line what came of an attempt.
func attemptText(a api.WebhookAttempt) string {
	took := exactSpan(time.Duration(a.DurationMillis) * time.Millisecond)
	if a.Delivered {
		return "delivered in " + took + ": " + strconv.Itoa(a.Status)
	}
	if a.Response != "" {
		return a.Error + ": " + a.Response
	}
	return a.Error
}

// webhookFlags are what a webhook is about.
type webhookFlags struct {
	description, agent string
	statuses, labels   []string
}

func (f *webhookFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.description, "description", "", "`text` for people")
	flags.StringSliceVar(&f.statuses, "status", nil, "only these `statuses`: "+strings.Join(taskStatuses, ", "))
	flags.StringVar(&f.agent, "agent", "", "only tasks of this agent `id`")
	flags.StringArrayVar(&f.labels, "label", nil, "only tasks with this label, `key=value`; repeat it to ask for several at once")
	completeFlag(cmd, "status", taskStatuses...)
}

func (f *webhookFlags) parse() (statuses []api.TaskStatus, labels map[string]string, err error) {
	for _, s := range f.statuses {
		statuses = append(statuses, api.TaskStatus(s))
	}
	labels, err = parseLabels(f.labels)
	return statuses, labels, err
}

func (c *cli) webhooksCreateCommand() *cobra.Command {
	var f webhookFlags
	var n api.NewWebhook
	cmd := &cobra.Command{
		Use:   "create URL",
		Short: "Have a URL sent the status changes of tasks, and show its secret this once",
		Long: `Have a URL sent the status changes of tasks from now on, and show the secret
that they are signed with this once.

They are those of your project, or of all if you are confined to none, in the
form that https://www.standardwebhooks.com describes.`,
		Example: "  clawctl webhooks create https://example.com/hooks/coderclaw --status completed,failed --label team=platform",
		Args:    exactly("the URL"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) (err error) {
			n.URL, n.Description, n.AgentID = args[0], f.description, f.agent
			if n.Statuses, n.Labels, err = f.parse(); err != nil {
				return err
			}
			w, err := client.CreateWebhook(ctx, n)
			if err != nil {
				return err
			}
			return c.print(w, func() {
				c.out.printf("%s\n", cleanLine(w.Secret))
				c.err.printf("This is the secret of webhook %s. It is not shown again.\n", cleanLine(w.ID))
			})
		}),
	}
	f.register(cmd)
	cmd.Flags().StringVar(&n.ProjectID, "project", "", "`id` of the project that it is about")
	cmd.Flags().BoolVar(&n.Disabled, "disabled", false, "do not send it anything yet")
	return cmd
}

func (c *cli) webhooksUpdateCommand() *cobra.Command {
	var f webhookFlags
	var target string
	cmd := &cobra.Command{
		Use:     "update ID",
		Short:   "Change where a webhook is, or what it is about",
		Example: `  clawctl webhooks update 0190b8a1-0000-7000-8000-000000000000 --status "" --target https://example.com/new`,
		Args:    exactly("the id of a webhook"),
		RunE: func(cmd *cobra.Command, args []string) error {
			statuses, labels, err := f.parse()
			if err != nil {
				return err
			}
			var p api.WebhookPatch
			given := cmd.Flags().Changed
			if given("target") {
				p.URL = &target
			}
			if given("description") {
				p.Description = &f.description
			}
			if given("agent") {
				p.AgentID = &f.agent
			}
			if given("status") {
				p.Statuses = new(append([]api.TaskStatus{}, statuses...))
			}
			if given("label") {
				if labels == nil { // null would change nothing
					labels = map[string]string{}
				}
				p.Labels = &labels
			}
			if p == (api.WebhookPatch{}) {
				return usagef("this needs what to change: --target, --description, --status, --agent or --label")
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			w, err := client.UpdateWebhook(cmd.Context(), args[0], p)
			if err != nil {
				return err
			}
			return c.print(w, func() { c.webhook(w) })
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&target, "target", "", "the `URL` that it is sent to")
	return cmd
}

func (c *cli) webhookEnabling(use, short string, enabled bool) *cobra.Command {
	return c.each(use, short, "the id of a webhook", func(ctx context.Context, client *api.Client, id string) error {
		w, err := client.UpdateWebhook(ctx, id, api.WebhookPatch{Enabled: &enabled})
		if err != nil {
			return err
		}
		return c.print(w, func() { c.out.printf("%s %s\n", cleanLine(w.ID), cleanLine(c.webhookState(w))) })
	})
}

func (c *cli) webhooksRotateCommand() *cobra.Command {
	keep := duration{24 * time.Hour}
	var drop bool
	cmd := &cobra.Command{
		Use: "rotate ID", Short: "Give a webhook another secret, and show it this once", Args: exactly("the id of a webhook"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			seconds := keep.seconds()
			if drop {
				seconds = 0
			}
			s, err := client.RotateWebhookSecret(ctx, args[0], api.RotateWebhookSecret{KeepFormerSeconds: &seconds})
			if err != nil {
				return err
			}
			return c.print(s, func() {
				c.out.printf("%s\n", cleanLine(s.Secret))
				if s.FormerUntil == nil {
					c.err.printf("It is not shown again. The former one is no good from now on.\n")
					return
				}
				c.err.printf("It is not shown again. The former one signs too until %s.\n", s.FormerUntil.In(c.zone).Format(time.RFC3339))
			})
		}),
	}
	cmd.Flags().Var(&keep, "keep", "how long the former secret signs too, at most 7d")
	cmd.Flags().BoolVar(&drop, "drop", false, "the former secret signs no more")
	cmd.MarkFlagsMutuallyExclusive("keep", "drop")
	return cmd
}

func (c *cli) webhooksDeliveriesCommand() *cobra.Command {
	status := choice{of: []string{"pending", "delivered", "dead"}}
	var l limit
	cmd := &cobra.Command{
		Use:     "deliveries ID",
		Short:   "List what a webhook is or was sent, newest first",
		Example: "  clawctl webhooks deliveries 0190b8a1-0000-7000-8000-000000000000 --status dead",
		Args:    exactly("the id of a webhook"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			all, more, err := take(client.WebhookDeliveries(ctx, args[0], api.DeliveryStatus(status.value)), l)
			if err != nil {
				return err
			}
			err = c.print(api.WebhookDeliveryList{Items: all}, func() {
				if len(all) == 0 {
					c.err.printf("No deliveries.\n")
					return
				}
				t := &table{heads: []string{"ID", "TYPE", "STATUS", "ATTEMPTS", "AGE", "NEXT", "LAST"}}
				for _, d := range all {
					var next, last string
					if d.NextAttemptAt != nil {
						next = "in " + span(d.NextAttemptAt.Sub(c.now()))
					}
					if d.LastAttempt != nil {
						last = attemptText(*d.LastAttempt)
					}
					t.row(d.ID, d.Type, string(d.Status), strconv.Itoa(d.Attempts), span(c.now().Sub(d.QueuedAt)), next, last)
				}
				c.out.table(t)
			})
			c.tellMore(more)
			return err
		}),
	}
	cmd.Flags().Var(&status, "status", "only these: "+strings.Join(status.of, ", "))
	completeFlag(cmd, "status", status.of...)
	l.register(cmd, "deliveries")
	return cmd
}

func (c *cli) webhooksRetryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "retry ID DELIVERY...",
		Short: "Try deliveries of a webhook again, at once",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("this needs the id of a webhook and those of its deliveries")
			}
			return nil
		},
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			for _, id := range args[1:] {
				d, err := client.RetryDelivery(ctx, args[0], id)
				if err != nil {
					return err
				}
				if err := c.print(d, func() { c.out.printf("%s %s\n", cleanLine(d.ID), cleanLine(string(d.Status))) }); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func (c *cli) webhooksReplayCommand() *cobra.Command {
	var since, until string
	cmd := &cobra.Command{
		Use:     "replay ID",
		Short:   "Send a webhook events of the past, with the ids that they had",
		Example: "  clawctl webhooks replay 0190b8a1-0000-7000-8000-000000000000 --since 2h",
		Args:    exactly("the id of a webhook"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			var r api.WebhookReplay
			if r.Since, err = c.parseTime(since, -1); err != nil {
				return usagef("--since: %v", err)
			}
			if until != "" {
				at, err := c.parseTime(until, -1)
				if err != nil {
					return usagef("--until: %v", err)
				}
				r.Until = &at
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			done, err := client.ReplayWebhook(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return c.print(done, func() {
				c.out.printf("%d queued\n", done.Queued)
				if done.Next != nil {
					c.err.printf("There are more: --since %s\n", done.Next.UTC().Format(time.RFC3339Nano))
				}
			})
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "from a `time` (2026-01-31T18:00:00Z) or a duration ago (2h) on")
	cmd.Flags().StringVar(&until, "until", "", "before a `time`, or longer than a duration ago")
	return cmd
}

// maxWebhookBody is far more than a webhook is ever sent.
const maxWebhookBody = 1 << 20

func (c *cli) webhooksVerifyCommand() *cobra.Command {
	var secretFile, id, at, signature string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the signature of what a webhook was sent, without a server",
		Long: `Check the signature of what a webhook was sent within the last five minutes.
The body comes from standard input, byte for byte; no server is asked.`,
		Example: `  clawctl webhooks verify --secret-file secret --id evt_… --timestamp 1764000000 --signature "v1,…" < body.json`,
		Args:    none,
		RunE: func(*cobra.Command, []string) error {
			if secretFile == "" || id == "" || at == "" || signature == "" {
				return usagef("this needs --secret-file, and the headers as --id, --timestamp and --signature")
			}
			secret, err := os.ReadFile(secretFile)
			if err != nil {
				return fmt.Errorf("read the secret: %w", err)
			}
			body, err := io.ReadAll(io.LimitReader(c.stdin, maxWebhookBody+1))
			if err != nil {
				return fmt.Errorf("read the body: %w", err)
			}
			if len(body) > maxWebhookBody {
				return errors.New("no webhook is sent so much")
			}
			header := http.Header{}
			header.Set(api.WebhookIDHeader, id)
			header.Set(api.WebhookTimestampHeader, at)
			header.Set(api.WebhookSignatureHeader, signature)
			if err := api.VerifyWebhook(strings.TrimSpace(string(secret)), header, body); err != nil {
				return err
			}
			return c.print(struct {
				Good bool `json:"good"`
			}{true}, func() { c.out.printf("The signature is good.\n") })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&secretFile, "secret-file", "", "the `file` that holds the secret, whsec_…")
	flags.StringVar(&id, "id", "", "the header webhook-`id`")
	flags.StringVar(&at, "timestamp", "", "the header webhook-`timestamp`")
	flags.StringVar(&signature, "signature", "", "the header webhook-`signature`")
	return cmd
}
