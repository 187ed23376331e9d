package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// LoginCallback is the path at which browsers come back to the server.
	LoginCallback = "/v1/logins/callback"

	loginTTL    = 10 * time.Minute // for a person to log in at the provider
	loginPrefix = "ccg_"

	browserStage = "browser"
	deviceStage  = "device"
)

// What FinishLogin returns while the person has not decided yet.
var (
	ErrAuthorizationPending = provider.ErrAuthorizationPending
	// ErrSlowDown also asks for five seconds more between all attempts to come.
	ErrSlowDown = provider.ErrSlowDown
)

// NewLogin is a login at a provider that is to begin.
type NewLogin struct {
	Provider string // a name that Logins returns
	// Device has the person type in a code, in any browser (RFC 8628). Otherwise
	// a browser is sent to the provider and comes back to RedirectURI: the
	// server's LoginCallback, or where a program listens on the loopback of the
	// person's machine (RFC 8252, section 7.3).
	Device      bool
	RedirectURI string
	// CodeChallenge is the S256 (RFC 7636) of a verifier that ends the login.
	// A program on a loopback, to which others can listen too, must give one.
	CodeChallenge string
	// Session is what is to be opened; without credential, origin and enrolment.
	Session Opening
}

// Login is a login under way.
type Login struct {
	// ID is for FinishLogin. It is a secret; for a browser it belongs in a
	// cookie, since who comes back must be who was sent (RFC 6749, section 10.12).
	ID               string
	AuthorizationURL string // where to send the browser

	UserCode                string // for the person to type in at VerificationURI
	VerificationURI         string
	VerificationURIComplete string        // with the user code in it, or empty
	Interval                time.Duration // between two attempts to finish, at least
	ExpiresAt               time.Time
}

// keptLogin is what is kept of a login until it ends.
type keptLogin struct {
	Provider      string
	CodeChallenge string
	Session       Opening

	// By browser.
	State, Nonce, Verifier, RedirectURI string
	// By device.
	DeviceCode string
	Interval   time.Duration
}

// BeginLogin begins a login.
//
// Faults: NotFound if nobody can log in there, Invalid, Unavailable.
func (s *Service) BeginLogin(ctx context.Context, n NewLogin) (Login, error) {
	if err := s.checkLogin(n); err != nil {
		return Login{}, err
	}
	flow, err := s.flow(ctx, n.Provider)
	if err != nil {
		return Login{}, err
	}
	kept := keptLogin{Provider: n.Provider, CodeChallenge: n.CodeChallenge, Session: n.Session}
	var l Login
	var hash []byte
	l.ID, hash = token.NewSecret(loginPrefix)
	if n.Device {
		start, err := flow.StartDevice(ctx)
		if err != nil {
			return Login{}, err
		}
		l.UserCode, l.VerificationURI, l.VerificationURIComplete = start.UserCode, start.VerificationURI, start.VerificationURIComplete
		l.Interval, l.ExpiresAt = start.Interval, start.ExpiresAt.UTC()
		kept.DeviceCode, kept.Interval = start.DeviceCode, start.Interval
		return l, s.keepLogin(ctx, deviceStage, hash, kept, l.ExpiresAt)
	}
	kept.State, kept.Nonce, kept.Verifier, kept.RedirectURI = rand.Text(), rand.Text(), rand.Text()+rand.Text(), n.RedirectURI
	l.ExpiresAt = s.now().Add(loginTTL).UTC()
	if l.AuthorizationURL, err = flow.AuthCodeURL(ctx, provider.AuthRequest{
		State: kept.State, Nonce: kept.Nonce, CodeChallenge: challengeOf(kept.Verifier), RedirectURI: kept.RedirectURI,
	}); err != nil {
		return Login{}, err
	}
	return l, s.keepLogin(ctx, browserStage, hash, kept, l.ExpiresAt)
}

