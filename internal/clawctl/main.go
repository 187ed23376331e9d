// Package clawctl is the command line of the CoderClaw runtime for people and
// CI jobs. It knows the server only through the api package's client.
//
// What a command was asked for goes to standard output, everything else
// (progress, hints, errors) to standard error, so that output can be redirected
// or piped as it is. Text that comes from tasks is never trusted: what reaches
// a terminal holds no control characters but ours.
package clawctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

// The exit codes of Main.
const (
	exitOK          = 0
	exitFailed      = 1 // also: a watched task failed or was cancelled
	exitUsage       = 2
	exitInterrupted = 130 // as a shell says of Ctrl-C
)

// exitError ends the program when everything has been said already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a command line that makes no sense.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// Main runs one command and returns the exit code: 0 when it did what it was
// asked for, 1 when that failed or a watched task failed or was cancelled, 2
// for a command line that makes no sense, 130 when ctx ended first.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return run(ctx, args, environment{
		stdin: stdin, stdout: stdout, stderr: stderr,
		getenv: os.Getenv, home: os.UserHomeDir, config: os.UserConfigDir, now: time.Now, zone: time.Local,
		keyring: findKeyring(os.Getenv), browse: browse, sleep: sleep,
	})
}

// environment is what a command finds around it.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	home           func() (string, error)
	config         func() (string, error) // the user's configuration directory
	now            func() time.Time
	zone           *time.Location
	keyring        keyring // nil: there is none
	browse         func(ctx context.Context, url string) error
	sleep          func(context.Context, time.Duration) error
}

// cli is one run of the program.
type cli struct {
	environment
	out, err *screen

	url         string // flags
	token       string
	format      choice
	keyringMode choice

	keyringTrouble error // why it could not be read, which may not matter
}

func run(ctx context.Context, args []string, env environment) int {
	c := &cli{environment: env, out: newScreen(env.stdout, env.getenv), err: newScreen(env.stderr, env.getenv)}
	root := c.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	cmd, err := root.ExecuteContextC(ctx)
	var code exitError
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &usage):
		c.err.printf("clawctl: %s\nRun \"%s --help\" for help.\n", cleanText(usage.message), cmd.CommandPath())
		return exitUsage
	}
	c.report(err)
	return exitFailed
}

func (c *cli) report(err error) { c.err.printf("clawctl: %s\n", cleanText(c.explain(err))) }

const examples = `  clawctl submit "Analyze project architecture" --agent architecture-advisor --watch
  clawctl submit "Review this change" --agent code-reviewer --input-file change.diff --watch > review.md
  clawctl tasks list --status running,waiting
  clawctl tasks watch 0190b8a1-0000-7000-8000-000000000000
  clawctl tasks list --status failed --output json
  clawctl login --provider github
  clawctl policy explain --agent code-modifier --project web`

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "clawctl",
		Short: "Submit tasks to AI coding agents and watch them work",
		Long: `Submit tasks to AI coding agents and watch them work.

The server is the one that --url or CODERCLAW_URL names, else the one that
"coderclawd dev" started here, else http://127.0.0.1:7433. What is asked of it
is asked in the name of --token or CODERCLAW_TOKEN, else of the login there.

Exit codes: 0 done, 1 failed (also: a watched task failed or was cancelled),
2 wrong usage, 130 interrupted.`,
		Example:       examples,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err.Error()} })

	c.format = choice{value: "table", of: []string{"table", "json", "yaml"}}
	flags := root.PersistentFlags()
	flags.StringVar(&c.url, "url", "", "`address` of the server")
	flags.StringVar(&c.token, "token", "", "`credential`; the environment variable CODERCLAW_TOKEN keeps it out of the process list")
	flags.VarP(&c.format, "output", "o", "how to print: "+strings.Join(c.format.of, ", "))
	completeFlag(root, "output", c.format.of...)
	c.keyringMode = choice{value: "auto", of: []string{"auto", "os", "file"}}
	flags.Var(&c.keyringMode, "keyring", "where logins are kept: "+strings.Join(c.keyringMode.of, ", ")+"; auto is the operating system's keyring if there is one")
	completeFlag(root, "keyring", c.keyringMode.of...)

	root.AddCommand(c.statusCommand(), c.agentsCommand(), c.skillsCommand(), c.submitCommand(), c.tasksCommand(), c.artifactsCommand(), c.retryCommand(), c.approvalsCommand(), c.answerCommand(), c.schedulesCommand(), c.versionCommand(),
		c.loginCommand(), c.logoutCommand(), c.whoamiCommand(), c.passwordCommand(), c.sessionsCommand(), c.deviceCommand(),
		c.workerCommand(), c.workersCommand(), c.limitsCommand(), c.grantsCommand(), c.budgetsCommand(), c.webhooksCommand(), c.usersCommand(), c.keysCommand(), c.bindingsCommand(), c.policyCommand(), c.auditCommand())
	return root
}

// noCommand is the Args of a command that has only subcommands.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2 // cobra's default, which it sets elsewhere
	message := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		message += ": did you mean " + strings.Join(similar, " or ") + "?"
	}
	return usageError{message}
}

// exactly is the Args of a command that takes one argument.
func exactly(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("this takes one argument, %s; there are %d", what, len(args))
		}
		return nil
	}
}

func none(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("this takes no argument; there is %q", args[0])
	}
	return nil
}

// choice is a flag with a few possible values.
type choice struct {
	value string
	of    []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return "name" }

func (c *choice) Set(value string) error {
	if !slices.Contains(c.of, value) {
		return fmt.Errorf("want %s", strings.Join(c.of, ", "))
	}
	c.value = value
	return nil
}

// completeFlag offers values for a flag to the shell.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // there is no such flag: a typing error above
	}
}

// givenToken returns the credential that the command line or the environment
// names, "" if neither does.
func (c *cli) givenToken() string {
	if c.token != "" {
		return c.token
	}
	return strings.TrimSpace(c.getenv("CODERCLAW_TOKEN"))
}

// client returns a client for the server that the command line, the environment
// or a running server names, in the name of the credential that is given or of
// the login there.
func (c *cli) client() (*api.Client, error) {
	if token := c.givenToken(); token != "" {
		return c.connect(api.WithToken(token))
	}
	a, err := c.account()
	if err != nil {
		return nil, err
	}
	return c.connect(api.WithTokenSource(a.renew), api.WithProof(a.prove))
}

// connect returns a client that shows what opts say.
func (c *cli) connect(opts ...api.Option) (*api.Client, error) {
	address, err := c.address()
	if err != nil {
		return nil, err
	}
	// A person who mistyped the address should not wait long to hear of it.
	client, err := api.NewClient(address.url, append(opts, api.WithUserAgent("clawctl/"+version()), api.WithRetries(2))...)
	if err != nil {
		return nil, usagef("%v (%s)", err, address.source)
	}
	return client, nil
}

// asking is the RunE of a command that asks the server for something.
func (c *cli) asking(ask func(ctx context.Context, client *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		return ask(cmd.Context(), client, args)
	}
}

// group is a command that has only subcommands.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}
