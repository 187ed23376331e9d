package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/internal/artifact"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/config"
	"github.com/coderclaw/runtime/internal/httpapi"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/embedded"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
	"github.com/coderclaw/runtime/internal/worker"
	"github.com/coderclaw/runtime/migrations"
)

// drainTimeout is how long requests that are being answered may take once the
// server is to stop.
const drainTimeout = 10 * time.Second

// serve runs a server until ctx ends, then stops it gracefully: requests are
// finished, streams ended, running tasks given their grace, the private
// PostgreSQL shut down.
func serve(ctx context.Context, stderr io.Writer, flags func(*config.Config)) (err error) {
	cfg, warnings, err := config.Load(config.Options{Flags: flags, Serves: true})
	if err != nil {
		return err
	}
	log := newLogger(stderr, cfg)
	for _, w := range append(warnings, cfg.Insecure()...) {
		log.WarnContext(ctx, "configuration", "note", w)
	}
	url, stopDatabase, err := openDatabase(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopDatabase()) }()
	if err := postgres.Migrate(ctx, url, migrations.FS); err != nil {
		return err
	}
	options := []postgres.Option{postgres.As(postgres.AppRole)}
	if n := cfg.DatabaseMaxConns; n > 0 {
		options = append(options, postgres.MaxConns(int32(n)))
	}
	pool, err := postgres.Open(ctx, url, options...)
	if err != nil {
		return err
	}
	defer pool.Close()
	s, err := newServer(ctx, cfg, pool, log)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// openDatabase returns the URL of the database to use, and how to leave it.
func openDatabase(ctx context.Context, cfg config.Config, log *slog.Logger) (url string, stop func() error, err error) {
	if !cfg.EmbeddedPostgres {
		if cfg.DatabaseURL.Reveal() == "" {
			return "", nil, errors.New("set CODERCLAW_DATABASE_URL, or CODERCLAW_EMBEDDED_POSTGRES=1 for a private PostgreSQL")
		}
		return cfg.DatabaseURL.Reveal(), func() error { return nil }, nil
	}
	cluster, err := embedded.Start(ctx, embedded.Options{
		Dir: cfg.DataDir, BinDir: os.Getenv("CODERCLAW_POSTGRES_BIN"), Install: !cfg.NoInstall, Log: log,
	})
	if err != nil {
		return "", nil, err
	}
	return cluster.URL("coderclaw"), func() error {
		// The signal that ended ctx must not cut the shutdown short.
		return cluster.Stop(context.WithoutCancel(ctx))
	}, nil
}

// server is a running server's parts.
type server struct {
	cfg       config.Config
	log       *slog.Logger
	bus       bus
	audit     *audit.Log
	identity  *identity.Service
	providers *providers
	tasks     *task.Service
	webhooks  *webhook.Service
	http      *httpapi.Server
	worker    *worker.Worker // nil: tasks are run elsewhere
	tls       *tls.Config    // nil: plain HTTP
}

// bus is what stream.Memory and stream.Postgres have in common.
type bus interface {
	Publish(...stream.Signal)
	Deliver(...stream.Signal)
	Subscribe(func(stream.Signal)) (cancel func())
}