func (s *Service) checkLogin(n NewLogin) error {
	var f faults
	loopback := isLoopback(n.RedirectURI)
	if !n.Device && !loopback && n.RedirectURI != s.issuer.URL()+LoginCallback {
		f.bad("redirectUrl", "must be %s, or http on the loopback of the person's machine", s.issuer.URL()+LoginCallback)
	}
	sum, err := base64.RawURLEncoding.DecodeString(n.CodeChallenge)
	if n.CodeChallenge != "" && (err != nil || len(sum) != sha256.Size) {
		f.bad("codeChallenge", "must be the S256 of a verifier")
	}
	if loopback && n.CodeChallenge == "" {
		f.bad("codeChallenge", "is required where the browser comes back to a program")
	}
	f.opening("session.", n.Session, s.sessionCap)
	if n.Session.Enrol != (DeviceEnrolment{}) {
		f.bad("session.deviceName", "goes where the login is ended, as the enrolment code does")
	}
	return f.err()
}

// isLoopback is strict, for whoever is sent the browser is sent the code. A name
// may be made to mean another address.
func isLoopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Opaque != "" || u.Fragment != "" || len(address) > 2048 {
		return false
	}
	ip, err := netip.ParseAddr(strings.Trim(u.Hostname(), "[]"))
	return err == nil && ip.IsLoopback() && u.Port() != ""
}

