// Command river measures how many jobs that do nothing River finishes a second.
//
// So many clients insert jobs, one a transaction, and pause while many wait; a
// River client works them, with its default settings but for the number of
// workers, which it wants to be told, or, with --tuned, with those of River's
// own benchmark.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sync/errgroup"
)

// backlog is how many jobs may wait for each client that inserts them.
const backlog = 50

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var m measurement
	flag.IntVar(&m.clients, "clients", 64, "how many insert jobs")
	flag.Float64Var(&m.warmUp, "warm-up", 1, "seconds before it counts")
	flag.Float64Var(&m.duration, "duration", 10, "seconds that count")
	flag.BoolVar(&m.tuned, "tuned", false, "use the settings of River's own benchmark")
	flag.Parse()
	if err := m.run(ctx, os.Getenv("DATABASE_URL")); err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
}

// noop is a job; Inserted is when it was, in nanoseconds since 1970.
type noop struct {
	Inserted int64 `json:"inserted"`
}

func (noop) Kind() string { return "noop" }

type worker struct{ river.WorkerDefaults[noop] }

func (*worker) Work(context.Context, *river.Job[noop]) error { return nil }

type measurement struct {
	clients          int
	warmUp, duration float64
	tuned            bool
}

// figures are those that clawbench reads.
type figures struct {
	PerSecond float64 `json:"throughputPerSecond"`
	P50       float64 `json:"p50Ms"`
	P90       float64 `json:"p90Ms"`
	P99       float64 `json:"p99Ms"`
	P999      float64 `json:"p999Ms"`
}

func (m measurement) run(ctx context.Context, database string) error {
	config, err := pgxpool.ParseConfig(database)
	if err != nil {
		return err
	}
	config.MaxConns = int32(m.clients) + 20
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := m.client(ctx, pool)
	if err != nil {
		return err
	}
	// Events come after the completions are committed.
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{ChanSize: 1 << 16, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	defer cancel()
	if err := client.Start(ctx); err != nil {
		return err
	}
	began := time.Now()
	from := began.Add(time.Duration(m.warmUp * float64(time.Second)))
	until := from.Add(time.Duration(m.duration * float64(time.Second)))
	var inserted, finished atomic.Int64
	g, inserting := errgroup.WithContext(ctx)
	for range m.clients {
		g.Go(func() error {
			for time.Now().Before(until) {
				if inserted.Load()-finished.Load() > int64(backlog*m.clients) {
					time.Sleep(time.Millisecond)
					continue
				}
				if _, err := client.Insert(inserting, noop{time.Now().UnixNano()}, nil); err != nil {
					return err
				}
				inserted.Add(1)
			}
			return nil
		})
	}
	var took []time.Duration
	over := time.After(time.Until(until))
	for counting := true; counting; {
		select {
		case e := <-events:
			finished.Add(1)
			now := time.Now()
			var job noop
			if err := json.Unmarshal(e.Job.EncodedArgs, &job); err != nil {
				return err
			}
			if now.After(from) && now.Before(until) {
				took = append(took, now.Sub(time.Unix(0, job.Inserted)))
			}
		case <-over:
			counting = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := client.StopAndCancel(ctx); err != nil {
		return err
	}
	if len(took) == 0 {
		return fmt.Errorf("no job was finished within the time")
	}
	slices.Sort(took)
	at := func(p float64) float64 { return took[int(math.Ceil(p*float64(len(took))))-1].Seconds() * 1000 }
	return json.NewEncoder(os.Stdout).Encode(figures{float64(len(took)) / m.duration, at(0.5), at(0.9), at(0.99), at(0.999)})
}

// client makes one, on a database without jobs.
func (m measurement) client(ctx context.Context, pool *pgxpool.Pool) (*river.Client[pgx.Tx], error) {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, "TRUNCATE river_job"); err != nil { // of the round before
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{})
	config := &river.Config{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 100}},
		Workers: workers,
	}
	if m.tuned {
		config.FetchCooldown, config.FetchPollInterval = 2*time.Millisecond, 20*time.Millisecond
		config.Queues[river.QueueDefault] = river.QueueConfig{MaxWorkers: 2000}
	}
	return river.NewClient(driver, config)
}
