// Package clawbench measures a CoderClaw server and, beside it and in turns,
// what pgbench reaches with the same SQL on the same database. The ratio of the
// two says what the server costs, whatever the machine.
//
// By default a run starts a private PostgreSQL, as durable as any, and a server
// as a process of its own, and leaves nothing behind.
package clawbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// Main runs one benchmark, or the server of one, until it is done or ctx ends.
// stdin is read by the server only, which is told by it what to do.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "clawbench",
		Short: "Measure a CoderClaw server beside the bare database",
		Long: `Measure a CoderClaw server beside the bare database.

Each run starts a private PostgreSQL and a server, and removes them at its end.
The server's environment is clawbench's, so that CODERCLAW_DATABASE_MAX_CONNS
and the like take effect. With --url and --database-url it measures what runs
already; the tasks that it submits stay there.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	b := &bench{out: stdout, log: stderr}
	root.AddCommand(b.submitCommand(), b.lifecycleCommand(), b.streamsCommand(), serverCommand(stdin, stdout, stderr))
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// The values of --baseline.
const (
	withPgbench = "pgbench"
	none        = "none"
)

// bench is one run of a benchmark.
type bench struct {
	out io.Writer // the result
	log io.Writer // how far it is

	clients  int
	duration time.Duration
	rounds   int
	baseline string
	json     bool

	url      string
	database string
	dir      string
	profile  string
}

// addFlags adds the flags that all benchmarks have.
func (b *bench) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&b.clients, "clients", 64, "how many connect at once, each with one request at a time")
	f.DurationVar(&b.duration, "duration", 10*time.Second, "how long to measure, after a second of warming up")
	f.BoolVar(&b.json, "json", false, "print the result as JSON")
	f.StringVar(&b.url, "url", "", "`address` of a running server to measure; CODERCLAW_TOKEN is its credential")
	f.StringVar(&b.database, "database-url", "", "`URL` of the PostgreSQL database to use; the tasks stay there")
	f.StringVar(&b.dir, "dir", "", "`directory` for the private PostgreSQL (default: a cache directory)")
	f.StringVar(&b.profile, "profile", "", "`directory` for profiles of the server that is started")
}

// addBaselineFlags adds the flags of benchmarks that have a baseline.
func (b *bench) addBaselineFlags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&b.rounds, "rounds", 3, "how often to measure, server and baseline in turns; the medians count")
	cmd.Flags().StringVar(&b.baseline, "baseline", withPgbench, "what to compare with: pgbench or none")
}

// run measures on a rig that it sets up and takes down.
func (b *bench) run(ctx context.Context, measure func(context.Context, *rig) (result, error)) (err error) {
	if b.clients < 1 || b.rounds < 1 || b.duration <= 0 {
		return errors.New("--clients, --rounds and --duration must be positive")
	}
	if b.baseline != withPgbench && b.baseline != none {
		return fmt.Errorf("--baseline %q: want %s or %s", b.baseline, withPgbench, none)
	}
	r, err := b.setUp(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.takeDown(context.WithoutCancel(ctx))) }()
	res, err := measure(ctx, r)
	if err != nil {
		return r.explain(err)
	}
	res.Clients, res.environment = b.clients, r.describe(ctx)
	return res.print(b.out, b.json)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, format+"\n", args...)
}
