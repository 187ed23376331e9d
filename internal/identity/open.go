package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

// Opening asks for a session.
type Opening struct {
	Credential Credential
	Origin     Origin
	// DeviceID, if given, must be the device whose key made the proof.
	DeviceID string
	Enrol    DeviceEnrolment
	// ProjectID confines the session to a project; a credential that is good
	// for one only confines it by itself.
	ProjectID string
	// Roles narrow what the session may do; nil: all that the user has.
	Roles []policy.Role
	TTL   time.Duration // 0: Options.SessionTTL
	// Browser asks for a cookie instead of tokens.
	Browser bool
}

// DeviceEnrolment makes the key of a session's proof a device of the user's:
// where sessions want a device that is known, the first one can come no other way.
type DeviceEnrolment struct {
	Name string // for people; "": the key is that of a device already
	// Code is one of CreateEnrolment, and verifies the device. The one-time code
	// of EnsureBootstrap does that too.
	Code string
}

// Origin is where a request comes from, and what it proves about its sender.
type Origin struct {
	// Local says that it came over the Unix socket or from this machine's
	// loopback, by no proxy.
	Local     bool
	Address   string
	RequestID string
	UserAgent string
	// Proof is the DPoP header (RFC 9449) for the Method and the absolute URL.
	Proof, Method, URL string
}

func (o Origin) caller(userID, projectID string) policy.Caller {
	return policy.Caller{UserID: userID, ProjectID: projectID, Local: o.Local, Address: o.Address, RequestID: o.RequestID}
}

// Opened is a session with what gives access to it, which is shown this once.
type Opened struct {
	Session Session
	// AccessToken is good for ExpiresIn; RefreshToken is then good for the next
	// pair, once. Without a browser only. A session with a KeyThumbprint wants
	// a proof with each of them.
	AccessToken, RefreshToken string
	ExpiresIn                 time.Duration
	// Cookie is good for as long as the session. For a browser only.
	Cookie string
}

// OpenSession exchanges a credential for a session. With a proof, the session
// is bound to its key and, if that is a device's, to the device.
//
// Faults: Invalid; Unauthenticated for a credential that is not accepted, for
// whatever reason; TooMany after several wrong passwords; Forbidden, with the
// reason, when the credential is good and the policy says no; Unavailable.
func (s *Service) OpenSession(ctx context.Context, o Opening) (Opened, error) {
	if err := s.checkOpening(o); err != nil {
		return Opened{}, err
	}
	proof, err := s.proof(o.Origin, "")
	if err != nil {
		return Opened{}, s.refused(ctx, o.Origin.caller("", ""), err)
	}
	cl, err := s.prove(ctx, o.Credential, o.Origin)
	if err != nil {
		return Opened{}, s.refused(ctx, o.Origin.caller("", ""), err)
	}
	key, err := s.keys.signing(ctx)
	if err != nil {
		return Opened{}, err
	}
	var opened Opened
	var secret, hash []byte
	if o.Browser {
		opened.Cookie, secret = token.NewSecret(cookiePrefix)
	} else {
		opened.RefreshToken, hash = token.NewSecret(refreshPrefix)
	}
	opened.Session, err = s.open(ctx, o, cl, proof, secret, hash)
	if bad(err) {
		return Opened{}, s.refused(ctx, o.Origin.caller(cl.userID, o.ProjectID), err)
	}
	if err != nil { // a denial was recorded where it was found
		return Opened{}, err
	}
	if !o.Browser {
		opened.AccessToken, opened.ExpiresIn, err = s.sign(key, opened.Session)
	}
	return opened, err
}

// Prefixes tell what a secret is for, to people and to scanners for secrets.
const (
	refreshPrefix = "ccr_"
	cookiePrefix  = "ccs_"
	ticketPrefix  = "cct_"
)

func (s *Service) checkOpening(o Opening) error {
	var f faults
	kinds := 0
	for _, given := range []bool{o.Credential.Login != "", o.Credential.APIKey != "", o.Credential.Token != "", o.Credential.Identity != nil} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		f.bad("credential", "must be one of a login with password, an API key, a token")
	}
	f.opening("", o, s.sessionCap)
	if o.Enrol.Name != "" {
		f.text("deviceName", o.Enrol.Name, maxNameBytes, true)
	}
	if o.Enrol != (DeviceEnrolment{}) && o.Origin.Proof == "" {
		f.bad("deviceName", "needs a proof (DPoP) of the device's key")
	}
	return f.err()
}

