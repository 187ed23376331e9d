package clawctl

import (
	"context"
	"iter"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

// projectPolicy is where a project keeps its policy.
const projectPolicy = ".coderClaw/security.yaml"

func (c *cli) policyCommand() *cobra.Command {
	return group("policy", "See, change and try out who may do what",
		c.policyGetCommand(), c.policyPushCommand(), c.policyVersionsCommand(), c.policyDiffCommand(), c.policyRollbackCommand(),
		c.policyExplainCommand(), c.policyTestCommand(), c.policySimulateCommand())
}

// projectFlag chooses between the documents of projects and the organisation's.
func projectFlag(cmd *cobra.Command, projectID *string) {
	cmd.Flags().StringVar(projectID, "project", "", "`id` of the project whose policy it is (default the organisation's)")
}

func (c *cli) policyGetCommand() *cobra.Command {
	var projectID string
	var version int64
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Print a policy document",
		Args:  none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) (err error) {
			var doc api.PolicyDocument
			if version > 0 {
				doc, err = client.PolicyVersion(ctx, projectID, version)
			} else {
				doc, err = client.Policy(ctx, projectID)
			}
			if err != nil {
				return err
			}
			return c.print(doc, func() { c.out.text(doc.Document) })
		}),
	}
	projectFlag(cmd, &projectID)
	cmd.Flags().Int64Var(&version, "version", 0, "`number` of the version (default the one in force)")
	return cmd
}

func (c *cli) policyPushCommand() *cobra.Command {
	var projectID, file, comment string
	cmd := &cobra.Command{
		Use:   "push",
		Short: "Put a policy document into force",
		Example: `  clawctl policy push --project web
  clawctl policy push -f security.yaml --comment "reviewers may read configuration"`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What lies in a repository is the project's. Without a project it would
			// silently become everybody's.
			if file == "" && projectID == "" {
				return usagef("policy push needs the --project, or the file (-f) that is to be the organisation's policy")
			}
			if file == "" {
				file = projectPolicy
			}
			text, err := c.readText(file)
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			doc, err := client.PutPolicy(cmd.Context(), projectID, api.NewPolicyDocument{Document: text, Comment: comment})
			if err != nil {
				return err
			}
			return c.printVersion(doc)
		},
	}
	projectFlag(cmd, &projectID)
	cmd.Flags().StringVarP(&file, "file", "f", "", "the document's `file`; - is standard input (default with --project "+projectPolicy+")")
	cmd.Flags().StringVar(&comment, "comment", "", "`why` it is changed")
	return cmd
}

// printVersion tells of a new version, and of what it loosens.
func (c *cli) printVersion(doc api.PolicyDocument) error {
	return c.print(doc, func() {
		c.out.printf("version %d\n", doc.Version)
		c.tellWeaker(doc.Weakens)
	})
}

func (c *cli) tellWeaker(weakens []string) {
	for _, line := range weakens {
		c.err.printf("%s %s\n", c.err.style(yellow, "Weaker:"), cleanLine(line))
	}
}

func (c *cli) policyVersionsCommand() *cobra.Command {
	var projectID string
	cmd := listing(c, "List the versions of a policy document, newest first", "versions",
		func(cmd *cobra.Command) (iter.Seq2[api.PolicyDocument, error], error) {
			client, err := c.client()
			if err != nil {
				return nil, err
			}
			return client.PolicyVersions(cmd.Context(), projectID), nil
		}, func(all []api.PolicyDocument) any { return api.PolicyVersionList{Items: all} },
		[]string{"VERSION", "AUTHOR", "ORIGIN", "AGE", "COMMENT"},
		func(d api.PolicyDocument) []string {
			return []string{strconv.FormatInt(d.Version, 10), d.Author, d.Origin, span(c.now().Sub(d.CreatedAt)), d.Comment}
		})
	cmd.Use = "versions"
	projectFlag(cmd, &projectID)
	return cmd
}

func (c *cli) policyDiffCommand() *cobra.Command {
	var projectID string
	cmd := &cobra.Command{
		Use:   "diff FROM TO",
		Short: "Show how two versions of a policy document differ",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("this takes two arguments, the numbers of two versions; there are %d", len(args))
			}
			return nil
		},
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			from, err := parseVersion(args[0])
			if err != nil {
				return err
			}
			to, err := parseVersion(args[1])
			if err != nil {
				return err
			}
			diff, err := client.DiffPolicy(ctx, projectID, from, to)
			if err != nil {
				return err
			}
			return c.print(diff, func() {
				c.out.text(diff.Diff)
				c.tellWeaker(diff.Weakens)
			})
		}),
	}
	projectFlag(cmd, &projectID)
	return cmd
}

