package clawbench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is another job queue on PostgreSQL. Its program takes --clients, --warm-up
// and --duration, both in seconds, and DATABASE_URL, and prints figures as JSON.
// It writes no history of its jobs and no audit entries.
type peer struct {
	name string
	// build makes the program, in the directory of its sources; command runs it.
	build   []string
	command []string
}

// peersIn returns the peers that a directory has the sources of.
func peersIn(source, dir string) []peer {
	river := filepath.Join(dir, "river")
	build := []string{"go", "build", "-o", river, "./river"}
	return []peer{
		{"river", build, []string{river}},
		{"river tuned", build, []string{river, "--tuned"}},
		{"graphile-worker", []string{"npm", "ci", "--no-audit", "--no-fund"}, []string{"node", filepath.Join(source, "graphile-worker.mjs")}},
	}
}

// peerContenders are the peers, each on a database of its own beside r's.
func (b *bench) peerContenders(ctx context.Context, r *rig) (all []contender, err error) {
	if b.peers == "" {
		return nil, nil
	}
	source, err := filepath.Abs(b.peers)
	if err != nil {
		return nil, err
	}
	for _, p := range peersIn(source, r.dir) {
		b.say("building %s", p.name)
		if _, err := runIn(ctx, source, nil, p.build...); err != nil {
			return nil, err
		}
		database, err := r.makeDatabase(ctx, "clawbench_"+strings.ReplaceAll(p.name, " ", "_"))
		if err != nil {
			return nil, err
		}
		all = append(all, contender{p.name, func(ctx context.Context) (figures, *usage, error) { return b.runPeer(ctx, r, p, database) }, true})
	}
	return all, nil
}

// runPeer measures a round. What it uses of PostgreSQL is the whole cluster's;
// its transactions are not counted.
func (b *bench) runPeer(ctx context.Context, r *rig, p peer, database string) (f figures, u *usage, err error) {
	before, err := r.meter.read(ctx)
	if err != nil {
		return f, nil, err
	}
	printed, err := runIn(ctx, r.dir, []string{"DATABASE_URL=" + database}, append(slices.Clip(p.command), "--clients", strconv.Itoa(b.clients),
		"--warm-up", fmt.Sprint(warmUp.Seconds()), "--duration", fmt.Sprint(b.duration.Seconds()))...)
	if err != nil {
		return f, nil, err
	}
	if u, err = r.meter.since(ctx, before, 0); err != nil {
		return f, nil, err
	}
	if err := json.Unmarshal(printed, &f); err != nil {
		return f, nil, fmt.Errorf("%s printed %q: %w", p.name, printed, err)
	}
	return f, u, nil
}

// runIn runs a program in a directory and returns what it prints.
func runIn(ctx context.Context, dir string, environment []string, command ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environment...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		const most = 2000
		text := append(said.Bytes(), out.Bytes()...)
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(command[0]), err, text[max(0, len(text)-most):])
	}
	return out.Bytes(), nil
}
