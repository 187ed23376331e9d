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
	// security.enforceTrust: whether devices must be trusted as far as the
	// policies say. Default: false.
	EnforceTrust bool `ignored:"true"`
	// CODERCLAW_REQUIRE_AUTH, security.requireAuth: whether requests need a
	// credential. Default: false, which is accepted on loopback only.
	RequireAuth bool `split_words:"true"`
	// security.defaultRoles: the roles of whoever has none bound, and of whoever
	// comes without a credential while none is required. Built-in ones, or those
	// of security.yaml: the server refuses to start with one that neither knows.
	// Default: developer.
	DefaultRoles []string `ignored:"true"`
	// CODERCLAW_ALLOW_REMOTE_SESSIONS, deployment.allowRemoteSessions: whether
	// sessions can be opened from other machines. Default: false.
	AllowRemoteSessions bool `split_words:"true"`
	// CODERCLAW_MAX_CONCURRENT_TASKS, deployment.maxConcurrentTasks: how many
	// tasks the server's own worker, or this one, runs at once, up to 10000; 0:
	// the server runs none itself. Default: 10.
	MaxConcurrentTasks int `split_words:"true"`

	// CODERCLAW_LISTEN: where the API listens, host:port or unix:/path.
	// Default: 127.0.0.1:7433.
	Listen string
	// CODERCLAW_PUBLIC_URL: how clients reach the server, https://host[:port],
	// or http for this machine alone; without a slash at its end once it is
	// read. Tokens are issued by and for it, and logins return to it. Default:
	// empty, the address that is listened on.
	PublicURL string `split_words:"true"`
	// CODERCLAW_METRICS_LISTEN: where /metrics listens, in the same form.
	// Default: empty, beside the API.
	MetricsListen string `split_words:"true"`
	// CODERCLAW_TOKEN, CODERCLAW_TOKEN_FILE: the operator's bearer token, which
	// belongs to no account; whoever sends it has the role admin. Default: none.
	Token Secret
	// CODERCLAW_SHUTDOWN_GRACE: how long running tasks may go on after a
	// signal to stop. Default: 20s.
	ShutdownGrace time.Duration `split_words:"true"`

	// The server's certificate, as files or from a certificate authority that
	// speaks ACME. Without either the API is plain HTTP.
	TLS  TLS
	ACME ACME
	// CODERCLAW_TRUSTED_PROXIES: the addresses and networks (CIDR) of proxies
	// that are believed when X-Forwarded-For names their client. Default: none.
	TrustedProxies Prefixes `split_words:"true"`
	// CODERCLAW_ALLOWED_HOSTS: the names and addresses, without a port, that
	// clients may call the server by, besides the host of the public URL and
	// those of this machine's loopback. Default: empty, which is any if a
	// credential is required and none otherwise.
	AllowedHosts List `split_words:"true"`
	// CODERCLAW_CORS_ORIGINS: the origins, https://host[:port], of other sites
	// whose pages may call the API, credentials included. Default: none.
	CORSOrigins List `split_words:"true"`
	// CODERCLAW_RATE_LIMIT: how many requests a principal may make per second
	// and server, in the long run; 0: any number. Default: 100.
	RateLimit int `split_words:"true"`
	// CODERCLAW_RATE_LIMIT_ANONYMOUS: how many requests without a credential an
	// address (of IPv6: a /64) may make per second and server, in the long run;
	// 0: any number. Default: 20.
	RateLimitAnonymous int `split_words:"true"`
	// CODERCLAW_MAX_STREAMS_PER_PRINCIPAL: how many streams a principal may hold
	// open on one server; 0: any number. The operator, and callers on this
	// machine where they need no credential, are not bound by it. Default: 200.
	MaxStreamsPerPrincipal int `split_words:"true"`

	// CODERCLAW_SESSION_TTL: how long a session lives that asks for no time of
	// its own. Default: 12h.
	SessionTTL time.Duration `split_words:"true"`
	// CODERCLAW_SESSION_MAX: the longest that a session may live, at most 24h.
	// Default: 24h.
	SessionMax time.Duration `split_words:"true"`
	// CODERCLAW_SIGNING_KEY_FILE: holds the private key that signs tokens, and
	// is not readable by others. Default: empty, keys in the database.
	SigningKeyFile string `split_words:"true"`
	// What this server is to the providers of logins.
	GitHub OAuthClient
	Google OAuthClient

	// Where the audit log is sealed, and for how long it is kept.
	Audit Audit

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

	// CODERCLAW_CONFIG_DIR: holds runtime.yaml, security.yaml and agents.yaml.
	// Default: ~/.coderclaw/.coderClaw, or /etc/coderclaw for a user without a
	// home.
	ConfigDir string `split_words:"true"`
	// CODERCLAW_DATA_DIR: holds what the server keeps outside of its database,
	// each in a directory of its own: the private PostgreSQL, the checkpoints of
	// the audit log, certificates. Default: ~/.coderclaw/data;
	// /var/lib/coderclaw as root, because PostgreSQL's own user must reach it,
	// and for a user without a home.
	DataDir string `split_words:"true"`
	// CODERCLAW_WORKSPACE_ROOT: the directory that agents work in and never
	// leave. Default: the working directory.
	WorkspaceRoot string `split_words:"true"`
	// Repositories that tasks have checked out.
	Workspace Workspace

	// The model endpoint.
	LLM LLM
	// What runs the agents that need a model when there is no endpoint.
	ACP ACP

	// The files that tasks leave behind.
	Artifacts Artifacts
	// What is told to others.
	Webhook Webhook
	// CODERCLAW_RETENTION: how long tasks are kept after they ended, at least an
	// hour, with their events and artifacts: days such as 30d, or a duration.
	// They go by whole weeks. Default: 0, for ever.
	Retention Age

	// CODERCLAW_URL: the server that a worker serves, and clients ask.
	URL string
	// What a worker is.
	Worker Worker
	// CODERCLAW_WORKER_LEASE: how long a worker may not be heard of before its
	// tasks are given to others, 2s to 10m. Default: 30s.
	WorkerLease time.Duration `split_words:"true"`

	// CODERCLAW_LOG_LEVEL: debug, info (default), warn or error.
	LogLevel LogLevel `split_words:"true"`
	// CODERCLAW_LOG_FORMAT: text, json or auto (default), which is text on a
	// terminal and JSON otherwise.
	LogFormat LogFormat `split_words:"true"`
}

