package clawbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coderclaw/runtime/api"
)

// startWorker starts a worker as a process of its own, which reaches the server
// over HTTP, and returns when the server knows it.
func (r *rig) startWorker(ctx context.Context, name string, capacity int) error {
	if r.own == nil {
		return errors.New("workers are started beside a server that clawbench starts, not with --url")
	}
	if err := r.hire(ctx); err != nil {
		return err
	}
	dir := filepath.Join(r.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	p, err := startProcess("worker", dir, map[string]string{
		"CODERCLAW_URL":                  r.address,
		"CODERCLAW_TOKEN":                r.workers.token,
		"CODERCLAW_TOKEN_FILE":           "",
		"CODERCLAW_WORKER_NAME":          name,
		"CODERCLAW_WORKER_AGENTS":        "",
		"CODERCLAW_MAX_CONCURRENT_TASKS": strconv.Itoa(capacity),
		"CODERCLAW_CONFIG_DIR":           filepath.Join(dir, "config"),
		"CODERCLAW_DATA_DIR":             filepath.Join(dir, "data"),
		"CODERCLAW_WORKSPACE_ROOT":       dir,
	}, "")
	if err != nil {
		return err
	}
	r.undo = append(r.undo, p.stop)
	for {
		workers, err := r.operator.Workers(ctx)
		if err != nil {
			return fmt.Errorf("list workers: %w", err)
		}
		for _, w := range workers {
			if w.ID == name {
				return nil
			}
		}
		if p.ended() {
			return fmt.Errorf("the worker ended: %s", p.lastWords())
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// employ starts a worker that runs a program as an agent, and returns when tasks
// for the agent are taken.
func (r *rig) employ(ctx context.Context, capacity int, agent string, command ...string) error {
	_, err := r.operator.PutAgent(ctx, agent, api.AgentDefinition{
		Description: "A program of clawbench's.", Executor: api.ExecutorProcess, Process: &api.Process{Command: command, Input: "none"},
	})
	if err != nil {
		return fmt.Errorf("define an agent: %w", err)
	}
	if err := r.startWorker(ctx, "clawbench-remote", capacity); err != nil {
		return err
	}
	for {
		a, err := r.operator.Agent(ctx, agent)
		if err != nil || a.Available {
			return err
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}
