package clawbench

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// result is what a benchmark prints.
type result struct {
	Benchmark string    `json:"benchmark"`
	Machine   string    `json:"machine"`
	Unit      string    `json:"unit"` // what is counted
	Rows      []row     `json:"rows"`
	Ratios    []ratio   `json:"ratios"`
	Measures  []measure `json:"measures"` // what is no rate
}

// row is what was measured of one thing; of rounds, the medians.
type row struct {
	Name string `json:"name"`
	figures
	Usage *usage `json:"usage"`
}

// ratio is the median of the rounds' own ratios, whatever else the machine did
// meanwhile.
type ratio struct {
	Of         string  `json:"of"`
	To         string  `json:"to"`
	Throughput float64 `json:"throughput"`
	P99        float64 `json:"p99"`
}

// measure is one figure with a name of its own.
type measure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func (r *result) note(name string, value float64, unit string) {
	r.Measures = append(r.Measures, measure{name, rounded(value), unit})
}

func (r *result) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	fmt.Fprintf(w, "%s, %s\n", r.Benchmark, r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	if len(r.Rows) > 0 {
		fmt.Fprintf(t, "\n\t%s/s\tp50 ms\tp90 ms\tp99 ms\tp99.9 ms\tserver cores\tMiB\tPostgreSQL cores\tMiB\ttransactions each\t\n", r.Unit)
	}
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%.1f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t\n", row.Name, row.PerSecond, row.P50, row.P90, row.P99, row.P999, row.Usage)
	}
	if len(r.Ratios) > 0 {
		fmt.Fprintf(t, "\nratios\tthroughput\tp99\t\n")
	}
	for _, ratio := range r.Ratios {
		fmt.Fprintf(t, "%s / %s\t%.2f\t%.2f\t\n", ratio.Of, ratio.To, ratio.Throughput, ratio.P99)
	}
	if err := t.Flush(); err != nil || len(r.Measures) == 0 {
		return err
	}
	fmt.Fprintf(w, "\n")
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, m := range r.Measures {
		fmt.Fprintf(t, "%s\t%g %s\n", m.Name, m.Value, m.Unit)
	}
	return t.Flush()
}