func newServer(ctx context.Context, cfg config.Config, pool *pgxpool.Pool, log *slog.Logger) (*server, error) {
	s := &server{cfg: cfg, log: log, bus: &stream.Memory{}}
	// Only a private database is sure to have no other server on it.
	shared := !cfg.EmbeddedPostgres
	if shared {
		s.bus = stream.NewPostgres(pool, log)
	}
	var err error
	if s.audit, err = newAuditLog(ctx, cfg, pool, s.bus, log); err != nil {
		return nil, err
	}
	fromFile, err := loadAgents(cfg)
	if err != nil {
		return nil, err
	}
	executors, err := newExecutors(ctx, cfg, fromFile, log)
	if err != nil {
		return nil, err
	}
	agents := registry.New(pool, registry.Options{
		File: fromFile,
		Runnable: func(a registry.Agent) error {
			if cfg.MaxConcurrentTasks == 0 {
				return errors.New("no worker is there that can run it")
			}
			return executors.Runnable(httpapi.WireAgent(a))
		},
		Served: func(ctx context.Context) ([]string, error) {
			if s.tasks == nil { // it is being made, of what is read here
				return nil, nil
			}
			return s.tasks.Served(ctx)
		},
		EnforceTrust: cfg.EnforceTrust, DefaultRoles: roles(cfg), Recorder: s.audit, Bus: s.bus,
		Workspace: filepath.Join(cfg.WorkspaceRoot, ".coderClaw", "security.yaml"),
	})
	if err := agents.ImportFile(ctx, cfg.SecurityFile()); err != nil {
		return nil, err
	}
	if err := agents.CheckWorkspace(ctx); err != nil {
		return nil, err
	}
	s.identity, err = identity.New(pool, identity.Options{
		PublicURL: publicURL(cfg), Policies: agents, Recorder: s.audit, Bus: s.bus, Log: log,
		DefaultRoles: roles(cfg), AllowRemoteSessions: cfg.AllowRemoteSessions,
		SessionTTL: cfg.SessionTTL, SessionCap: cfg.SessionMax, SigningKeyFile: cfg.SigningKeyFile,
	})
	if err != nil {
		return nil, err
	}
	s.providers = newProviders(cfg, agents, s.identity, s.bus, log)
	if err := s.providers.refresh(ctx); err != nil {
		return nil, err
	}
	// After the others: by the time that the engine hears of a change they know.
	claims := newClaimLatency()
	contents, err := newContents(ctx, cfg, pool, log)
	if err != nil {
		return nil, err
	}
	s.tasks = task.NewService(pool, task.Options{
		Agents: runnable{agents}, Access: agents, Submitters: submitters{s.identity, access(cfg)}, Recorder: s.audit,
		Bus: s.bus, Log: log, Shared: shared, Lease: cfg.WorkerLease,
		Watched:  func() bool { return s.http == nil || s.http.Streaming() },
		Contents: contents, MaxArtifact: int64(cfg.Artifacts.MaxBytes), MaxArtifacts: int64(cfg.Artifacts.MaxTaskBytes), Retention: time.Duration(cfg.Retention),
		Claimed: func(waited time.Duration) { claims.Observe(waited.Seconds()) },
	})
	if err := s.tasks.Prepare(ctx); err != nil {
		return nil, err
	}

	s.webhooks = webhook.NewService(pool, webhook.Options{
		Access: agents, Recorder: s.audit, Bus: s.bus, Log: log, AllowPrivate: cfg.Webhook.AllowPrivate, Shared: shared,
	})
	metrics := newMetrics(pool, claims, s.tasks, s.webhooks, s.audit)
	latest, err := postgres.Latest(migrations.FS)
	if err != nil {
		return nil, err
	}
	var hosts []string // nil: any
	if names, anyName := cfg.Hosts(); !anyName {
		hosts = append([]string{}, names...)
	}
	s.http, err = httpapi.New(httpapi.Options{
		Tasks: s.tasks, Workers: s.tasks, Artifacts: s.tasks, Limiter: s.tasks, Budgets: s.tasks, Webhooks: s.webhooks, Registry: agents, Bus: s.bus, Access: access(cfg),
		Identity: s.identity, Policies: agents, Documents: agents, Recorder: s.audit, Audit: s.audit, PublicURL: publicURL(cfg), Config: runtimeConfig(cfg),
		Proxies: cfg.TrustedProxies, Hosts: hosts, Origins: cfg.CORSOrigins,
		Limits:  httpapi.Limits{Principal: cfg.RateLimit, Anonymous: cfg.RateLimitAnonymous, Streams: cfg.MaxStreamsPerPrincipal},
		Ready:   func(ctx context.Context) error { return postgres.CheckSchema(ctx, pool, latest) },
		Metrics: metrics, HideMetrics: cfg.MetricsListen != "",
		Log: log, Version: version, Mode: string(cfg.Mode),
	})
	if err != nil {
		return nil, err
	}
	if s.tls, err = certificates(cfg, log); err != nil {
		return nil, err
	}
	if cfg.MaxConcurrentTasks == 0 {
		return s, nil
	}
	id, err := workerID(cfg)
	if err != nil {
		return nil, err
	}
	s.worker = worker.New(worker.Config{
		ID: id, Server: localServer{s.tasks, agents}, Executors: executors,
		Capacity: cfg.MaxConcurrentTasks, Grace: cfg.ShutdownGrace, Patience: cfg.Worker.Patience, MaxArtifact: int64(cfg.Artifacts.MaxBytes), Log: log, Version: version,
		ServerURL: agentsURL(cfg),
	})
	return s, nil
}

// newContents is where the bytes of artifacts are kept: new ones in the bucket if
// there is one, and else in the database, where older ones may be in any case.
func newContents(ctx context.Context, cfg config.Config, pool *pgxpool.Pool, log *slog.Logger) ([]task.Contents, error) {
	chunks := artifact.NewChunks(pool)
	s3 := cfg.Artifacts.S3
	if s3.Endpoint == "" {
		return []task.Contents{chunks}, nil
	}
	bucket, err := artifact.NewBucket(artifact.BucketOptions{
		Endpoint: s3.Endpoint, Bucket: s3.Bucket, Region: s3.Region, AccessKey: s3.AccessKey, SecretKey: s3.SecretKey.Reveal(), Prefix: s3.Prefix,
	})
	if err != nil {
		return nil, err
	}
	switch exists, err := bucket.Exists(ctx); {
	case err != nil:
		// Everything else works without.
		log.WarnContext(ctx, "artifacts cannot be put or read now", "error", err)
	case !exists:
		return nil, fmt.Errorf("CODERCLAW_ARTIFACTS_S3_BUCKET: there is no bucket %s at %s", s3.Bucket, s3.Endpoint)
	}
	return []task.Contents{bucket, chunks}, nil
}

