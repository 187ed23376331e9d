package clawbench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (b *bench) idleCommand() *cobra.Command {
	var workers int
	cmd := &cobra.Command{
		Use:   "idle",
		Short: "Count the database queries of a server that has nothing to do",
		Long: `Count the database queries of a server that has nothing to do but to be asked for
work by workers, which are processes of their own.

A private PostgreSQL logs all statements, and those of the log are counted. With
--database-url the transactions that the database counts are, of which some are
heard of ten seconds late.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if workers < 1 {
				return errors.New("--workers must be positive")
			}
			logAll := map[string]string{"log_statement": "all"}
			return b.run(cmd.Context(), "idle", "queries", logAll, func(ctx context.Context, r *rig, res *result) error {
				return b.idle(ctx, r, res, workers)
			})
		},
	}
	b.addFlags(cmd, time.Minute)
	b.addClientsFlag(cmd, 1)
	cmd.Flags().IntVar(&workers, "workers", 10, "how many workers are connected")
	return cmd
}

// settle is how long a server that has just started is left alone: what it does
// once is not counted.
const settle = 15 * time.Second

func (b *bench) idle(ctx context.Context, r *rig, res *result, workers int) error {
	for i := range workers {
		if err := r.startWorker(ctx, fmt.Sprintf("clawbench-remote-%d", i), 1); err != nil {
			return err
		}
	}
	b.say("%d workers are connected; leaving them alone for %s and then counting for %s", workers, settle, b.duration)
	if !sleep(ctx, settle) {
		return ctx.Err()
	}
	before, err := r.meter.read(ctx)
	if err != nil {
		return err
	}
	logged := r.logSize()
	if !sleep(ctx, b.duration) {
		return ctx.Err()
	}
	u, err := r.meter.since(ctx, before, 1)
	if err != nil {
		return err
	}
	minutes := b.duration.Minutes()
	res.note("workers", float64(workers), "")
	if r.log == "" {
		if u.Transactions == nil {
			return errors.New("the server's database is needed for this: --database-url")
		}
		res.note("queriesPerMinute", max(*u.Transactions-2, 0)/minutes, "transactions a minute, as the database counts them")
	} else {
		counts, err := r.statementsSince(logged)
		if err != nil {
			return err
		}
		sum := 0
		for _, text := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Compare(counts[b], counts[a]) }) {
			b.say("%4d  %s", counts[text], text)
			sum += counts[text]
		}
		res.note("queriesPerMinute", float64(sum)/minutes, "statements a minute, of PostgreSQL's log")
	}
	if u.ServerCores != nil {
		res.note("serverCores", *u.ServerCores, "processors")
	}
	return nil
}

// logSize returns how long PostgreSQL's log is.
func (r *rig) logSize() int64 {
	info, err := os.Stat(r.log)
	if err != nil {
		return 0 // there is none yet
	}
	return info.Size()
}

// statement matches the line of PostgreSQL's log with which a statement begins;
// its other lines begin with a tab.
var statement = regexp.MustCompile(`LOG:  (?:statement|execute [^:]*): (.*)`)

// statementsSince counts the statements that were logged after the first bytes of
// the log, by how they begin. Our own are left out.
func (r *rig) statementsSince(first int64) (map[string]int, error) {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return nil, fmt.Errorf("read PostgreSQL's log: %w", err)
	}
	return countStatements(string(text[min(first, int64(len(text))):])), nil
}

func countStatements(log string) map[string]int {
	counts := map[string]int{}
	var words []string // of the present statement
	within := false
	end := func() {
		text := strings.Join(words, " ")
		if within && !strings.Contains(text, "pg_stat_database") {
			counts[text[:min(100, len(text))]]++
		}
		words, within = nil, false
	}
	for line := range strings.Lines(log) {
		if within && strings.HasPrefix(line, "\t") {
			words = append(words, strings.Fields(line)...)
			continue
		}
		end()
		if found := statement.FindStringSubmatch(line); found != nil {
			words, within = strings.Fields(found[1]), true
		}
	}
	end()
	return counts
}
