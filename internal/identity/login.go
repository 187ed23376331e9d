package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	loginTTL    = 10 * time.Minute // for a person to log in at the provider
	handoverTTL = time.Minute      // for a program to come for what a browser got

	statePrefix    = "ccx_"
	devicePrefix   = "ccd_"
	handoverPrefix = "cch_"

	browserStage  = "browser"
	deviceStage   = "device"
	handoverStage = "handover"
)

// Login is a login by browser that ended well.
type Login struct {
	Identity provider.Identity // for OpenSession or HandOver
	Carried  json.RawMessage   // as BeginLogin was given it
}

// browserLogin is kept of a login while the browser is away.
type browserLogin struct {
	Provider, Nonce, Verifier, RedirectURI string
	Carried                                json.RawMessage
}

// BeginLogin returns where to send a browser to log in at a provider, whence it
// comes back to redirectURI with a code and the state. The state must be kept
// in a cookie as well, and be the same there, or another's login could be
// slipped to the user (RFC 6749, section 10.12). carried is a JSON value that
// FinishLogin gives back.
//
// Faults: NotFound if nobody can log in there, Unavailable.
func (s *Service) BeginLogin(ctx context.Context, name, redirectURI string, carried json.RawMessage) (url, state string, err error) {
	flow, err := s.flow(ctx, name)
	if err != nil {
		return "", "", err
	}
	state, hash := token.NewSecret(statePrefix)
	kept := browserLogin{name, rand.Text(), rand.Text() + rand.Text(), redirectURI, carried}
	if url, err = flow.AuthCodeURL(ctx, provider.AuthRequest{
		State: state, Nonce: kept.Nonce, CodeChallenge: challengeOf(kept.Verifier), RedirectURI: redirectURI,
	}); err != nil {
		return "", "", err
	}
	return url, state, s.keepLogin(ctx, browserStage, hash, kept, s.now().Add(loginTTL))
}

// challengeOf is the S256 of PKCE (RFC 7636, section 4.2).
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// flow returns how to log in at a provider that policy accepts.
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

// FinishLogin ends a login by browser, with the state and the code that it came
// back with, once.
//
// Faults: Unauthenticated, Forbidden for an account that is not let in,
// Unavailable.
func (s *Service) FinishLogin(ctx context.Context, state, code string, o Origin) (Login, error) {
	login, err := s.finishLogin(ctx, state, code)
	if err != nil {
		return Login{}, s.refused(ctx, o.caller("", ""), err)
	}
	return login, nil
}

func (s *Service) finishLogin(ctx context.Context, state, code string) (Login, error) {
	var kept browserLogin
	if err := s.takeLogin(ctx, browserStage, statePrefix, state, &kept); err != nil {
		return Login{}, err
	}
	flow, err := s.flow(ctx, kept.Provider)
	if err != nil {
		return Login{}, err
	}
	identity, err := flow.Exchange(ctx, provider.AuthResponse{
		Code: code, CodeVerifier: kept.Verifier, Nonce: kept.Nonce, RedirectURI: kept.RedirectURI,
	})
	return Login{Identity: identity, Carried: kept.Carried}, err
}

// handover is kept of a login until a program comes for it.
type handover struct {
	Identity  provider.Identity
	Challenge string
}

// HandOver returns a code for a program that had its user log in by a browser:
// whoever knows what the challenge was made of (S256 of RFC 7636) can open a
// session with it, once, within a minute.
func (s *Service) HandOver(ctx context.Context, i provider.Identity, challenge string) (string, error) {
	if sum, err := base64.RawURLEncoding.DecodeString(challenge); err != nil || len(sum) != sha256.Size {
		return "", fault.New(fault.Invalid, "the code challenge is not the S256 of a verifier")
	}
	code, hash := token.NewSecret(handoverPrefix)
	return code, s.keepLogin(ctx, handoverStage, hash, handover{i, challenge}, s.now().Add(handoverTTL))
}

// takeOver returns the identity of a code. A wrong verifier uses it up, too.
func (s *Service) takeOver(ctx context.Context, code, verifier string) (provider.Identity, error) {
	var kept handover
	if err := s.takeLogin(ctx, handoverStage, handoverPrefix, code, &kept); err != nil {
		return provider.Identity{}, err
	}
	if subtle.ConstantTimeCompare([]byte(challengeOf(verifier)), []byte(kept.Challenge)) != 1 {
		return provider.Identity{}, errEnded("the verifier is not that of the login")
	}
	return kept.Identity, nil
}

// DeviceLogin is a login that a person completes elsewhere (RFC 8628).
type DeviceLogin struct {
	Code                    string // for PollDeviceLogin
	UserCode                string // for the person to type in at VerificationURI
	VerificationURI         string
	VerificationURIComplete string // with the user code in it, or empty
	Interval                time.Duration
	ExpiresAt               time.Time
}

// deviceLogin is kept of it.
type deviceLogin struct {
	Provider, DeviceCode string
	Interval             time.Duration
}

// slowDown is added to the interval where the provider asks for it (RFC 8628,
// section 3.5).
const slowDown = 5 * time.Second