func parseVersion(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, usagef("%q is no version: these are 1, 2, 3, …", text)
	}
	return n, nil
}

func (c *cli) policyRollbackCommand() *cobra.Command {
	var projectID, comment string
	cmd := &cobra.Command{
		Use:   "rollback VERSION",
		Short: "Put an older version of a policy document into force again",
		Args:  exactly("the number of the version"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			version, err := parseVersion(args[0])
			if err != nil {
				return err
			}
			doc, err := client.RollbackPolicy(ctx, projectID, api.PolicyRollback{Version: version, Comment: comment})
			if err != nil {
				return err
			}
			return c.printVersion(doc)
		}),
	}
	projectFlag(cmd, &projectID)
	cmd.Flags().StringVar(&comment, "comment", "", "`why` it is changed")
	return cmd
}

func (c *cli) policyExplainCommand() *cobra.Command {
	var q api.PermissionQuery
	var labels []string
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Tell whether you may do something, and which rule says so",
		Example: `  clawctl policy explain --agent code-modifier --project web
  clawctl policy explain --permission config:write`,
		Args: none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) (err error) {
			if q.Labels, err = parseLabels(labels); err != nil {
				return err
			}
			d, err := client.CheckPermission(ctx, q)
			if err != nil {
				return err
			}
			return c.print(d, func() { c.details(decisionDetails(d)) })
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Permission, "permission", "", "`name` of the permission (default task:submit)")
	flags.StringVar(&q.AgentID, "agent", "", "`id` of the agent that a task would use")
	flags.StringVar(&q.SkillID, "skill", "", "`id` of the skill that a task would use")
	flags.StringVar(&q.ProjectID, "project", "", "`id` of the project that it is about (default that of the session)")
	flags.StringArrayVar(&labels, "label", nil, "a label of the task, `key=value`; repeat it for more")
	return cmd
}

func decisionDetails(d api.Decision) [][2]string {
	version := ""
	if d.PolicyVersion > 0 {
		version = strconv.FormatInt(d.PolicyVersion, 10)
	}
	return [][2]string{{"Decision", outcome(d.Allowed)}, {"Layer", d.Layer}, {"Rule", d.Rule}, {"Reason", d.Reason}, {"Policy version", version}}
}

func outcome(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

func (c *cli) policySimulateCommand() *cobra.Command {
	var projectID, file, since string
	cmd := &cobra.Command{
		Use:     "simulate",
		Short:   "Tell which decisions of the past a policy document would change",
		Example: "  clawctl policy simulate -f new.yaml --since 7d",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("policy simulate needs the file (-f) of the document")
			}
			at, err := c.parseTime(since, -1)
			if err != nil {
				return usagef("--since: %v", err)
			}
			text, err := c.readText(file)
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			result, err := client.SimulatePolicy(cmd.Context(), api.PolicySimulation{ProjectID: projectID, Document: text, Since: at})
			if err != nil {
				return err
			}
			return c.print(result, func() { c.simulation(result) })
		},
	}
	projectFlag(cmd, &projectID)
	cmd.Flags().StringVarP(&file, "file", "f", "", "the document's `file`; - is standard input")
	cmd.Flags().StringVar(&since, "since", "7d", "decisions after a `time` (2026-01-31T18:00:00Z) or within a duration (7d)")
	return cmd
}

func (c *cli) simulation(r api.PolicySimulationResult) {
	if len(r.Changed) > 0 {
		t := &table{heads: []string{"ENTRY", "USER", "ACTION", "WAS", "NOW", "BY", "REASON"}, styles: map[int]func(string) style{3: outcomeStyle, 4: outcomeStyle}}
		for _, ch := range r.Changed {
			t.row(ch.EntryID, ch.UserID, ch.Action, ch.Was, outcome(ch.Now.Allowed), strings.TrimPrefix(ch.Now.Layer+" "+ch.Now.Rule, " "), ch.Now.Reason)
		}
		c.out.table(t)
	}
	summary := "The document changes " + strconv.Itoa(r.ChangedCount) + " of " + strconv.Itoa(r.Decisions) + " decisions."
	if r.Skipped > 0 {
		summary += " " + strconv.Itoa(r.Skipped) + " more could not be made again."
	}
	if !r.Complete {
		summary += " There are older ones, which were not looked at."
	}
	c.err.printf("%s\n", summary)
}

func outcomeStyle(cell string) style {
	switch cell {
	case "allowed":
		return green
	case "denied":
		return red
	case "error":
		return yellow
	}
	return ""
}
