package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/config"
	"github.com/coderclaw/runtime/internal/edge"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/httpapi"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/stream"
)

// publicURL is how clients reach the server, unless the operator says otherwise:
// at the address that it listens on.
func publicURL(cfg config.Config) string {
	if cfg.PublicURL != "" {
		return cfg.PublicURL
	}
	scheme := "http"
	if cfg.ServesTLS() {
		scheme = "https"
	}
	network, address, err := config.ParseListen(cfg.Listen)
	if err != nil || network == "unix" {
		return scheme + "://localhost"
	}
	host, port, _ := net.SplitHostPort(address) // it was parsed
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// agentsURL is how agents reach the server to report by themselves; empty: they
// cannot.
func agentsURL(cfg config.Config) string {
	if network, _, err := config.ParseListen(cfg.Listen); cfg.PublicURL == "" && (err != nil || network == "unix") {
		return ""
	}
	return publicURL(cfg)
}

// newAuditLog opens the log of decisions, which every commit of an entry pokes.
func newAuditLog(ctx context.Context, cfg config.Config, pool *pgxpool.Pool, b bus, log *slog.Logger) (*audit.Log, error) {
	name := "coderclaw"
	if u, err := url.Parse(publicURL(cfg)); err == nil && cfg.PublicURL != "" {
		name = u.Host
	}
	key, err := audit.LoadOrCreateKey(cfg.Audit.KeyFile, name+"/audit")
	if err != nil {
		return nil, fmt.Errorf("CODERCLAW_AUDIT_KEY_FILE: %w", err)
	}
	l := audit.New(pool, audit.Options{
		Logger: log, Key: key, CheckpointFile: cfg.Audit.CheckpointFile, WitnessURL: cfg.Audit.WitnessURL,
	})
	b.Subscribe(func(stream.Signal) { l.Poke() })
	return l, l.Prepare(ctx)
}

// certificates is how the API proves who it is, or nil for plain HTTP.
func certificates(cfg config.Config, log *slog.Logger) (*tls.Config, error) {
	switch {
	case !cfg.ServesTLS():
		return nil, nil
	case cfg.TLS.CertFile != "":
		return edge.FileTLS(cfg.TLS.CertFile, cfg.TLS.KeyFile, log)
	}
	return edge.ACMETLS(edge.ACME{
		Domains: cfg.ACME.Domains, Email: cfg.ACME.Email, DirectoryURL: cfg.ACME.DirectoryURL, CacheDir: cfg.ACMEDir(), Log: log,
	})
}

// inviteAdministrator shows the operator, where credentials are needed and
// nobody is an administrator yet, the code with which the first one logs in.
func (s *server) inviteAdministrator(ctx context.Context) error {
	if !s.cfg.RequireAuth {
		return nil
	}
	code, needed, err := s.identity.EnsureBootstrap(ctx)
	if err == nil && needed {
		s.log.InfoContext(ctx, "there is no administrator yet: clawctl login --code makes one", "code", code, "validFor", "24h")
	}
	return err
}

// runtimeConfig is what may be shown of the configuration.
func runtimeConfig(cfg config.Config) api.RuntimeConfig {
	return api.RuntimeConfig{
		Mode: string(cfg.Mode), EnforceTrust: cfg.EnforceTrust, RequireAuth: cfg.RequireAuth, DefaultRoles: cfg.DefaultRoles,
		AllowRemoteSessions: cfg.AllowRemoteSessions, MaxConcurrentTasks: cfg.MaxConcurrentTasks, PublicURL: publicURL(cfg),
	}
}

func access(cfg config.Config) httpapi.Access {
	a := httpapi.Access{Token: cfg.Token.Reveal()}
	if !cfg.RequireAuth {
		a.Anonymous = policy.Caller{UserID: "local", Roles: roles(cfg), Local: true, AllProjects: true}
	}
	return a
}

func roles(cfg config.Config) []policy.Role {
	all := make([]policy.Role, len(cfg.DefaultRoles))
	for i, r := range cfg.DefaultRoles {
		all[i] = policy.Role(r)
	}
	return all
}

// submitters knows those who have no session, too.
type submitters struct {
	identity *identity.Service
	access   httpapi.Access
}

func (s submitters) Submitter(ctx context.Context, userID, sessionID, projectID string) (policy.Caller, error) {
	var c policy.Caller
	switch {
	case s.access.Token != "" && userID == httpapi.Operator.UserID:
		c = httpapi.Operator
	case s.access.Anonymous.UserID != "" && userID == s.access.Anonymous.UserID:
		c = s.access.Anonymous
	default:
		c, err := s.identity.Submitter(ctx, sessionID)
		if err == nil && c.UserID != userID {
			err = fault.New(fault.Unauthenticated, "the session is not that of the submitter")
		}
		return c, err
	}
	// Where it came from when it was submitted is not kept.
	c.Local = true
	return c, nil
}

// providers keeps the identity service checking external credentials as the
// organisation's document says.
type providers struct {
	cfg      config.Config
	registry *registry.Registry
	identity *identity.Service
	log      *slog.Logger
	soon     chan struct{}
	version  int64
	set      *provider.Set
}

func newProviders(cfg config.Config, r *registry.Registry, i *identity.Service, b bus, log *slog.Logger) *providers {
	p := &providers{cfg: cfg, registry: r, identity: i, log: log, soon: make(chan struct{}, 1), version: -1}
	b.Subscribe(func(sig stream.Signal) {
		if sig.Topic == stream.Resync || sig.Topic == stream.AccessChanged && sig.ID == "" {
			select {
			case p.soon <- struct{}{}:
			default:
			}
		}
	})
	return p
}

// run follows changes of the document until ctx ends.
func (p *providers) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			if p.set != nil {
				p.set.Close()
			}
			return nil
		case <-p.soon:
			if err := p.refresh(ctx); err != nil && ctx.Err() == nil {
				p.log.WarnContext(ctx, "identity providers stay as they were", "error", err)
			}
		}
	}
}