// challengeOf is the S256 of PKCE (RFC 7636, section 4.2).
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// flow returns how to log in at a provider that the policy accepts.
func (s *Service) flow(ctx context.Context, name string) (provider.Flow, error) {
	p, err := s.policies.Policy(ctx, "")
	if err != nil {
		return nil, err
	}
	if set := s.providers.Load(); set != nil && accepts(p, name) {
		if flow, ok := set.Login(name); ok {
			return flow, nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no login by %.60q", name)
}

// LoginEnd ends a login.
type LoginEnd struct {
	ID string // of the Login
	// Code and State are what the browser came back with.
	Code, State string
	// CodeVerifier is that of the CodeChallenge, if there was one.
	CodeVerifier string
	Enrol        DeviceEnrolment
}

// FinishLogin opens the session of a login: by browser once, well or badly; by
// device when the person has decided. Until then it returns
// ErrAuthorizationPending or ErrSlowDown; however often it is asked, the
// provider is asked no more than it wants.
//
// Faults: as of OpenSession.
func (s *Service) FinishLogin(ctx context.Context, e LoginEnd, o Origin) (Opened, error) {
	kept, identity, err := s.finishLogin(ctx, e)
	if errors.Is(err, provider.ErrAuthorizationPending) || errors.Is(err, provider.ErrSlowDown) {
		return Opened{}, err
	}
	if err != nil {
		return Opened{}, s.refused(ctx, o.caller("", ""), err)
	}
	kept.Session.Credential, kept.Session.Origin, kept.Session.Enrol = Credential{Identity: &identity}, o, e.Enrol
	return s.OpenSession(ctx, kept.Session)
}

func (s *Service) finishLogin(ctx context.Context, e LoginEnd) (kept keptLogin, i provider.Identity, err error) {
	hash, ok := token.ParseSecret(loginPrefix, e.ID)
	if !ok {
		return kept, i, errNoLogin
	}
	if e.Code == "" {
		return s.finishByDevice(ctx, hash, e.CodeVerifier)
	}
	if kept, err = s.takeLogin(ctx, browserStage, hash); err != nil {
		return kept, i, err
	}
	if !same(kept.State, e.State) || !kept.verifies(e.CodeVerifier) {
		return kept, i, errEnded("the state or the verifier is not that of the login")
	}
	flow, err := s.flow(ctx, kept.Provider)
	if err != nil {
		return kept, i, err
	}
	i, err = flow.Exchange(ctx, provider.AuthResponse{
		Code: e.Code, CodeVerifier: kept.Verifier, Nonce: kept.Nonce, RedirectURI: kept.RedirectURI,
	})
	return kept, i, err
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func (k keptLogin) verifies(verifier string) bool {
	return k.CodeChallenge == "" || same(k.CodeChallenge, challengeOf(verifier))
}

// slowDown is added to the interval where the provider asks for it (RFC 8628,
// section 3.5).
const slowDown = 5 * time.Second

func (s *Service) finishByDevice(ctx context.Context, hash []byte, verifier string) (kept keptLogin, i provider.Identity, err error) {
	if kept, err = s.turn(ctx, hash); err != nil {
		return kept, i, err
	}
	if !kept.verifies(verifier) {
		return kept, i, errEnded("the verifier is not that of the login")
	}
	flow, err := s.flow(ctx, kept.Provider)
	if err != nil {
		return kept, i, err
	}
	i, err = flow.PollDevice(ctx, kept.DeviceCode)
	switch {
	case errors.Is(err, provider.ErrSlowDown):
		kept.Interval += slowDown
		if err := s.slowLogin(ctx, hash, kept); err != nil {
			return kept, i, err
		}
	case err == nil, slices.Contains([]fault.Code{fault.Unauthenticated, fault.Forbidden, fault.ProviderRefused}, fault.CodeOf(err)):
		// There is nothing more to ask for, and nobody else gets what came.
		if _, err := s.takeLogin(ctx, deviceStage, hash); err != nil {
			return kept, i, err
		}
	}
	return kept, i, err
}

// turn returns a login by device when the provider may be asked about it.
func (s *Service) turn(ctx context.Context, hash []byte) (kept keptLogin, err error) {
	now := s.now()
	err = s.pool.QueryRow(ctx, `
		UPDATE logins SET next_at = $2::timestamptz + (data->>'Interval')::bigint / 1000 * interval '1 microsecond'
		WHERE hash = $1 AND stage = 'device' AND next_at <= $2 AND expires_at > $2 RETURNING data`, hash, now).Scan(&kept)
	if !errors.Is(err, pgx.ErrNoRows) {
		return kept, postgres.Fault(err)
	}
	var waits bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM logins WHERE hash = $1 AND stage = 'device' AND expires_at > $2)`,
		hash, now).Scan(&waits); err != nil {
		return kept, postgres.Fault(fmt.Errorf("look for login: %w", err))
	}
	if waits {
		return kept, provider.ErrAuthorizationPending
	}
	return kept, errNoLogin
}

func (s *Service) slowLogin(ctx context.Context, hash []byte, kept keptLogin) error {
	if _, err := s.pool.Exec(ctx, `UPDATE logins SET data = $2, next_at = $3 WHERE hash = $1`, hash, kept, s.now().Add(kept.Interval)); err != nil {
		return postgres.Fault(fmt.Errorf("keep login: %w", err))
	}
	return nil
}

const errNoLogin = errEnded("the login is not known, has ended or has expired")

func (s *Service) keepLogin(ctx context.Context, stage string, hash []byte, kept keptLogin, until time.Time) error {
	if _, err := s.pool.Exec(ctx, `INSERT INTO logins (hash, stage, data, next_at, expires_at) VALUES ($1, $2, $3, $4, $5)`,
		hash, stage, kept, s.now(), until); err != nil {
		return postgres.Fault(fmt.Errorf("keep login: %w", err))
	}
	return nil
}

// takeLogin removes what was kept; of two who do at once, one gets it.
func (s *Service) takeLogin(ctx context.Context, stage string, hash []byte) (kept keptLogin, err error) {
	err = s.pool.QueryRow(ctx, `DELETE FROM logins WHERE hash = $1 AND stage = $2 AND expires_at > $3 RETURNING data`,
		hash, stage, s.now()).Scan(&kept)
	if errors.Is(err, pgx.ErrNoRows) {
		return kept, errNoLogin
	}
	if err != nil {
		return kept, postgres.Fault(fmt.Errorf("look for login: %w", err))
	}
	return kept, nil
}

// Logins returns the names of the providers at which people can log in, local
// among them if there are accounts with passwords.
func (s *Service) Logins(ctx context.Context) ([]string, error) {
	p, err := s.policies.Policy(ctx, "")
	if err != nil {
		return nil, err
	}
	var names []string
	if accepts(p, localProvider) {
		names = append(names, localProvider)
	}
	if set := s.providers.Load(); set != nil {
		for _, name := range set.Logins() {
			if accepts(p, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}