// BeginDeviceLogin begins a login that is completed with a code, in any
// browser.
//
// Faults: NotFound if nobody can log in there, Invalid if not in that way,
// Unavailable.
func (s *Service) BeginDeviceLogin(ctx context.Context, name string) (DeviceLogin, error) {
	flow, err := s.flow(ctx, name)
	if err != nil {
		return DeviceLogin{}, err
	}
	start, err := flow.StartDevice(ctx)
	if err != nil {
		return DeviceLogin{}, err
	}
	code, hash := token.NewSecret(devicePrefix)
	err = s.keepLogin(ctx, deviceStage, hash, deviceLogin{name, start.DeviceCode, start.Interval}, start.ExpiresAt)
	return DeviceLogin{
		Code: code, UserCode: start.UserCode, VerificationURI: start.VerificationURI,
		VerificationURIComplete: start.VerificationURIComplete, Interval: start.Interval, ExpiresAt: start.ExpiresAt.UTC(),
	}, err
}

// PollDeviceLogin returns who has logged in, or
// [provider.ErrAuthorizationPending] or [provider.ErrSlowDown] if nobody has
// yet. However often it is asked, the provider is asked no more than it wants.
//
// Faults: Unauthenticated, Forbidden for an account that is not let in,
// Unavailable.
func (s *Service) PollDeviceLogin(ctx context.Context, code string, o Origin) (provider.Identity, error) {
	identity, err := s.pollDeviceLogin(ctx, code)
	if err != nil && !errors.Is(err, provider.ErrAuthorizationPending) && !errors.Is(err, provider.ErrSlowDown) {
		return provider.Identity{}, s.refused(ctx, o.caller("", ""), err)
	}
	return identity, err
}

func (s *Service) pollDeviceLogin(ctx context.Context, code string) (provider.Identity, error) {
	hash, ok := token.ParseSecret(devicePrefix, code)
	if !ok {
		return provider.Identity{}, errNoLogin
	}
	kept, err := s.turn(ctx, hash)
	if err != nil {
		return provider.Identity{}, err
	}
	flow, err := s.flow(ctx, kept.Provider)
	if err != nil {
		return provider.Identity{}, err
	}
	identity, err := flow.PollDevice(ctx, kept.DeviceCode)
	switch {
	case errors.Is(err, provider.ErrSlowDown):
		kept.Interval += slowDown
		return identity, errors.Join(err, s.slowLogin(ctx, hash, kept))
	case err == nil || fault.CodeOf(err) == fault.Unauthenticated || fault.CodeOf(err) == fault.Forbidden:
		var gone deviceLogin // there is nothing more to ask
		if err := s.takeLogin(ctx, deviceStage, devicePrefix, code, &gone); err != nil {
			return provider.Identity{}, err
		}
	}
	return identity, err
}

// turn returns a login by device when the provider may be asked about it.
func (s *Service) turn(ctx context.Context, hash []byte) (deviceLogin, error) {
	var kept deviceLogin
	now := s.now()
	err := s.pool.QueryRow(ctx, `
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

func (s *Service) slowLogin(ctx context.Context, hash []byte, kept deviceLogin) error {
	if _, err := s.pool.Exec(ctx, `UPDATE logins SET data = $2, next_at = $3 WHERE hash = $1`, hash, kept, s.now().Add(kept.Interval)); err != nil {
		return postgres.Fault(fmt.Errorf("keep login: %w", err))
	}
	return nil
}

const errNoLogin = errEnded("the login is not known, has ended or has expired")

func (s *Service) keepLogin(ctx context.Context, stage string, hash []byte, data any, until time.Time) error {
	if _, err := s.pool.Exec(ctx, `INSERT INTO logins (hash, stage, data, next_at, expires_at) VALUES ($1, $2, $3, $4, $5)`,
		hash, stage, data, s.now(), until); err != nil {
		return postgres.Fault(fmt.Errorf("keep login: %w", err))
	}
	return nil
}

// takeLogin removes what was kept; of two who do at once, one gets it.
func (s *Service) takeLogin(ctx context.Context, stage, prefix, secret string, data any) error {
	hash, ok := token.ParseSecret(prefix, secret)
	if !ok {
		return errNoLogin
	}
	err := s.pool.QueryRow(ctx, `DELETE FROM logins WHERE hash = $1 AND stage = $2 AND expires_at > $3 RETURNING data`,
		hash, stage, s.now()).Scan(data)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNoLogin
	}
	if err != nil {
		return postgres.Fault(fmt.Errorf("look for login: %w", err))
	}
	return nil
}

// Logins returns the names of the providers at which people can log in, sorted.
func (s *Service) Logins(ctx context.Context) ([]string, error) {
	p, err := s.policies.Policy(ctx, "")
	set := s.providers.Load()
	if err != nil || set == nil {
		return nil, err
	}
	var names []string
	for _, name := range set.Logins() {
		if accepts(p, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// AcceptsPasswords reports whether local accounts can log in.
func (s *Service) AcceptsPasswords(ctx context.Context) (bool, error) {
	p, err := s.policies.Policy(ctx, "")
	if err != nil {
		return false, err
	}
	return p.Accepts(policy.Local), nil
}