// refresh builds the providers anew if the document is another.
func (p *providers) refresh(ctx context.Context) error {
	current, err := p.registry.Organization(ctx)
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return err
	}
	if current.Version == p.version {
		return nil
	}
	doc := &policy.Document{}
	if current.Version > 0 {
		if doc, err = policy.ParseDocument([]byte(current.Document), "security.yaml", policy.Organization); err != nil {
			return err
		}
	}
	conf, err := providerConfig(doc.Identity, p.cfg)
	if err != nil && p.set == nil {
		return err
	}
	if err != nil { // what the document takes away must go, whatever else is wrong with it
		p.log.ErrorContext(ctx, "identity provider left out", "error", err)
	}
	for _, name := range unconfigured(doc.Identity) {
		p.log.WarnContext(ctx, "identity provider is on but not configured, so nobody can log in by it", "provider", name)
	}
	set, err := provider.New(conf, provider.Options{Log: p.log})
	if err != nil {
		return err
	}
	p.identity.UseProviders(set)
	if p.set != nil {
		p.set.Close()
	}
	p.set, p.version = set, current.Version
	return nil
}

// providerConfig says in the providers' terms what the document says. One whose
// secret is not there is left out, and named by the error.
func providerConfig(id policy.Identity, cfg config.Config) (provider.Config, error) {
	conf := provider.Config{PublicURL: publicURL(cfg), ActionsIssuer: id.GitHubActionsIssuer}
	var faults []error
	secret := func(path, file string, set config.Secret) (text string, ok bool) {
		if file == "" {
			return set.Reveal(), true
		}
		content, err := os.ReadFile(file)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s.clientSecretFile: %w", path, err))
		}
		return strings.TrimSpace(string(content)), err == nil
	}
	for _, o := range id.OIDC {
		s, ok := secret("identity.oidc["+o.Name+"]", o.ClientSecretFile, config.Secret{})
		if !ok {
			continue
		}
		conf.OIDC = append(conf.OIDC, provider.OIDC{
			Name: o.Name, Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: s, Audiences: o.Audience, UsernameClaim: o.UsernameClaim, GroupsClaim: o.GroupsClaim,
			GroupRoles: names(o.GroupRoles), ProjectRoles: namesByProject(o.Projects), RequiredClaims: o.RequiredClaims,
		})
	}
	if g := id.GitHub; g != nil {
		if s, ok := secret("identity.github", g.ClientSecretFile, cfg.GitHub.ClientSecret); ok {
			conf.GitHub = &provider.GitHub{
				ClientID: g.ClientID, ClientSecret: s, BaseURL: g.BaseURL,
				Organizations: g.Organizations, TeamRoles: names(g.TeamRoles), AllowedUsers: g.AllowedUsers,
			}
		}
	}
	if g := id.Google; g != nil {
		if s, ok := secret("identity.google", g.ClientSecretFile, cfg.Google.ClientSecret); ok {
			conf.Google = &provider.Google{
				ClientID: g.ClientID, ClientSecret: s, HostedDomains: g.HostedDomains, DomainRoles: names(g.DomainRoles),
			}
		}
	}
	for _, a := range id.GitHubActions {
		conf.GitHubActions = append(conf.GitHubActions, provider.Rule{
			Project: a.Project, RepositoryID: a.RepositoryID, RepositoryOwnerID: a.RepositoryOwnerID, Events: a.Events, Refs: a.Refs,
			Environment: a.Environment, JobWorkflowRef: a.JobWorkflowRef, Role: string(a.Role), Audience: a.Audience,
		})
	}
	return conf, errors.Join(faults...)
}

// unconfigured names the providers that are on without being described.
func unconfigured(id policy.Identity) (names []policy.Provider) {
	for _, p := range id.Providers {
		if p == policy.OIDC && len(id.OIDC) == 0 || p == policy.GitHub && id.GitHub == nil || p == policy.Google && id.Google == nil {
			names = append(names, p)
		}
	}
	return names
}

func names(by map[string][]policy.Role) map[string][]string {
	all := make(map[string][]string, len(by))
	for key, roles := range by {
		for _, r := range roles {
			all[key] = append(all[key], string(r))
		}
	}
	return all
}

func namesByProject(by map[string]map[string][]policy.Role) map[string]map[string][]string {
	all := make(map[string]map[string][]string, len(by))
	for project, groups := range by {
		all[project] = names(groups)
	}
	return all
}
