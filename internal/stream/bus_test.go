package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
)

type ears chan stream.Signal

func (e ears) wait(t *testing.T, want stream.Signal) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case got := <-e:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("%v was not heard", want)
		}
	}
}

func TestSignalsReachAllServersOfADatabase(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	buses := make([]*stream.Postgres, 2)
	heard := make([]ears, 2)
	for i := range buses {
		buses[i], heard[i] = stream.NewPostgres(pool, slog.New(slog.DiscardHandler)), make(ears, 10_000)
		buses[i].Subscribe(func(s stream.Signal) { heard[i] <- s })
		running.Go(func() { _ = buses[i].Run(ctx) })
		heard[i].wait(t, stream.Signal{Topic: stream.Resync}) // it listens
	}

	one := stream.Signal{Topic: stream.TaskChanged, ID: "0190b8a1-0000-7000-8000-000000000000"}
	buses[0].Publish(one)
	heard[0].wait(t, one)
	heard[1].wait(t, one)
	buses[0].Publish(stream.Signal{Topic: stream.WorkReady})
	heard[1].wait(t, stream.Signal{Topic: stream.WorkReady})

	// More than fits into one notification.
	many := make([]stream.Signal, 1000)
	for i := range many {
		many[i] = stream.Signal{Topic: stream.TaskChanged, ID: fmt.Sprintf("0190b8a1-0000-7000-8000-%012d", i)}
	}
	buses[1].Publish(many...)
	left := map[stream.Signal]bool{}
	for _, s := range many {
		left[s] = true
	}
	timeout := time.After(time.Minute)
	for len(left) > 0 {
		select {
		case s := <-heard[0]:
			delete(left, s)
		case <-timeout:
			t.Fatalf("%d signals were not heard", len(left))
		}
	}
}

func TestALostConnectionIsMadeAnewAndSaidSo(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t, postgres.As("none"))
	ctx, cancel := context.WithCancel(context.Background())
	bus, heard := stream.NewPostgres(pool, slog.New(slog.DiscardHandler)), make(ears, 100)
	bus.Subscribe(func(s stream.Signal) { heard <- s })
	done := make(chan struct{})
	go func() { _ = bus.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	heard.wait(t, stream.Signal{Topic: stream.Resync})
	_, err := pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND query = 'LISTEN coderclaw'`)
	if err != nil {
		t.Fatal(err)
	}
	heard.wait(t, stream.Signal{Topic: stream.Resync})
}

func TestACancelledSubscriberHearsNoMore(t *testing.T) {
	t.Parallel()
	var bus stream.Memory
	var first, second int
	cancel := bus.Subscribe(func(stream.Signal) { first++ })
	bus.Subscribe(func(stream.Signal) { second++ })
	bus.Publish(stream.Signal{Topic: stream.WorkReady})
	cancel()
	bus.Publish(stream.Signal{Topic: stream.WorkReady})
	if first != 1 || second != 2 {
		t.Errorf("the subscribers heard %d and %d signals", first, second)
	}
}
