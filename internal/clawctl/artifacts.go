package clawctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) artifactsCommand() *cobra.Command {
	return group("artifacts", "Get and put the files that tasks leave behind",
		c.artifactsListCommand(), c.artifactsGetCommand(), c.artifactsPutCommand(), c.artifactsDeleteCommand())
}

// two is the Args of a command that takes two arguments.
func two(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usagef("this takes two arguments, %s; there are %d", what, len(args))
		}
		return nil
	}
}

func (c *cli) artifactsListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list TASK",
		Short: "List the artifacts of a task",
		Args:  exactly("the id of the task"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			all, err := client.Artifacts(ctx, args[0])
			if err != nil {
				return err
			}
			return c.print(api.ArtifactList{Items: all}, func() {
				if len(all) == 0 {
					c.err.printf("No artifacts.\n")
					return
				}
				t := &table{heads: []string{"NAME", "SIZE", "TYPE", "AGE", "BY"}}
				for _, a := range all {
					t.row(a.Name, byteCount(a.Size), a.ContentType, c.ago(&a.CreatedAt), a.CreatedBy)
				}
				c.out.table(t)
			})
		}),
	}
}

// byteCount writes a number of bytes with three digits or so.
func byteCount(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1000 && unit < 3 {
		value, unit = value/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[unit])
}

func (c *cli) artifactsGetCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "get TASK NAME",
		Short: "Write an artifact to standard output, or to a file",
		Example: `  clawctl artifacts get 0190b8a1-0000-7000-8000-000000000000 log.txt | less
  clawctl artifacts get 0190b8a1-0000-7000-8000-000000000000 report.pdf --file report.pdf`,
		Args: two("the id of the task and the name of the artifact"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if file != "" {
				return saveFile(file, func(w io.Writer) error { return client.GetArtifact(ctx, args[0], args[1], w) })
			}
			w := &lineWriter{out: c.out}
			return errors.Join(client.GetArtifact(ctx, args[0], args[1], w), w.close())
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the `file` to write")
	return cmd
}

// saveFile writes a file that appears only when all of it is there.
func saveFile(name string, write func(io.Writer) error) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(name), ".clawctl-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp.Name())
		}
	}()
	if err := errors.Join(write(temp), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}

func (c *cli) artifactsPutCommand() *cobra.Command {
	var name, kind string
	cmd := &cobra.Command{
		Use:   "put TASK FILE",
		Short: "Give a manual task a file, or standard input, as an artifact",
		Example: `  clawctl artifacts put 0190b8a1-0000-7000-8000-000000000000 build/report.html
  make 2>&1 | clawctl artifacts put 0190b8a1-0000-7000-8000-000000000000 - --name build.log --type text/plain`,
		Args: two("the id of the task and the file, or - for standard input"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			content := c.stdin
			switch {
			case args[1] != "-":
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				content, name = f, cmp.Or(name, filepath.Base(args[1]))
			case name == "":
				return usagef("name what is read from standard input: --name")
			}
			var opts []api.ArtifactOption
			if kind = cmp.Or(kind, mime.TypeByExtension(filepath.Ext(name))); kind != "" {
				opts = append(opts, api.WithContentType(kind))
			}
			a, err := client.PutArtifact(ctx, args[0], name, content, opts...)
			if err != nil {
				return err
			}
			return c.print(a, func() { c.out.printf("%s: %s\n", cleanLine(a.Name), byteCount(a.Size)) })
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "`name` of the artifact (default that of the file)")
	cmd.Flags().StringVar(&kind, "type", "", "media `type` of the content (default by the name)")
	return cmd
}

type removedArtifact struct {
	TaskID string `json:"taskId"`
	Name   string `json:"name"`
}

func (c *cli) artifactsDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete TASK NAME",
		Short: "Delete an artifact",
		Args:  two("the id of the task and the name of the artifact"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.DeleteArtifact(ctx, args[0], args[1]); err != nil {
				return err
			}
			return c.print(removedArtifact{args[0], args[1]}, func() { c.out.printf("%s deleted\n", cleanLine(args[1])) })
		}),
	}
}
