package peers_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestPeersAreMeasuredBesideTheLifecycle(t *testing.T) {
	t.Parallel()
	bench := filepath.Join(t.TempDir(), "clawbench")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bench, "./cmd/clawbench")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build clawbench: %v\n%s", err, out)
	}
	run := exec.CommandContext(t.Context(), bench, "lifecycle", "--peers", ".", "--baseline", "none",
		"--clients", "4", "--rounds", "1", "--duration", "2s", "--json")
	var said bytes.Buffer
	run.Stderr = &said
	out, err := run.Output()
	if err != nil {
		t.Fatalf("clawbench: %v\n%s", err, &said)
	}
	var result struct {
		Rows []struct {
			Name                string
			ThroughputPerSecond float64
			P50Ms               float64
		}
		Ratios []struct{ Throughput float64 }
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	want := []string{"server", "river", "river tuned", "graphile-worker"}
	if len(result.Rows) != len(want) || len(result.Ratios) != len(want)-1 {
		t.Fatalf("got %s", out)
	}
	for i, row := range result.Rows {
		if row.Name != want[i] || row.ThroughputPerSecond <= 0 || row.P50Ms <= 0 {
			t.Errorf("row %d is %+v, want one of %s", i, row, want[i])
		}
	}
}