// opening checks what a session is to be.
func (f *faults) opening(at string, o Opening, most time.Duration) {
	if o.ProjectID != "" {
		f.id(at+"projectId", o.ProjectID)
	}
	if o.TTL < 0 || o.TTL > most {
		f.bad(at+"expiresSeconds", "must be at most %d", int(most.Seconds()))
	}
}

// open makes the session of a claimant, if everything allows it. secret is the
// hash of what the session can be found by, refresh that of its first refresh
// token; nil: there is none.
func (s *Service) open(ctx context.Context, o Opening, cl *claimant, proof *dpop.Proof, secret, refresh []byte) (Session, error) {
	id := uuid.Must(uuid.NewV7())
	if cl.projectID != "" && o.ProjectID == "" {
		o.ProjectID = cl.projectID
	}
	c := o.Origin.caller(cl.userID, o.ProjectID)
	a := act{"session.create", "session", id.String()}
	p, err := s.policies.Policy(ctx, o.ProjectID)
	if err != nil {
		return Session{}, err
	}
	if d := s.mayOpen(p, o, cl); d != nil {
		return Session{}, s.refuse(ctx, c, a, d)
	}
	// A token or key that is used as it is bounds its session by itself.
	if most := p.MaxSession(); most > 0 && (refresh != nil || o.Browser) {
		o.TTL = min(cmp.Or(o.TTL, s.sessionTTL), most)
	}
	var opened Session
	changed := false
	err = s.change(ctx, c, a, policy.Decision{Allowed: true}, func(tx pgx.Tx, e *audit.Entry) error {
		var err error
		if changed, err = s.admit(ctx, tx, cl, proof); err != nil {
			return err
		}
		device, err := s.deviceOf(ctx, tx, cl, proof, o.DeviceID)
		if err != nil {
			return err
		}
		if o.Enrol != (DeviceEnrolment{}) {
			changed = true
			if device, err = s.enrolProven(ctx, tx, c, cl, device, proof, o.Enrol); err != nil {
				return err
			}
		}
		if err := s.insertSession(ctx, tx, id, o, cl, device, proof, secret, refresh); err != nil {
			return err
		}
		st, err := s.readStanding(ctx, tx, id)
		if err != nil {
			return err
		}
		now := requester(p, st, o.Origin)
		d := p.Decide(now, policy.Request{Permission: policy.Authenticated, ProjectID: o.ProjectID, Opening: true})
		if err := narrowed(st, o, cl); err != nil {
			return err
		}
		if !d.Allowed {
			return &denial{decision: d}
		}
		*e = audit.NewEntry(now, a.action, a.resourceType, a.resourceID, d)
		e.Details = detail(map[string]any{"method": cl.method, "direct": refresh == nil && !o.Browser, "keyBound": proof != nil})
		found, err := s.findSession(ctx, tx, id)
		if err == nil {
			opened = *found
		}
		return err
	})
	if changed {
		s.bus.Publish(stream.Signal{Topic: stream.AccessChanged})
	}
	return opened, asDevice(err, cl.userID)
}

// mayOpen is what can be said before the database is asked.
func (s *Service) mayOpen(p *policy.Policy, o Opening, cl *claimant) *denial {
	switch {
	case !o.Origin.Local && !s.allowRemote:
		return deny(policy.LayerSession, "sessions from other machines are off (deployment.allowRemoteSessions)")
	case !accepts(p, cl.method):
		return deny(policy.LayerSession, "identity provider %s is off (identity.providers)", cl.method)
	case cl.projectID != "" && cl.projectID != o.ProjectID:
		return deny(policy.LayerProject, "the credential is for project %s only", cl.projectID)
	}
	return nil
}

