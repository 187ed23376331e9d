package clawbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// sample is one operation: when it ended, counted from the beginning of its
// round, and how long it took.
type sample struct{ end, took time.Duration }

// warmUp is how long a round runs before it counts.
const warmUp = time.Second

// figures are those of one round.
type figures struct {
	perSecond float64
	p50, p99  float64 // milliseconds
}

// sumUp takes what ended within the window after the warm-up.
func sumUp(samples []sample, window time.Duration) (figures, error) {
	var took []time.Duration
	for _, s := range samples {
		if s.end >= warmUp && s.end < warmUp+window {
			took = append(took, s.took)
		}
	}
	if len(took) == 0 {
		return figures{}, errors.New("nothing ended within the time: measure for longer")
	}
	f := percentiles(took)
	f.perSecond = float64(len(took)) / window.Seconds()
	return f, nil
}

// percentiles sorts took, which must not be empty.
func percentiles(took []time.Duration) (f figures) {
	slices.Sort(took)
	at := func(p float64) float64 {
		rank := int(math.Ceil(p * float64(len(took)))) // the nearest-rank definition
		return took[rank-1].Seconds() * 1000
	}
	f.p50, f.p99 = at(0.50), at(0.99)
	return f
}

// round is one round of the server and, if there is a baseline, of that.
type round struct {
	server   figures
	baseline *figures
}

// result is what a benchmark prints. Figures are medians of the rounds; ratio is
// the median of the rounds' own ratios, whatever else the machine did meanwhile.
type result struct {
	Benchmark           string   `json:"benchmark"`
	Clients             int      `json:"clients"`
	ThroughputPerSecond float64  `json:"throughputPerSecond"`
	P50Ms               float64  `json:"p50Ms"`
	P99Ms               float64  `json:"p99Ms"`
	BaselinePerSecond   *float64 `json:"baselinePerSecond"`
	Ratio               *float64 `json:"ratio"`
	BaselineP50Ms       *float64 `json:"baselineP50Ms,omitempty"`
	BaselineP99Ms       *float64 `json:"baselineP99Ms,omitempty"`
	*streamFigures

	unit        string // what is counted
	environment string
}

// streamFigures are those that only streams have. Sizes are nil for a server
// whose memory cannot be seen.
type streamFigures struct {
	Streams                   int      `json:"streams"`
	BytesPerStream            *float64 `json:"bytesPerStream"`
	BytesPerStreamUncollected *float64 `json:"bytesPerStreamUncollected"` // before a garbage collection
	EventP50Ms                float64  `json:"eventP50Ms"`
	EventP99Ms                float64  `json:"eventP99Ms"`
}

// resultOf sums up at least one round.
func resultOf(benchmark, unit string, rounds []round) result {
	middle := func(of func(round) float64) float64 {
		values := make([]float64, len(rounds))
		for i, r := range rounds {
			values[i] = of(r)
		}
		return rounded(median(values))
	}
	res := result{
		Benchmark: benchmark, unit: unit,
		ThroughputPerSecond: middle(func(r round) float64 { return r.server.perSecond }),
		P50Ms:               middle(func(r round) float64 { return r.server.p50 }),
		P99Ms:               middle(func(r round) float64 { return r.server.p99 }),
	}
	if rounds[0].baseline != nil {
		res.BaselinePerSecond = new(middle(func(r round) float64 { return r.baseline.perSecond }))
		res.BaselineP50Ms = new(middle(func(r round) float64 { return r.baseline.p50 }))
		res.BaselineP99Ms = new(middle(func(r round) float64 { return r.baseline.p99 }))
		res.Ratio = new(middle(round.ratio))
	}
	return res
}

func (r round) ratio() float64 { return r.server.perSecond / r.baseline.perSecond }

// median sorts values.
func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// rounded leaves out the digits that mean nothing.
func rounded(v float64) float64 { return math.Round(v*1000) / 1000 }

func (r result) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	fmt.Fprintf(w, "%s, %d clients, %s\n\n", r.Benchmark, r.Clients, r.environment)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t%s/s\tp50 ms\tp99 ms\t\n", r.unit)
	fmt.Fprintf(t, "server\t%.0f\t%.2f\t%.2f\t\n", r.ThroughputPerSecond, r.P50Ms, r.P99Ms)
	if r.BaselinePerSecond != nil {
		fmt.Fprintf(t, "pgbench\t%.0f\t%.2f\t%.2f\t\n", *r.BaselinePerSecond, *r.BaselineP50Ms, *r.BaselineP99Ms)
		fmt.Fprintf(t, "ratio\t%.2f\t\t\t\n", *r.Ratio)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if s := r.streamFigures; s != nil {
		fmt.Fprintf(w, "\nan event arrives after %.2f ms (p50), %.2f ms (p99), counted from before the request that wrote it\n", s.EventP50Ms, s.EventP99Ms)
		if s.BytesPerStream == nil {
			fmt.Fprintf(w, "%d streams; the server's memory cannot be seen from here\n", s.Streams)
		} else {
			fmt.Fprintf(w, "%d idle streams hold %.1f KiB of server memory each (%.1f KiB before a garbage collection)\n",
				s.Streams, *s.BytesPerStream/1024, *s.BytesPerStreamUncollected/1024)
		}
	}
	return nil
}
