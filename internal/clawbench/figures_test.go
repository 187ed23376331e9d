package clawbench

import (
	"errors"
	"testing"
	"time"
)

func TestOnlyWhatEndsWithinTheWindowCounts(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	f, err := sumUp([]sample{
		{warmUp - 1, 9 * ms}, // while warming up
		{warmUp, 1 * ms},
		{warmUp + 100*ms, 2 * ms},
		{warmUp + 200*ms, 3 * ms},
		{warmUp + 500*ms - 1, 4 * ms},
		{warmUp + 500*ms, 9 * ms}, // too late
	}, 500*ms)
	if want := (figures{perSecond: 8, p50: 2, p99: 4}); err != nil || f != want {
		t.Errorf("got %+v (%v), want %+v", f, err, want)
	}
	if _, err := sumUp([]sample{{warmUp - 1, ms}}, time.Second); err == nil {
		t.Error("a round without a figure has no error")
	}
}

func TestResultsAreMediansOfTheRounds(t *testing.T) {
	t.Parallel()
	at := func(server, baseline float64) round {
		return round{figures{server, server, server}, &figures{baseline, baseline, baseline}}
	}
	r := resultOf("submit", "tasks", []round{at(10, 100), at(40, 50), at(20, 80)})
	if r.ThroughputPerSecond != 20 || *r.BaselinePerSecond != 80 || *r.Ratio != 0.25 || r.P99Ms != 20 || *r.BaselineP50Ms != 80 {
		t.Errorf("of three: %+v", r)
	}
	if r := resultOf("submit", "tasks", []round{at(10, 100), at(40, 50)}); r.ThroughputPerSecond != 25 || *r.BaselinePerSecond != 75 {
		t.Errorf("of two: %+v", r)
	}
}

func TestPgbenchLogsAreUnderstood(t *testing.T) {
	t.Parallel()
	s, err := parseLogLine("3 17 2500 0 1700000000 250000")
	if want := (sample{1700000000*time.Second + 250*time.Millisecond, 2500 * time.Microsecond}); err != nil || s != want {
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