func (s *Service) insertSession(ctx context.Context, tx pgx.Tx, id uuid.UUID, o Opening, cl *claimant, device *uuid.UUID, proof *dpop.Proof, secret, refresh []byte) error {
	roles := cl.roles
	if o.Roles != nil {
		roles = o.Roles
	}
	thumbprint := ""
	if proof != nil {
		thumbprint = proof.Thumbprint
	}
	now := s.now()
	_, err := tx.Exec(ctx, `
		INSERT INTO sessions (id, user_id, method, key_id, project_id, device_id, key_thumbprint, local, direct, default_roles,
			given_roles, roles, scopes, secret_hash, address, user_agent, created_at, expires_at)
		VALUES (@id, @user, @method, nullif(@key, ''), @project, @device, @thumbprint, @local, @direct, @defaults,
			@given, @roles, @scopes, @secret, @address, @agent, @now, @expires)`,
		pgx.NamedArgs{"id": id, "user": cl.userID, "method": cl.method, "key": cl.keyID, "project": o.ProjectID,
			"device": device, "thumbprint": thumbprint, "local": o.Origin.Local, "direct": refresh == nil && !o.Browser,
			"defaults": cl.defaults, "given": cl.rolesIn(o.ProjectID), "roles": roles, "scopes": cl.scopes, "secret": secret,
			"address": o.Origin.Address, "agent": printable(o.Origin.UserAgent, maxNameBytes), "now": now, "expires": s.expiry(now, o, cl)})
	if err != nil {
		return fmt.Errorf("store session: %w", err)
	}
	if refresh != nil {
		return s.insertRefresh(ctx, tx, id, refresh)
	}
	return nil
}

func (s *Service) expiry(now time.Time, o Opening, cl *claimant) time.Time {
	ttl := s.sessionTTL
	if o.TTL > 0 {
		ttl = o.TTL
	}
	expires := now.Add(ttl)
	if !cl.expiresAt.IsZero() && cl.expiresAt.Before(expires) {
		return cl.expiresAt
	}
	return expires
}

// narrowed checks that a session was given no role that its user lacks.
func narrowed(st *standing, o Opening, cl *claimant) error {
	held := st.held
	if cl.roles != nil {
		held = intersection(held, cl.roles)
	}
	for _, r := range o.Roles {
		if !slices.Contains(held, r) {
			return deny(policy.LayerPermission, "%s does not have the role %.40q here", st.caller.UserID, r)
		}
	}
	if len(held) == 0 && st.caller.ProjectID != "" {
		return deny(policy.LayerProject, "%s has no role in project %s", st.caller.UserID, st.caller.ProjectID)
	}
	return nil
}

// sign returns an access token for the session, and how long it is good for.
func (s *Service) sign(key token.Key, opened Session) (string, time.Duration, error) {
	now := s.now().Truncate(time.Second)
	expires := now.Add(AccessTokenTTL)
	if opened.ExpiresAt.Before(expires) {
		expires = opened.ExpiresAt.Truncate(time.Second)
	}
	if !expires.After(now) {
		return "", 0, unauthenticated(errEnded("the session has expired"))
	}
	text, err := s.issuer.Sign(key, token.Claims{
		UserID: opened.UserID, SessionID: opened.ID.String(), ProjectID: opened.ProjectID,
		ID: uuid.NewString(), KeyThumbprint: opened.KeyThumbprint, IssuedAt: now, ExpiresAt: expires,
	})
	return text, expires.Sub(now), err
}

// proof checks the proof of a request, if it has one, for the access token
// that it comes with.
func (s *Service) proof(o Origin, accessToken string) (*dpop.Proof, error) {
	if o.Proof == "" {
		return nil, nil
	}
	p, err := dpop.Verify(o.Proof, o.Method, o.URL, accessToken, s.now())
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// unauthenticated is what outsiders are told of every bad credential.
func unauthenticated(cause error) error {
	return fault.Wrap(cause, fault.Unauthenticated, "the credential is not accepted")
}

// answer is what the sender of a credential is told. What says nothing of the
// credential comes back as it is.
func answer(err error) error {
	if bad(err) {
		return unauthenticated(err)
	}
	return postgres.Fault(err)
}

// bad reports whether an error says that a credential is.
func bad(err error) bool {
	_, ended := errors.AsType[errEnded](err)
	return ended || fault.CodeOf(err) == fault.Unauthenticated
}

// refused records that a credential was bad, or its owner not let in by the
// provider, and returns what its sender is told.
func (s *Service) refused(ctx context.Context, c policy.Caller, err error) error {
	if bad(err) || fault.CodeOf(err) == fault.Forbidden {
		s.recorder.Record(ctx, audit.NewEntry(c, "request.authenticate", "credential", "",
			policy.Decision{Layer: policy.LayerSession, Reason: err.Error()}))
	}
	return answer(err)
}
