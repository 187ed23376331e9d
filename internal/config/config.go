// Package config reads what an operator may set, once and at start: the
// built-in defaults, then runtime.yaml in the configuration directory, then
// CODERCLAW_* environment variables, then flags; later wins.
//
// It refuses to guess. Unknown keys and wrong values are faults, all of them
// reported at once: those of the file with line and column, those of the
// environment with the variable's name. Unknown CODERCLAW_* names are only
// warned about, for the environment is shared with clients and other versions.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is everything that can be set. A comment names the environment
// variable, and the key in runtime.yaml where there is one.
type Config struct {
	// CODERCLAW_MODE, mode, deployment.mode: local-only (default),
	// remote-enabled or distributed-cluster.
	Mode Mode
	// transport.type: local (default), http, websocket or grpc.
	TransportType TransportType `ignored:"true"`
	// transport.enabled. Default: true.
	TransportEnabled bool `ignored:"true"`
	// security.enforceTrust: whether devices must be trusted. Default: false.
	EnforceTrust bool `ignored:"true"`
	// CODERCLAW_REQUIRE_AUTH, security.requireAuth: whether requests need a
	// credential. Default: false, which is accepted on loopback only.
	RequireAuth bool `split_words:"true"`
	// security.defaultRoles: the roles of whoever comes without a credential
	// while none is required. Default: developer.
	DefaultRoles []string `ignored:"true"`
	// deployment.allowRemoteSessions. Default: false.
	AllowRemoteSessions bool `ignored:"true"`
	// CODERCLAW_MAX_CONCURRENT_TASKS, deployment.maxConcurrentTasks: how many
	// tasks the server's own worker runs at once, 1 to 10000. Default: 10.
	MaxConcurrentTasks int `split_words:"true"`

	// CODERCLAW_LISTEN: where the API listens, host:port or unix:/path.
	// Default: 127.0.0.1:7433.
	Listen string
	// CODERCLAW_METRICS_LISTEN: where /metrics listens, in the same form.
	// Default: empty, beside the API.
	MetricsListen string `split_words:"true"`
	// CODERCLAW_TOKEN, CODERCLAW_TOKEN_FILE: the bearer token that the server
	// accepts; whoever sends it has the role admin.
	Token Secret
	// CODERCLAW_SHUTDOWN_GRACE: how long running tasks may go on after a
	// signal to stop. Default: 20s.
	ShutdownGrace time.Duration `split_words:"true"`

	// CODERCLAW_DATABASE_URL, CODERCLAW_DATABASE_URL_FILE: the PostgreSQL
	// database, as a URL or in keyword form.
	DatabaseURL Secret `split_words:"true"`
	// CODERCLAW_DATABASE_MAX_CONNS: the size of the connection pool. Default:
	// 0, by the number of processors.
	DatabaseMaxConns int `split_words:"true"`
	// CODERCLAW_EMBEDDED_POSTGRES: run a private PostgreSQL in the data
	// directory instead of connecting to one. Default: false.
	EmbeddedPostgres bool `split_words:"true"`
	// CODERCLAW_NO_INSTALL: never install PostgreSQL's programs, even where
	// that could be done. Default: false.
	NoInstall bool `split_words:"true"`

	// CODERCLAW_CONFIG_DIR: holds runtime.yaml and agents.yaml. Default:
	// ~/.coderclaw/.coderClaw, or /etc/coderclaw for a user without a home.
	ConfigDir string `split_words:"true"`
	// CODERCLAW_DATA_DIR: holds the private PostgreSQL. Default:
	// ~/.coderclaw/data; /var/lib/coderclaw as root, because PostgreSQL's own
	// user must reach it, and for a user without a home.
	DataDir string `split_words:"true"`
	// CODERCLAW_WORKSPACE_ROOT: the directory that agents work in and never
	// leave. Default: the working directory.
	WorkspaceRoot string `split_words:"true"`

	// The model endpoint.
	LLM LLM

	// CODERCLAW_LOG_LEVEL: debug, info (default), warn or error.
	LogLevel LogLevel `split_words:"true"`
	// CODERCLAW_LOG_FORMAT: text, json or auto (default), which is text on a
	// terminal and JSON otherwise.
	LogFormat LogFormat `split_words:"true"`
}

// LLM is an OpenAI-compatible chat-completions endpoint.
type LLM struct {
	// CODERCLAW_LLM_BASE_URL, e.g. http://127.0.0.1:11434/v1. Default: empty,
	// no endpoint.
	BaseURL string `split_words:"true"`
	// CODERCLAW_LLM_API_KEY, CODERCLAW_LLM_API_KEY_FILE: sent as a bearer
	// token. Default: none.
	APIKey Secret `split_words:"true"`
	// CODERCLAW_LLM_MODEL: the model for tasks and agents that name none.
	Model string
}

