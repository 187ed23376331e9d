package clawbench

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// figures are those of one round, or the medians of several.
type figures struct {
	PerSecond float64 `json:"throughputPerSecond"`
	P50       float64 `json:"p50Ms"`
	P90       float64 `json:"p90Ms"`
	P99       float64 `json:"p99Ms"`
	P999      float64 `json:"p999Ms"`
}

// timings are how long operations took, to three digits.
type timings struct{ h *hdrhistogram.Histogram }

func newTimings() timings {
	return timings{hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)}
}

// add takes what is beyond the histogram's bounds for the bound.
func (t timings) add(took time.Duration) {
	_ = t.h.RecordValue(min(max(took.Microseconds(), 1), t.h.HighestTrackableValue()))
}

func (t timings) count() int64 { return t.h.TotalCount() }

// percentiles returns the figures but for how many there were a second.
func (t timings) percentiles() figures {
	return figures{P50: t.at(50), P90: t.at(90), P99: t.at(99), P999: t.at(99.9)}
}

// at returns a percentile in milliseconds.
func (t timings) at(percent float64) float64 { return float64(t.h.ValueAtQuantile(percent)) / 1000 }

// warmUp is how long a round runs before it counts.
const warmUp = time.Second

// tally counts what ends within the window after the warm-up.
type tally struct {
	timings
	window time.Duration
	all    int64 // with what does not count
}

func newTally(window time.Duration) *tally { return &tally{timings: newTimings(), window: window} }

// add takes an operation that ended so long after the round began.
func (t *tally) add(end, took time.Duration) {
	t.all++
	if end >= warmUp && end < warmUp+t.window {
		t.timings.add(took)
	}
}

func (t *tally) merge(other *tally) {
	t.h.Merge(other.h)
	t.all += other.all
}

func (t *tally) figures() (figures, error) {
	if t.count() == 0 {
		return figures{}, errors.New("nothing ended within the time: measure for longer")
	}
	f := t.percentiles()
	f.PerSecond = float64(t.count()) / t.window.Seconds()
	return f, nil
}

// middle returns the medians of at least one round.
func middle(rounds []figures) figures {
	of := func(value func(figures) float64) float64 { return medianOf(rounds, value) }
	return figures{
		PerSecond: of(func(f figures) float64 { return f.PerSecond }),
		P50:       of(func(f figures) float64 { return f.P50 }),
		P90:       of(func(f figures) float64 { return f.P90 }),
		P99:       of(func(f figures) float64 { return f.P99 }),
		P999:      of(func(f figures) float64 { return f.P999 }),
	}
}

// medianOf returns the median of a value of at least one element.
func medianOf[T any](all []T, value func(T) float64) float64 {
	values := make([]float64, len(all))
	for i, e := range all {
		values[i] = value(e)
	}
	slices.Sort(values)
	n := len(values)
	return rounded((values[(n-1)/2] + values[n/2]) / 2)
}

// rounded leaves out the digits that mean nothing.
func rounded(v float64) float64 { return math.Round(v*1000) / 1000 }
