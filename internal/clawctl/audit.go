package clawctl

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) auditCommand() *cobra.Command {
	return group("audit", "See who did what, and who was not let",
		c.auditListCommand(), c.auditExportCommand(), c.auditCheckpointCommand(), c.auditProofCommand())
}

// auditFlags choose entries.
type auditFlags struct {
	filter       api.AuditFilter
	result       choice
	since, until string
}

func (f *auditFlags) register(cmd *cobra.Command) {
	f.result = choice{of: []string{"allowed", "denied", "error"}}
	flags := cmd.Flags()
	flags.StringVar(&f.filter.UserID, "user", "", "what this user `id` did")
	flags.StringVar(&f.filter.Action, "action", "", "only this `action`, for example task.submit")
	flags.Var(&f.result, "result", "only these: "+strings.Join(f.result.of, ", "))
	flags.StringVar(&f.filter.ResourceType, "resource-type", "", "only what was done to this `kind` of thing, for example task")
	flags.StringVar(&f.filter.ResourceID, "resource", "", "only what was done to the thing of this `id`")
	flags.StringVar(&f.filter.SessionID, "session", "", "what was done in this session `id`")
	flags.StringVar(&f.filter.ProjectID, "project", "", "what was done in this project `id`")
	flags.StringVar(&f.since, "since", "", "after a `time` (2026-01-31T18:00:00Z) or within a duration (7d)")
	flags.StringVar(&f.until, "until", "", "before a `time`, or longer than a duration ago")
	completeFlag(cmd, "result", f.result.of...)
}

func (f *auditFlags) parse(c *cli) (filter api.AuditFilter, err error) {
	filter = f.filter
	filter.Result = f.result.value
	if f.since != "" {
		if filter.Since, err = c.parseTime(f.since, -1); err != nil {
			return filter, usagef("--since: %v", err)
		}
	}
	if f.until != "" {
		if filter.Until, err = c.parseTime(f.until, -1); err != nil {
			return filter, usagef("--until: %v", err)
		}
	}
	return filter, nil
}

func (c *cli) auditListCommand() *cobra.Command {
	var f auditFlags
	var l limit
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List decisions, newest first",
		Example: "  clawctl audit list --result denied --since 24h",
		Args:    none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			filter, err := f.parse(c)
			if err != nil {
				return err
			}
			filter.Limit = l.page()
			entries, more, err := take(client.AllAudit(ctx, filter), l)
			if err != nil {
				return err
			}
			err = c.print(api.AuditList{Items: entries}, func() { c.auditTable(entries) })
			c.tellMore(more)
			return err
		}),
	}
	f.register(cmd)
	l.register(cmd, "entries")
	return cmd
}

func (c *cli) auditTable(entries []api.AuditEntry) {
	if len(entries) == 0 {
		c.err.printf("No entries.\n")
		return
	}
	t := &table{heads: []string{"TIME", "RESULT", "USER", "ACTION", "RESOURCE", "PROJECT", "LAYER", "REASON"}, styles: map[int]func(string) style{1: outcomeStyle}}
	for _, e := range entries {
		t.row(e.Time.In(c.zone).Format(time.DateTime), e.Result, e.UserID, e.Action, e.ResourceID, e.ProjectID, e.Layer, e.Reason)
	}
	c.out.table(t)
}

func (c *cli) auditExportCommand() *cobra.Command {
	var f auditFlags
	format := choice{value: "json", of: []string{"json", "ocsf", "cef"}}
	cmd := &cobra.Command{
		Use:     "export",
		Short:   "Write decisions, one a line, for other programs",
		Example: "  clawctl audit export --format ocsf --since 30d > audit.ndjson",
		Args:    none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			filter, err := f.parse(c)
			if err != nil {
				return err
			}
			out := &lineWriter{out: c.out}
			return errors.Join(client.ExportAudit(ctx, filter, format.value, out), out.close())
		}),
	}
	f.register(cmd)
	cmd.Flags().Var(&format, "format", "as what: "+strings.Join(format.of, ", "))
	completeFlag(cmd, "format", format.of...)
	return cmd
}

// longestLine is how much of a line a terminal is shown at once.
const longestLine = 64 << 10

// lineWriter writes text from elsewhere as it comes: as it is to a file or a
// pipe, cleaned line by line to a terminal.
type lineWriter struct {
	out  *screen
	rest []byte // of a line whose end has not come yet
}

func (w *lineWriter) Write(p []byte) (int, error) {
	if !w.out.tty {
		return w.out.w.Write(p)
	}
	w.rest = append(w.rest, p...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	if end == 0 && len(w.rest) >= longestLine {
		end = len(w.rest)
	}
	if end == 0 {
		return len(p), nil
	}
	_, err := io.WriteString(w.out.w, cleanText(string(w.rest[:end])))
	w.rest = append(w.rest[:0], w.rest[end:]...)
	return len(p), err
}

func (w *lineWriter) close() error {
	_, err := io.WriteString(w.out.w, cleanText(string(w.rest)))
	return err
}

func (c *cli) auditCheckpointCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint",
		Short: "Print the log's state as it was signed last",
		Long: `Print the log's state as it was signed last. Kept elsewhere, it shows later
whether the log was changed: "coderclawd audit verify --checkpoint FILE".`,
		Args: none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			cp, err := client.AuditCheckpoint(ctx)
			if err != nil {
				return err
			}
			return c.print(cp, func() { c.out.text(cp.Note) })
		}),
	}
}

func (c *cli) auditProofCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "proof ID",
		Short: "Print what shows that an entry is in the log",
		Args:  exactly("the id of the entry"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			proof, err := client.AuditProof(ctx, args[0])
			if err != nil {
				return err
			}
			return c.print(proof, func() {
				c.details([][2]string{{"Index", strconv.FormatInt(proof.Index, 10)}, {"Leaf", base64.StdEncoding.EncodeToString(proof.Leaf)}})
				c.block("Hashes", strings.Join(proof.Hashes, "\n"))
				c.block("Checkpoint", proof.Checkpoint)
			})
		}),
	}
}
