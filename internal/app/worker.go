package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/config"
	"github.com/coderclaw/runtime/internal/httpapi"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

func workerCommand(stderr io.Writer) *cobra.Command {
	var url, name string
	var agents, labels []string
	var capacity int
	cmd := &cobra.Command{
		Use: "worker", Short: "Run the tasks of a server, on this machine", Args: cobra.NoArgs,
		Long: `Run the tasks of a server, on this machine. The server is reached over HTTP; the
credential, of clawctl worker token, is read from CODERCLAW_TOKEN or, better, from
the file that CODERCLAW_TOKEN_FILE names. Agents work in CODERCLAW_WORKSPACE_ROOT.`,
		Example: "  coderclawd worker --url https://claw.example.com --labels gpu=true --capacity 4",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var bad error
			cfg, warnings, err := config.Load(config.Options{Flags: func(c *config.Config) {
				if url != "" {
					c.URL = url
				}
				if name != "" {
					c.Worker.Name = name
				}
				if cmd.Flags().Changed("agents") {
					c.Worker.Agents = agents
				}
				if cmd.Flags().Changed("capacity") {
					c.MaxConcurrentTasks = capacity
				}
				for _, label := range labels {
					bad = errors.Join(bad, c.Worker.Labels.Add(label))
				}
			}})
			if err = errors.Join(bad, err); err != nil {
				return err
			}
			log := newLogger(stderr, cfg)
			for _, w := range warnings {
				log.WarnContext(cmd.Context(), "configuration", "note", w)
			}
			w, err := newRemoteWorker(cmd.Context(), cfg, log)
			if err != nil {
				return err
			}
			return w.Run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&url, "url", "", "`address` of the server (CODERCLAW_URL)")
	flags.StringVar(&name, "name", "", "`id` of the worker, the same after a restart (CODERCLAW_WORKER_NAME; default the name of the machine)")
	flags.StringSliceVar(&agents, "agents", nil, "`ids` of the agents to serve (CODERCLAW_WORKER_AGENTS; default all that can be run here)")
	flags.StringSliceVar(&labels, "labels", nil, "`name=value` that tasks can require (CODERCLAW_WORKER_LABELS)")
	flags.IntVar(&capacity, "capacity", 0, "how many tasks to run at once (CODERCLAW_MAX_CONCURRENT_TASKS)")
	return cmd
}

// newRemoteWorker is a worker of a server that it sees over HTTP alone.
func newRemoteWorker(ctx context.Context, cfg config.Config, log *slog.Logger) (*worker.Worker, error) {
	switch {
	case cfg.URL == "":
		return nil, errors.New("name the server to work for: --url or CODERCLAW_URL")
	case cfg.MaxConcurrentTasks == 0:
		return nil, errors.New("a worker runs at least one task at once: --capacity or CODERCLAW_MAX_CONCURRENT_TASKS")
	}
	options := []api.Option{api.WithRetries(0), api.WithUserAgent("coderclawd/" + version)}
	if token := cfg.Token.Reveal(); token != "" {
		options = append(options, api.WithToken(token))
	}
	client, err := api.NewClient(cfg.URL, options...)
	if err != nil {
		return nil, err
	}
	own, err := loadAgents(cfg)
	if err != nil {
		return nil, err
	}
	executors, err := newExecutors(ctx, cfg, own, log)
	if err != nil {
		return nil, err
	}
	definitions := make(map[string]api.Agent, len(own))
	for _, a := range own {
		definitions[a.ID] = httpapi.WireAgent(a)
	}
	name := cfg.Worker.Name
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("name the worker: %w", err)
		}
	}
	offers := func(ctx context.Context) ([]string, error) {
		return offered(ctx, client, executors, definitions, cfg.Worker.Agents)
	}
	return worker.New(worker.Config{
		ID: name, Server: worker.NewRemote(client), Executors: executors, Agents: offers, Definitions: definitions,
		Labels: cfg.Worker.Labels, Capacity: cfg.MaxConcurrentTasks, Grace: cfg.ShutdownGrace, Patience: cfg.Worker.Patience,
		MaxArtifact: int64(cfg.Artifacts.MaxBytes), Log: log, Version: version, ServerURL: cmp.Or(cfg.PublicURL, reachable(cfg.URL)),
	}), nil
}

// reachable is the address of a server without a slash at its end, or "" for a
// Unix socket, which agents elsewhere cannot call.
func reachable(url string) string {
	if strings.HasPrefix(url, "unix:") {
		return ""
	}
	return strings.TrimRight(url, "/")
}

// offered returns the ids of the agents that can be run here, of those that the
// server or the worker itself defines; of them only those listed, if any are.
func offered(ctx context.Context, client *api.Client, executors *executor.Set, own map[string]api.Agent, only []string) ([]string, error) {
	agents, err := client.Agents(ctx)
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", worker.Told(err))
	}
	for _, a := range own {
		agents = slices.DeleteFunc(agents, func(b api.Agent) bool { return a.ID == b.ID })
		agents = append(agents, a)
	}
	ids := []string{}
	for _, a := range agents {
		if executors.Runnable(a) == nil && (len(only) == 0 || slices.Contains(only, a.ID)) {
			ids = append(ids, a.ID)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// newExecutors is what can run agents on this machine, of which agents.yaml
// defines its own. It says which agents of
// the Agent Client Protocol there are.
func newExecutors(ctx context.Context, cfg config.Config, own []registry.Agent, log *slog.Logger) (*executor.Set, error) {
	o := executor.Options{
		WorkspaceRoot: cfg.WorkspaceRoot, StateDir: filepath.Join(cfg.DataDir, "worker"),
		LLM: executor.OpenAIOptions{BaseURL: cfg.LLM.BaseURL, APIKey: cfg.LLM.APIKey.Reveal(), Model: cfg.LLM.Model},
		Checkouts: executor.CheckoutOptions{
			Repositories: cfg.Workspace.Repositories, Cleanup: executor.Cleanup(cfg.Workspace.Cleanup), Quota: int64(cfg.Workspace.Quota) << 20,
		},
	}
	for _, a := range own {
		o.Own = append(o.Own, a.ID)
	}
	found := executor.FindACP(cfg.ACP.Command)
	for _, p := range found {
		log.InfoContext(ctx, "agent that speaks the Agent Client Protocol found", "command", strings.Join(p.Command, " "))
	}
	if len(found) > 0 {
		o.ACP = &found[0]
		if cfg.LLM.BaseURL == "" {
			log.InfoContext(ctx, "agents that need a model run through it, for there is no model endpoint", "command", strings.Join(o.ACP.Command, " "))
		}
	}
	return executor.NewSet(o)
}

// loadAgents reads the operator's agents.yaml, if there is one.
func loadAgents(cfg config.Config) ([]registry.Agent, error) {
	agents, err := registry.LoadAgents(filepath.Join(cfg.ConfigDir, "agents.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return agents, err
}