// workerID names this server's own worker. On a private database it is always
// the same, so that after a crash its tasks are offered again at once; where
// other servers may run, each start is another worker.
func workerID(cfg config.Config) (string, error) {
	if cfg.EmbeddedPostgres {
		return "local", nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name the worker: %w", err)
	}
	return host + "-" + uuid.NewString()[:8], nil
}

func (s *server) run(ctx context.Context) error {
	listener, err := listen(ctx, s.cfg.Listen)
	if err != nil {
		return err
	}
	servers := map[net.Listener]http.Handler{listener: s.http}
	if s.cfg.MetricsListen != "" {
		l, err := listen(ctx, s.cfg.MetricsListen)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		servers[l] = s.http.MetricsHandler()
	}

	// What requests and tasks rely on goes on until both have come to their end.
	engine, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	var background errgroup.Group
	background.Go(func() error { return s.http.Run(engine) })
	background.Go(func() error { return s.tasks.Run(engine) })
	background.Go(func() error { return s.tasks.Clean(engine) })
	background.Go(func() error { return s.webhooks.Run(engine) })
	background.Go(func() error { return s.identity.Run(engine) })
	background.Go(func() error { return s.providers.run(engine) })
	background.Go(func() error { return s.audit.Run(engine) })
	background.Go(func() error { return s.retain(engine) })
	if p, ok := s.bus.(*stream.Postgres); ok {
		background.Go(func() error { return p.Run(engine) })
	}

	front, ctx := errgroup.WithContext(ctx)
	for l, handler := range servers {
		var certificates *tls.Config
		if l == listener {
			certificates = s.tls
		}
		serveHTTP(ctx, front, l, handler, certificates, s.log)
	}
	front.Go(func() error {
		<-ctx.Done()
		s.log.InfoContext(ctx, "stopping", "grace", s.cfg.ShutdownGrace)
		select {
		case <-s.http.EndStreams():
		case <-time.After(drainTimeout):
			s.log.WarnContext(ctx, "streams were cut off")
		}
		return nil
	})
	if s.worker != nil {
		front.Go(func() error { return s.worker.Run(ctx) })
	}
	if err := s.inviteAdministrator(ctx); err != nil {
		s.log.WarnContext(ctx, "no code for a first administrator", "error", err)
	}
	forget, err := s.announce(listener)
	if err != nil {
		level := slog.LevelDebug // where nobody but the server looks, nothing can be written either
		if s.cfg.EmbeddedPostgres {
			level = slog.LevelWarn
		}
		s.log.Log(ctx, level, "clients must be told the address", "error", err)
	}
	s.log.InfoContext(ctx, "serving", "url", s.urlOf(listener), "mode", s.cfg.Mode, "version", version, "pid", os.Getpid())
	err = front.Wait()
	forget()
	stopEngine()
	return errors.Join(err, background.Wait())
}

func serveHTTP(ctx context.Context, g *errgroup.Group, l net.Listener, handler http.Handler, certificates *tls.Config, log *slog.Logger) {
	srv := &http.Server{
		Handler:   handler,
		TLSConfig: certificates,
		// No ReadTimeout and no WriteTimeout: both would end streams. The
		// handler sets deadlines for each request.
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	g.Go(func() error {
		var err error
		if certificates == nil {
			err = srv.Serve(l)
		} else {
			err = srv.ServeTLS(l, "", "")
		}
		if !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := srv.Shutdown(drain); err != nil {
			log.WarnContext(ctx, "requests were cut off", "error", err)
			return srv.Close()
		}
		return nil
	})
}

// listen opens host:port or unix:/path.
func listen(ctx context.Context, address string) (net.Listener, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
		// A socket that a killed server left behind answers to nobody.
		if conn, err := (&net.Dialer{}).DialContext(ctx, network, address); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("listen on unix:%s: another server answers there", address)
		} else if err := os.Remove(address); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listen on unix:%s: %w", address, err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if network == "unix" {
		if err := os.Chmod(address, 0o600); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// urlOf is how clients on this machine reach the server by its listener.
func (s *server) urlOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	if s.tls != nil {
		return publicURL(s.cfg) // by another name the certificate would not do
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// announce writes the server's address where clients of the same user look for
// it. The returned function takes it away again, if it is still there.
func (s *server) announce(l net.Listener) (forget func(), err error) {
	path := filepath.Join(filepath.Dir(s.cfg.ConfigDir), "server.json")
	text, err := json.Marshal(struct {
		URL string `json:"url"`
		PID int    `json:"pid"`
	}{s.urlOf(l), os.Getpid()})
	if err != nil {
		return func() {}, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return func() {}, err
	}
	temp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(temp, append(text, '\n'), 0o600); err != nil {
		return func() {}, err
	}
	if err := os.Rename(temp, path); err != nil {
		return func() {}, err
	}
	return func() {
		if now, err := os.ReadFile(path); err == nil && string(now) == string(text)+"\n" {
			_ = os.Remove(path) // a stale address does little harm
		}
	}, nil
}

// openAPI renders the document without a database.
func openAPI() ([]byte, error) {
	s, err := httpapi.New(httpapi.Options{
		Bus: &stream.Memory{}, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	return s.OpenAPI()
}
