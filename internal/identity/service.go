package identity

import (
	"cmp"
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
)

// How long sessions live.
const (
	DefaultSessionTTL = 12 * time.Hour
	MaxSessionTTL     = 24 * time.Hour
	// AccessTokenTTL is how long an access token is good for before it must be
	// refreshed; it ends with its session, too.
	AccessTokenTTL = 10 * time.Minute
)

// Policies says what the documents of the organisation and of a project allow.
type Policies interface {
	Policy(ctx context.Context, projectID string) (*policy.Policy, error)
}

// Recorder takes entries that belong to no change: denials and errors. It
// keeps them as best it can.
type Recorder interface {
	Record(ctx context.Context, e audit.Entry)
}

// Bus carries signals to whoever follows.
type Bus interface {
	Publish(...stream.Signal)
	// Deliver is Publish within this process.
	Deliver(...stream.Signal)
	Subscribe(func(stream.Signal)) (cancel func())
}

// Options are what New needs besides the database.
type Options struct {
	// PublicURL is how clients reach the server: the issuer of its access
	// tokens, and what proofs of device keys must name.
	PublicURL string
	// Audience of the access tokens. Default: PublicURL.
	Audience string
	// Providers check external credentials; nil: there are none.
	Providers *provider.Set
	Policies  Policies
	Recorder  Recorder
	Bus       Bus
	Log       *slog.Logger
	// DefaultRoles are those of a user to whom nothing else gives any.
	DefaultRoles []policy.Role
	// AllowRemoteSessions lets sessions be opened from other machines.
	AllowRemoteSessions bool
	// SessionTTL is how long a session lives unless something else is asked
	// for, SessionCap the longest that may be asked for. Defaults:
	// DefaultSessionTTL, MaxSessionTTL; more than MaxSessionTTL is never given.
	SessionTTL, SessionCap time.Duration
	// SigningKeyFile holds the key of the access tokens; by default it is in
	// the database and is changed now and then.
	SigningKeyFile string
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Service answers who is asking. Its methods may be called concurrently.
type Service struct {
	pool         *pgxpool.Pool
	providers    atomic.Pointer[provider.Set]
	policies     Policies
	recorder     Recorder
	bus          Bus
	log          *slog.Logger
	defaultRoles []policy.Role
	allowRemote  bool
	sessionTTL   time.Duration
	sessionCap   time.Duration
	now          func() time.Time

	issuer     token.Issuer
	keys       *keyring
	generation generation
	sessions   *lru.Cache[uuid.UUID, *standing] // valid when they were read
	accepted   *lru.Cache[digest, acceptance]   // credentials that were accepted
	replays    *dpop.Replays
	guard      guard
	seen       seen
	watched    atomic.Int64 // when Valid was asked last, in Unix nanoseconds
}

// What a server remembers, at most. A session takes about 1 KiB.
const (
	maxSessions    = 20_000
	maxCredentials = 20_000
	maxProofs      = 1_000_000
)

// New returns the service over the database in pool. Call Run to keep it going.
// The error is of a signing key file that cannot be used or a missing URL.
func New(pool *pgxpool.Pool, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	// What the database stores has microseconds; what was stored must equal
	// what was meant.
	now := func() time.Time { return o.Now().Truncate(time.Microsecond) }
	s := &Service{
		pool: pool, policies: o.Policies, recorder: o.Recorder, bus: o.Bus, log: o.Log,
		defaultRoles: o.DefaultRoles, allowRemote: o.AllowRemoteSessions, now: now,
		sessionCap: min(cmp.Or(o.SessionCap, MaxSessionTTL), MaxSessionTTL),
		// Ages are measured by the monotonic clock, which rounding would strip.
		generation: generation{pool: pool, now: o.Now},
		replays:    dpop.NewReplays(maxProofs),
	}
	s.providers.Store(o.Providers)
	s.sessionTTL = min(cmp.Or(o.SessionTTL, DefaultSessionTTL), s.sessionCap)
	var err error
	if s.issuer, err = token.NewIssuer(o.PublicURL, cmp.Or(o.Audience, o.PublicURL)); err != nil {
		return nil, err
	}
	if s.keys, err = newKeyring(pool, o.Now, o.SigningKeyFile); err != nil {
		return nil, err
	}
	s.sessions = newCache[uuid.UUID, *standing](maxSessions)
	s.accepted = newCache[digest, acceptance](maxCredentials)
	s.guard.attempts = newCache[string, attempts](guarded)
	o.Bus.Subscribe(s.hear)
	return s, nil
}

// UseProviders replaces what checks external credentials; nil: there is nothing.
// Sessions go on.
func (s *Service) UseProviders(set *provider.Set) { s.providers.Store(set) }

func newCache[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // the size is not positive
	}
	return c
}

func (s *Service) hear(signal stream.Signal) {
	if signal.Topic == stream.AccessChanged || signal.Topic == stream.Resync {
		s.generation.signal()
	}
}
