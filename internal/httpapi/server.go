package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/edge"
	"github.com/coderclaw/runtime/internal/stream"
)

// Bus tells the server what changed.
type Bus interface {
	Subscribe(func(stream.Signal)) (cancel func())
}

// Options are what New needs.
type Options struct {
	Tasks     Tasks
	Workers   Workers
	Artifacts Artifacts
	Limiter   ConcurrencyLimits
	Budgets   Budgets
	Webhooks  Webhooks
	Registry  Registry
	Bus       Bus
	Access    Access
	Identity  Identity
	Policies  Policies
	Documents PolicyDocuments
	Recorder  Recorder
	Audit     AuditLog
	// Config is what the server was started with.
	Config api.RuntimeConfig
	// PublicURL is how clients reach the server, without a slash at its end.
	PublicURL string
	// Proxies are believed when they name their client.
	Proxies []netip.Prefix
	// Hosts are the names that the server goes by besides loopback's; nil: any.
	Hosts []string
	// Origins are those of other sites whose pages may call the API.
	Origins []string
	Limits  Limits
	// Ready returns an error while requests cannot be served.
	Ready func(context.Context) error
	// Metrics takes the server's own metrics and is what /metrics shows.
	Metrics *prometheus.Registry
	// HideMetrics leaves /metrics to another listener.
	HideMetrics bool
	Log         *slog.Logger
	Version     string
	Mode        string
}

// Server serves the API.
type Server struct {
	tasks       Tasks
	workers     Workers
	artifacts   Artifacts
	concurrency ConcurrencyLimits
	budgets     Budgets
	webhooks    Webhooks
	registry    Registry
	access      Access
	identity    Identity
	policies    Policies
	documents   PolicyDocuments
	config      api.RuntimeConfig
	recorder    Recorder
	audit       AuditLog
	publicURL   string
	limits      limits
	ready       func(context.Context) error
	metrics     *metrics
	log         *slog.Logger
	version     string
	mode        string
	started     time.Time

	router  *chi.Mux
	api     huma.API
	taskHub *stream.Hub[frame]
	logHub  *stream.Hub[logFrame]

	followings   *followings
	stop         sync.Once
	stopping     chan struct{} // closed when streams are to end
	writeTimeout time.Duration
	wave         wave
	// accessChanged wakes downloads to see whether they may go on.
	accessChanged broadcast
}

// New returns a server. Its streams live while Run runs.
func New(o Options) (*Server, error) {
	s := &Server{
		tasks: o.Tasks, workers: o.Workers, artifacts: o.Artifacts, concurrency: o.Limiter, budgets: o.Budgets, webhooks: o.Webhooks, registry: o.Registry, access: o.Access, ready: o.Ready,
		identity: o.Identity, policies: o.Policies, documents: o.Documents, config: o.Config, recorder: o.Recorder, audit: o.Audit, publicURL: o.PublicURL, limits: newLimits(o.Limits),
		metrics: newMetrics(o.Metrics), log: o.Log, version: o.Version, mode: o.Mode,
		started: time.Now(), router: chi.NewMux(), stopping: make(chan struct{}), writeTimeout: writeTimeout, followings: newFollowings(),
	}
	s.taskHub = stream.NewHub(s.readTasks, o.Log)
	s.logHub = stream.NewHub(s.readLog, o.Log)
	o.Bus.Subscribe(func(sig stream.Signal) {
		switch sig.Topic {
		case stream.TaskChanged:
			s.taskHub.Touch(sig.ID)
			s.logHub.Touch(allTasks)
		case stream.Resync:
			s.taskHub.TouchAll()
			s.logHub.TouchAll()
			s.accessHasChanged()
		case stream.AccessChanged:
			s.accessHasChanged()
		}
	})

	origins, err := edge.NewOrigins(o.PublicURL, o.Origins)
	if err != nil {
		return nil, err
	}
	s.router.Use(edge.Identify(o.Proxies), s.observe, edge.SecurityHeaders(strings.HasPrefix(o.PublicURL, "https:")), s.admit)
	if o.Hosts != nil {
		s.router.Use(edge.AllowHosts(o.Hosts, refuse))
	}
	s.router.Use(origins.CORS, origins.Protect(s.ambient, refuse))
	s.router.NotFound(s.notFound)
	s.router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			if s.router.Match(chi.NewRouteContext(), m, r.URL.Path) {
				w.Header().Add("Allow", m)
			}
		}
		writeProblem(w, r, newProblem(http.StatusMethodNotAllowed, "", r.Method+" is not served here"))
	})
	s.api = humachi.New(s.router, newConfig())
	s.api.UseMiddleware(s.authorize)
	s.registerTasks()
	s.registerRelatives()
	s.registerQuestions()
	s.registerGrants()
	s.registerAsking()
	s.registerSchedules()
	s.registerWorkers()
	s.registerAgents()
	s.registerArtifacts()
	s.registerConcurrencyLimits()
	s.registerBudgets()
	s.registerWebhooks()
	s.registerStreams()
	s.registerSessions()
	s.registerMemory()
	s.registerAccounts()
	s.registerDevices()
	s.registerGovernance()
	s.registerAudit()
	s.registerRegistry()
	s.registerSystem()
	describeObjects(s.api.OpenAPI().Components.Schemas.Map())
	if !o.HideMetrics {
		s.router.Method(http.MethodGet, "/metrics", s.MetricsHandler())
	}
	return s, s.serveDocuments()
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, r, newProblem(http.StatusNotFound, "", "there is nothing at this path"))
}

// ServeHTTP serves a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// Run feeds the streams until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.taskHub.Run(ctx) })
	g.Go(func() error { return s.logHub.Run(ctx) })
	g.Go(func() error { return s.followings.run(ctx) })
	return g.Wait()
}

// Streaming reports whether a stream is open.
func (s *Server) Streaming() bool { return s.followings.len() > 0 }

func (s *Server) accessHasChanged() {
	s.accessChanged.wake()
	s.followings.check()
}

// EndStreams ends all streams, telling clients when to come back, and makes
// /readyz answer 503. The channel is closed when no stream is left, of which
// http.Server.Shutdown does not know.
func (s *Server) EndStreams() (ended <-chan struct{}) {
	s.stop.Do(func() { close(s.stopping) })
	return s.followings.stop()
}
