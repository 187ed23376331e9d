package clawbench

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyWhatEndsWithinTheWindowCounts(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	all := newTally(500 * ms)
	if _, err := all.figures(); err == nil {
		t.Error("a round in which nothing ended has no error")
	}
	all.add(warmUp-1, 9*ms) // while warming up
	all.add(warmUp, 1*ms)
	all.add(warmUp+100*ms, 2*ms)
	other := newTally(500 * ms)
	other.add(warmUp+200*ms, 3*ms)
	other.add(warmUp+500*ms-1, 4*ms)
	other.add(warmUp+500*ms, 9*ms) // too late
	all.merge(other)
	f, err := all.figures()
	if err != nil || f.PerSecond != 8 || int(f.P50) != 2 || int(f.P999) != 4 || all.all != 6 {
		t.Errorf("got %+v of %d (%v), want 8/s with 2 and 4 ms of 6", f, all.all, err)
	}
}

func TestAtARateTheTimesCountFromWhenAnOperationWasDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := load{clients: 1, window: time.Second, rate: 10}
		stalled := false
		// It stalls for half a second once, during which four more come due.
		counted, err := l.run(t.Context(), nowhere(t), func(ctx context.Context, _ *connection) error {
			if !stalled {
				stalled = sleep(ctx, warmUp+500*time.Millisecond)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, f := counted.count(), counted.percentiles(); n != 20 || f.P50 < 400 || f.P999 < 1400 {
			t.Errorf("%d counted, with %+v", n, f)
		}
	})
}

// nowhere is a target that takes connections and says nothing.
func nowhere(t *testing.T) target {
	t.Helper()
	return target{dialer: func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		return near, nil
	}}
}

func TestResultsAreMediansOfTheRounds(t *testing.T) {
	t.Parallel()
	rounds := func(perSecond ...float64) func(context.Context) (figures, *usage, error) {
		return func(context.Context) (figures, *usage, error) {
			v := perSecond[0]
			perSecond = perSecond[1:]
			return figures{v, v, v, v, v}, nil, nil
		}
	}
	b := &bench{rounds: 3, log: io.Discard}
	rows, ratios, err := b.inTurns(t.Context(), []contender{
		{name: "server", turn: rounds(10, 40, 20)},
		{name: "yardstick", turn: rounds(100, 50, 80), yardstick: true},
		{name: "other", turn: rounds(5, 30, 16)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].PerSecond != 20 || rows[1].P99 != 80 || rows[2].P50 != 16 {
		t.Errorf("rows: %+v", rows)
	}
	want := []ratio{{"server", "yardstick", 0.25, 0.25}, {"other", "server", 0.75, 0.75}}
	if !slices.Equal(ratios, want) {
		t.Errorf("ratios: %+v, want %+v", ratios, want)
	}
	b.rounds = 2
	rows, _, err = b.inTurns(t.Context(), []contender{{name: "server", turn: rounds(10, 40)}})
	if err != nil || rows[0].PerSecond != 25 {
		t.Errorf("of two rounds: %+v (%v)", rows, err)
	}
}

func TestPgbenchLogsAreUnderstood(t *testing.T) {
	t.Parallel()
	s, err := parseLogLine("3 17 2500 0 1700000000 250000")
	if want := (transaction{1700000000*time.Second + 250*time.Millisecond, 2500 * time.Microsecond}); err != nil || s != want {
		t.Errorf("got %v (%v), want %v", s, err, want)
	}
	for _, line := range []string{"", "3 17 failed 0 1700000000 250000", "3 17 2500"} {
		if _, err := parseLogLine(line); err == nil {
			t.Errorf("%q is no transaction", line)
		}
	}
}

func TestPgbenchIsNotGivenThePasswordAsAnArgument(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://u:secret@h:1/d?sslmode=disable",
		"postgres://u@h:1/d?password=secret&sslmode=disable",
	} {
		rest, password, err := withoutPassword(url)
		if err != nil || rest != "postgres://u@h:1/d?sslmode=disable" || password != "secret" {
			t.Errorf("%s became %s and %q (%v)", url, rest, password, err)
		}
	}
}

func TestWithoutTheDatabasesAddressThereIsNoBaseline(t *testing.T) {
	t.Parallel()
	if _, err := newPgbench(t.Context(), &rig{}); !errors.Is(err, errNoPgbench) {
		t.Errorf("got %v", err)
	}
}

func TestStatementsOfPostgreSQLsLogAreCounted(t *testing.T) {
	t.Parallel()
	const log = `2030-01-01 00:00:00.000 UTC [1] LOG:  execute stmtcache_1: 
	WITH due AS (
		UPDATE tasks)
2030-01-01 00:00:00.000 UTC [1] DETAIL:  parameters: $1 = '1'
2030-01-01 00:00:00.100 UTC [2] LOG:  statement: begin
2030-01-01 00:00:00.100 UTC [2] LOG:  statement: SELECT xact_commit FROM pg_stat_database
2030-01-01 00:00:00.200 UTC [2] LOG:  statement: begin
2030-01-01 00:00:00.300 UTC [3] LOG:  checkpoint starting: time
`
	want := map[string]int{"WITH due AS ( UPDATE tasks)": 1, "begin": 2}
	if got := countStatements(log); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