// Default returns the built-in defaults for this user and working directory.
func Default() Config {
	configDir, dataDir := defaultDirs(home(), os.Geteuid() == 0)
	workspace, _ := os.Getwd() // empty when the directory is gone: refused unless one is set
	return Config{
		Mode:               LocalOnly,
		TransportType:      TransportLocal,
		TransportEnabled:   true,
		DefaultRoles:       []string{"developer"},
		MaxConcurrentTasks: 10,
		Listen:             "127.0.0.1:7433",
		ShutdownGrace:      20 * time.Second,
		ConfigDir:          configDir,
		DataDir:            dataDir,
		WorkspaceRoot:      workspace,
		LogLevel:           LogLevel(slog.LevelInfo),
		LogFormat:          LogAuto,
	}
}

// Options says what the configuration is for.
type Options struct {
	// Flags, if not nil, is called with what file and environment gave, before
	// the values are checked. It is too late for it to say where the file is.
	Flags func(*Config)
	// Serves says that the process will answer requests and run tasks, so that
	// the rules about who may reach it, and the workspace, are checked too.
	Serves bool
}

// Load reads and checks the configuration. Warnings are for the log. The error
// holds all faults, one a line, and never a secret's value.
func Load(o Options) (c Config, warnings []string, err error) {
	c = Default()
	if dir := os.Getenv(configDirVariable); dir != "" {
		c.ConfigDir = dir
	}
	fileErr := c.readRuntimeFile(filepath.Join(c.ConfigDir, runtimeFilename))
	known, environmentErr := c.readEnvironment()
	if o.Flags != nil {
		o.Flags(&c)
	}
	c.makePathsAbsolute()
	// Without what the file says, the rules about serving would accuse settings
	// that nobody made.
	if err := errors.Join(fileErr, environmentErr, c.check(o.Serves && fileErr == nil)); err != nil {
		return Config{}, nil, err
	}
	return c, append(unknownVariables(known), c.ineffective()...), nil
}

// Insecure lists the settings that are weaker than they could be, each as a
// sentence for the log at start.
func (c Config) Insecure() []string {
	var found []string
	if !c.RequireAuth {
		found = append(found, fmt.Sprintf("security.requireAuth is false: whoever reaches %s acts with the roles [%s]",
			c.Listen, strings.Join(c.DefaultRoles, ", ")))
	}
	if !c.EnforceTrust {
		found = append(found, "security.enforceTrust is false: devices are not checked")
	}
	if token := c.Token.Reveal(); token != "" && len(token) < 16 {
		found = append(found, "CODERCLAW_TOKEN is shorter than 16 characters and could be guessed")
	}
	if c.LLM.APIKey.Reveal() != "" && sendsInClear(c.LLM.BaseURL) {
		found = append(found, "CODERCLAW_LLM_BASE_URL is plain http to another machine: CODERCLAW_LLM_API_KEY and all prompts travel unencrypted")
	}
	return found
}

// ineffective lists what is set and does nothing.
func (c *Config) ineffective() []string {
	var found []string
	if c.EnforceTrust {
		found = append(found, "security.enforceTrust is true, but this version has no device trust: devices are not checked")
	}
	if c.LLM.BaseURL == "" && (c.LLM.APIKey.Reveal() != "" || c.LLM.Model != "") {
		found = append(found, "CODERCLAW_LLM_API_KEY and CODERCLAW_LLM_MODEL do nothing without CODERCLAW_LLM_BASE_URL")
	}
	return found
}

// Mode is how far the runtime reaches.
type Mode string

// The modes.
const (
	LocalOnly          Mode = "local-only"
	RemoteEnabled      Mode = "remote-enabled"
	DistributedCluster Mode = "distributed-cluster"
)

// UnmarshalText accepts the name of a mode.
func (m *Mode) UnmarshalText(text []byte) error {
	return choose(m, text, LocalOnly, RemoteEnabled, DistributedCluster)
}

// TransportType is how clients of the runtime are expected to reach it.
type TransportType string

// The transports.
const (
	TransportLocal     TransportType = "local"
	TransportHTTP      TransportType = "http"
	TransportWebSocket TransportType = "websocket"
	TransportGRPC      TransportType = "grpc"
)

// UnmarshalText accepts the name of a transport.
func (t *TransportType) UnmarshalText(text []byte) error {
	return choose(t, text, TransportLocal, TransportHTTP, TransportWebSocket, TransportGRPC)
}

// LogFormat is how log lines are written.
type LogFormat string

// The log formats.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// UnmarshalText accepts the name of a format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	return choose(f, text, LogAuto, LogText, LogJSON)
}

// LogLevel is the least severe level that is logged. It is a slog.Leveler.
type LogLevel slog.Level

// Level returns the level in slog's terms.
func (l LogLevel) Level() slog.Level { return slog.Level(l) }

// UnmarshalText accepts debug, info, warn and error.
func (l *LogLevel) UnmarshalText(text []byte) error {
	var name string
	if err := choose(&name, text, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	return (*slog.Level)(l).UnmarshalText(text)
}

func choose[T ~string](into *T, text []byte, allowed ...T) error {
	if !slices.Contains(allowed, T(text)) {
		names := make([]string, len(allowed))
		for i, a := range allowed {
			names[i] = string(a)
		}
		return fmt.Errorf("%.40q is not one of %s", text, strings.Join(names, ", "))
	}
	*into = T(text)
	return nil
}