// Workspace says what a task may have checked out to work in.
type Workspace struct {
	// CODERCLAW_WORKSPACE_REPOSITORIES: addresses of git repositories, and with a
	// slash at the end what addresses begin with: https://, ssh:// or file://.
	// Default: none.
	Repositories List
	// CODERCLAW_WORKSPACE_CLEANUP: when a checkout is removed: always (default),
	// onSuccess or never.
	Cleanup Cleanup
	// CODERCLAW_WORKSPACE_QUOTA: how much of the disk a checkout may take, in MiB;
	// 0: any. Default: 10240.
	Quota int
}

// Worker is what a worker process says of itself.
type Worker struct {
	// CODERCLAW_WORKER_NAME: its id, the same after a restart. Default: the name
	// of the machine.
	Name string
	// CODERCLAW_WORKER_AGENTS: the agents that it serves. Default: all that it
	// can run.
	Agents List
	// CODERCLAW_WORKER_LABELS: what tasks can require of it, as name=value.
	Labels Labels
	// CODERCLAW_WORKER_PATIENCE: how long an agent that does nothing but wait for
	// people keeps its place, if it can be stopped and go on later. Default: 30s.
	Patience time.Duration
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

// Artifacts bounds the files that tasks leave behind.
type Artifacts struct {
	// CODERCLAW_ARTIFACTS_MAX_BYTES: how many bytes one may have. Default:
	// 67108864, 64 MiB.
	MaxBytes int `split_words:"true"`
	// CODERCLAW_ARTIFACTS_MAX_TASK_BYTES: how many those of a task may have
	// together. Default: 1073741824, 1 GiB.
	MaxTaskBytes int `split_words:"true"`
	// Where they are kept. Without an endpoint it is the database.
	S3 S3
}

// Webhook says where status changes of tasks may be posted to.
type Webhook struct {
	// CODERCLAW_WEBHOOK_ALLOW_PRIVATE: also to private networks and this machine,
	// on any port and without TLS, and not to public addresses on port 443 alone.
	// Default: false.
	AllowPrivate bool `split_words:"true"`
}

// S3 is a bucket of an S3-compatible service.
type S3 struct {
	// CODERCLAW_ARTIFACTS_S3_ENDPOINT, e.g. https://s3.example.com. Default:
	// empty, no bucket.
	Endpoint string
	// CODERCLAW_ARTIFACTS_S3_BUCKET: the name of the bucket, which must exist.
	Bucket string
	// CODERCLAW_ARTIFACTS_S3_REGION. Default: empty, the service is asked.
	Region string
	// CODERCLAW_ARTIFACTS_S3_ACCESS_KEY: the id of the key.
	AccessKey string `split_words:"true"`
	// CODERCLAW_ARTIFACTS_S3_SECRET_KEY, CODERCLAW_ARTIFACTS_S3_SECRET_KEY_FILE:
	// the key.
	SecretKey Secret `split_words:"true"`
	// CODERCLAW_ARTIFACTS_S3_PREFIX: what the keys of objects begin with. Default:
	// empty.
	Prefix string
}

// ACP is an agent that speaks the Agent Client Protocol and brings its own
// model.
type ACP struct {
	// CODERCLAW_ACP_COMMAND: its program and arguments, words between spaces, or
	// none. Default: the first that is installed of those that are known.
	Command string
}

// OAuthClient is what a provider of logins knows this server by. Its id is no
// secret and stands in security.yaml.
type OAuthClient struct {
	// CODERCLAW_GITHUB_CLIENT_SECRET, CODERCLAW_GOOGLE_CLIENT_SECRET, each also
	// with _FILE. Default: none.
	ClientSecret Secret `split_words:"true"`
}

// Audit says where the proof of what the audit log holds goes.
type Audit struct {
	// CODERCLAW_AUDIT_CHECKPOINT_FILE: signed checkpoints are appended to it. Who
	// can change the database should not be able to change it. Default:
	// audit/checkpoints in the data directory, beside the private PostgreSQL.
	CheckpointFile string `split_words:"true"`
	// CODERCLAW_AUDIT_KEY_FILE: holds the private key that signs checkpoints,
	// not readable by others; it is made if there is none. Default: the file key
	// beside the checkpoints.
	KeyFile string `split_words:"true"`
	// CODERCLAW_AUDIT_WITNESS_URL: each checkpoint is posted there too. Default:
	// empty, nowhere.
	WitnessURL string `split_words:"true"`
	// CODERCLAW_AUDIT_RETENTION_DAYS: the days after which what an entry says is
	// deleted; 0: never. Default: 0.
	RetentionDays int `split_words:"true"`
}

// Default returns the built-in defaults for this user and working directory.
// Those that depend on other settings are still empty.
func Default() Config {
	configDir, dataDir := defaultDirs(home(), os.Geteuid() == 0)
	workspace, _ := os.Getwd() // empty when the directory is gone: refused unless one is set
	return Config{
		Mode:                   LocalOnly,
		TransportType:          TransportLocal,
		TransportEnabled:       true,
		DefaultRoles:           []string{"developer"},
		MaxConcurrentTasks:     10,
		Listen:                 "127.0.0.1:7433",
		ShutdownGrace:          20 * time.Second,
		ACME:                   ACME{DirectoryURL: "https://acme-v02.api.letsencrypt.org/directory"},
		RateLimit:              100,
		RateLimitAnonymous:     20,
		MaxStreamsPerPrincipal: 200,
		SessionTTL:             12 * time.Hour,
		SessionMax:             24 * time.Hour,
		Artifacts:              Artifacts{MaxBytes: 64 << 20, MaxTaskBytes: 1 << 30},
		ConfigDir:              configDir,
		DataDir:                dataDir,
		WorkspaceRoot:          workspace,
		Workspace:              Workspace{Cleanup: CleanupAlways, Quota: 10_240},
		Worker:                 Worker{Patience: 30 * time.Second},
		WorkerLease:            30 * time.Second,
		LogLevel:               LogLevel(slog.LevelInfo),
		LogFormat:              LogAuto,
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
	c.complete()
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
	if network, address, err := ParseListen(c.Listen); err == nil && c.RequireAuth && !local(network, address) && !c.ServesTLS() {
		found = append(found, fmt.Sprintf("%s is plain HTTP and can be reached from other machines: "+
			"set CODERCLAW_TLS_CERT_FILE or CODERCLAW_ACME_DOMAINS, or see that only a proxy that ends TLS reaches it", c.Listen))
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
	if c.Webhook.AllowPrivate {
		found = append(found, "CODERCLAW_WEBHOOK_ALLOW_PRIVATE is set: whoever may make webhooks has the server post to private networks and this machine")
	}
	if sendsInClear(c.Artifacts.S3.Endpoint) {
		found = append(found, "CODERCLAW_ARTIFACTS_S3_ENDPOINT is plain http to another machine: artifacts travel unencrypted")
	}
	return found
}

// ineffective lists what is set and does nothing.
func (c *Config) ineffective() []string {
	var found []string
	if network, _, err := ParseListen(c.Listen); err == nil && network == "unix" && c.hasCertificate() {
		found = append(found, "CODERCLAW_TLS_CERT_FILE and CODERCLAW_ACME_DOMAINS do nothing on a Unix socket")
	}
	if c.ACME.Email != "" && len(c.ACME.Domains) == 0 {
		found = append(found, "CODERCLAW_ACME_EMAIL does nothing without CODERCLAW_ACME_DOMAINS")
	}
	if c.LLM.BaseURL == "" && (c.LLM.APIKey.Reveal() != "" || c.LLM.Model != "") {
		found = append(found, "CODERCLAW_LLM_API_KEY and CODERCLAW_LLM_MODEL do nothing without CODERCLAW_LLM_BASE_URL")
	}
	if s3 := c.Artifacts.S3; s3.Endpoint == "" && (s3.Bucket != "" || s3.AccessKey != "" || s3.SecretKey.Reveal() != "") {
		found = append(found, "CODERCLAW_ARTIFACTS_S3_BUCKET, _ACCESS_KEY and _SECRET_KEY do nothing without CODERCLAW_ARTIFACTS_S3_ENDPOINT")
	}
	return found
}
