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
	"slices"
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
	for _, command := range []func(*bench) *cobra.Command{
		(*bench).submitCommand, (*bench).lifecycleCommand, (*bench).progressCommand, (*bench).streamsCommand,
		(*bench).mixedCommand, (*bench).soakCommand, (*bench).pickupCommand, (*bench).idleCommand, (*bench).cancelCommand,
		(*bench).fairnessCommand,
	} {
		root.AddCommand(command(&bench{out: stdout, log: stderr, rounds: 1, baseline: none}))
	}
	root.AddCommand(programCommand("server", "serve", stdin, stdout, stderr), programCommand("worker", "worker", stdin, stdout, stderr))
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

	clients  int   // at present
	counts   []int // of clients, one after the other; nil: only as many
	duration time.Duration
	rate     float64
	rounds   int
	baseline string
	peers    string
	json     bool

	preload preload
	compare bool

	url      string
	database string
	dir      string
	profile  string
}

// addFlags adds the flags of benchmarks that measure for a while.
func (b *bench) addFlags(cmd *cobra.Command, duration time.Duration) {
	cmd.Flags().DurationVar(&b.duration, "duration", duration, "how long to measure, after a second of warming up")
	b.addRigFlags(cmd)
}

// addRigFlags adds the flags that all benchmarks have.
func (b *bench) addRigFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&b.json, "json", false, "print the result as JSON")
	f.StringVar(&b.url, "url", "", "`address` of a running server to measure; CODERCLAW_TOKEN is its credential")
	f.StringVar(&b.database, "database-url", "", "`URL` of the PostgreSQL database to use; the tasks stay there")
	f.StringVar(&b.dir, "dir", "", "`directory` for the private PostgreSQL (default: a cache directory)")
	f.StringVar(&b.profile, "profile", "", "`directory` for profiles of the server that is started")
}

// addClientsFlag adds that of benchmarks with one number of clients.
func (b *bench) addClientsFlag(cmd *cobra.Command, clients int) {
	cmd.Flags().IntVar(&b.clients, "clients", clients, "how many connect at once, each with one request at a time")
}

// addLoadFlags adds the flags of benchmarks that measure how much can be done.
func (b *bench) addLoadFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntSliceVar(&b.counts, "clients", []int{64}, "how many connect at once, each with one request at a time; several numbers are measured one after the other")
	f.IntVar(&b.rounds, "rounds", 3, "how often to measure, all that is compared in turns; the medians count")
	f.StringVar(&b.baseline, "baseline", withPgbench, "what to compare with: pgbench or none")
	f.Float64Var(&b.rate, "rate", 0, "how many to begin a second, of all clients together, instead of as many as they can")
	f.IntVar(&b.preload.finished, "finished", 0, "how many finished tasks there are before")
	f.IntVar(&b.preload.blocked, "blocked", 0, "how many tasks that cannot run yet stand before the others")
	f.StringVar(&b.preload.by, "blocked-by", byDependency, "what holds them back: "+byDependency+" (a task that is not done) or "+byLimit+" (parked behind one)")
	f.BoolVar(&b.compare, "compare", false, "measure an empty database in turns with one of --finished and one of --blocked tasks")
}

func (b *bench) check() error {
	if slices.Min(append(b.counts, b.mostClients())) < 1 || b.rounds < 1 || b.duration <= 0 {
		return errors.New("--clients, --rounds and --duration must be positive")
	}
	if b.rate < 0 || b.preload.finished < 0 || b.preload.blocked < 0 {
		return errors.New("--rate, --finished and --blocked must not be negative")
	}
	if b.baseline != withPgbench && b.baseline != none {
		return fmt.Errorf("--baseline %q: want %s or %s", b.baseline, withPgbench, none)
	}
	if by := b.preload.by; by != "" && by != byDependency && by != byLimit {
		return fmt.Errorf("--blocked-by %q: want %s or %s", by, byDependency, byLimit)
	}
	if b.compare && b.preload.finished+b.preload.blocked == 0 {
		return errors.New("--compare needs --finished or --blocked")
	}
	return nil
}

// connections is how many PostgreSQL must take.
func (b *bench) connections() int { return 200 + b.mostClients() }

func (b *bench) mostClients() int { return slices.Max(append(b.counts, b.clients)) }

// run measures on a rig that it sets up and takes down. settings are those of
// a private PostgreSQL.
func (b *bench) run(ctx context.Context, name, unit string, settings map[string]string, benchmark func(context.Context, *rig, *result) error) (err error) {
	if err := b.check(); err != nil {
		return err
	}
	r, err := b.setUp(ctx, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.takeDown(context.WithoutCancel(ctx))) }()
	res := &result{Benchmark: name, Unit: unit, Machine: r.describe(ctx), Rows: []row{}, Ratios: []ratio{}, Measures: []measure{}}
	if err := benchmark(ctx, r, res); err != nil {
		return r.explain(err)
	}
	return res.print(b.out, b.json)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, format+"\n", args...)
}
