package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Request is what a request carries to show who makes it: one of a bearer
// credential, a cookie and a ticket.
type Request struct {
	// Bearer is what follows the scheme in the Authorization header: an access
	// token, an API key, or a token of an issuer that is configured.
	Bearer string
	Cookie string // Opened.Cookie
	Ticket string // of Ticket; for streams only

	// The rest is as in Origin.
	Proof, Method, URL            string
	Local                         bool
	Address, RequestID, UserAgent string
}

func (r Request) origin() Origin {
	return Origin{
		Local: r.Local, Address: r.Address, RequestID: r.RequestID, UserAgent: r.UserAgent,
		Proof: r.Proof, Method: r.Method, URL: r.URL,
	}
}

// digest stands in memory for a credential of a kind: none is good as another.
type digest [sha256.Size]byte

func digestOf(kind, secret string) digest { return sha256.Sum256([]byte(kind + " " + secret)) }

// acceptance is what a credential was found to be.
type acceptance struct {
	session   uuid.UUID
	userID    string    // who it names; empty: nobody
	expiresAt time.Time // zero: with its session
	askAgain  time.Time // whether it is still accepted; zero: its session tells
}

// acceptedFor is how long the token of an issuer is accepted without looking
// again, so that a key that the issuer withdraws does not vouch for it until its
// end.
const acceptedFor = time.Minute

// Authenticate returns who makes a request. While nothing changes, it asks the
// database once a second at most, however many requests there are.
//
// Faults: Unauthenticated, always the same, for a credential that is not
// accepted, whose cause, for the logs, is the reason; Forbidden, with the
// reason, for one that is good and that the policy lets open no session;
// Unavailable when that cannot be known now. Bad credentials are for whoever
// asks to record, who knows how many there are.
func (s *Service) Authenticate(ctx context.Context, r Request) (policy.Caller, error) {
	st, err := s.identify(ctx, r)
	if err != nil {
		return policy.Caller{}, answer(err)
	}
	s.seen.mark(st.id, s.now())
	return s.current(ctx, st, r.origin())
}

func (s *Service) identify(ctx context.Context, r Request) (*standing, error) {
	switch {
	case r.Bearer != "":
		return s.byBearer(ctx, r)
	case r.Cookie != "":
		return s.byCookie(ctx, r)
	case r.Ticket != "":
		return s.byTicket(ctx, r.Ticket)
	}
	return nil, errEnded("there is no credential")
}

func (s *Service) byBearer(ctx context.Context, r Request) (*standing, error) {
	return s.bySecret(ctx, r, digestOf("bearer", r.Bearer), func() (acceptance, error) {
		if !s.issuer.Issued(r.Bearer) {
			id, err := s.direct(ctx, r)
			return acceptance{session: id, askAgain: s.now().Add(acceptedFor)}, err
		}
		claims, err := s.verify(ctx, r.Bearer)
		if err != nil {
			return acceptance{}, err
		}
		id, err := uuid.Parse(claims.SessionID)
		if err != nil {
			return acceptance{}, errNoSession
		}
		return acceptance{session: id, userID: claims.UserID, expiresAt: claims.ExpiresAt}, nil
	})
}

func (s *Service) byCookie(ctx context.Context, r Request) (*standing, error) {
	hash, ok := token.ParseSecret(cookiePrefix, r.Cookie)
	if !ok {
		return nil, errEnded("the cookie is not one of a session")
	}
	return s.bySecret(ctx, r, digestOf("cookie", r.Cookie), func() (acceptance, error) {
		id, err := s.sessionBySecret(ctx, hash, false)
		return acceptance{session: id}, err
	})
}

// bySecret finds the session of a credential, which find looks for unless it
// is known, and checks that the request is signed if the session wants that.
// Only what was accepted is remembered, so that bad credentials displace none.
func (s *Service) bySecret(ctx context.Context, r Request, key digest, find func() (acceptance, error)) (*standing, error) {
	a, known := s.accepted.Get(key)
	if known && !a.askAgain.IsZero() && !s.now().Before(a.askAgain) {
		s.accepted.Remove(key)
		known = false
	}
	if !known {
		var err error
		if a, err = find(); err != nil {
			return nil, err
		}
	}
	if !a.expiresAt.IsZero() && !s.now().Before(a.expiresAt) {
		s.accepted.Remove(key)
		return nil, errEnded("the access token has expired")
	}
	st, err := s.standing(ctx, a.session)
	if err != nil {
		s.accepted.Remove(key)
		return nil, err
	}
	if a.userID != "" && a.userID != st.caller.UserID {
		return nil, errEnded("the access token names another user than its session")
	}
	if err := s.signed(st, r); err != nil {
		return nil, err
	}
	if !known {
		s.accepted.Add(key, a)
	}
	return st, nil
}

// signed checks that a request for a session that is bound to a key comes with
// a proof by that key, which no request had before.
func (s *Service) signed(st *standing, r Request) error {
	if st.thumbprint == "" {
		return nil
	}
	proof, err := s.proof(r.origin(), r.Bearer)
	switch {
	case err != nil:
		return err
	case proof == nil:
		return errEnded("the session wants a proof by its key")
	case proof.Thumbprint != st.thumbprint:
		return errEnded("the proof is by another key than the session's")
	case s.replays.Seen(*proof, s.now()):
		return errEnded("the proof was used before")
	}
	return nil
}

func (s *Service) sessionBySecret(ctx context.Context, hash []byte, direct bool) (id uuid.UUID, err error) {
	err = s.pool.QueryRow(ctx, `SELECT id FROM sessions WHERE secret_hash = $1 AND direct = $2`, hash, direct).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return id, errNoSession
	}
	if err != nil {
		return id, postgres.Fault(fmt.Errorf("look for session: %w", err))
	}
	return id, nil
}

// direct returns the session of a credential that is used without login, and
// opens it at the first use, under the same rules as any other.
func (s *Service) direct(ctx context.Context, r Request) (uuid.UUID, error) {
	credential := Credential{Token: r.Bearer}
	if strings.HasPrefix(r.Bearer, keyPrefix) {
		credential = Credential{APIKey: r.Bearer}
	}
	cl, err := s.prove(ctx, credential, r.origin())
	if err != nil {
		return uuid.UUID{}, err
	}
	if cl.oneUse {
		return uuid.UUID{}, errEnded("the token can be exchanged for a session, and is good for nothing else")
	}
	hash := token.Hash(r.Bearer)
	id, err := s.sessionBySecret(ctx, hash, true)
	if !errors.Is(err, errNoSession) {
		return id, err
	}
	o := Opening{Origin: r.origin(), TTL: s.sessionCap}
	if cl.method == keyMethod { // which has its own bound
		o.TTL = MaxKeyLife
	} else {
		cl.expiresAt = cl.identity.ExpiresAt
	}
	opened, err := s.open(ctx, o, cl, nil, hash, nil)
	if postgres.Violates(err, "sessions_secret_key") { // another request was faster
		return s.sessionBySecret(ctx, hash, true)
	}
	return opened.ID, err
}

// current is the caller of one request, by the organisation's policy of now.
func (s *Service) current(ctx context.Context, st *standing, o Origin) (policy.Caller, error) {
	p, err := s.policies.Policy(ctx, "")
	if err != nil {
		return policy.Caller{}, err
	}
	if !accepts(p, st.method) {
		return policy.Caller{}, unauthenticated(errEnded("identity provider " + st.method + " is off"))
	}
	return requester(p, st, o), nil
}

// requester is the caller of one request. The policy is that of its project.
func requester(p *policy.Policy, st *standing, o Origin) policy.Caller {
	c := st.caller
	c.Local, c.Address, c.RequestID = o.Local, o.Address, o.RequestID
	c.AllProjects = c.ProjectID == "" && p.Holds(c, policy.AdminAll)
	return c
}

// Valid returns a caller that Authenticate has returned, say the one of an open
// stream, as it is now: what it may do may have changed. It costs as little as
// Authenticate. A caller without a session comes back as it is.
//
// Faults: Unauthenticated when the session has ended, Unavailable when that
// cannot be known now.
func (s *Service) Valid(ctx context.Context, c policy.Caller) (policy.Caller, error) {
	s.watched.Store(s.now().UnixNano())
	if c.SessionID == "" {
		return c, nil
	}
	id, err := uuid.Parse(c.SessionID)
	if err != nil {
		return policy.Caller{}, unauthenticated(errNoSession)
	}
	st, err := s.standing(ctx, id)
	if err != nil {
		return policy.Caller{}, answer(err)
	}
	return s.current(ctx, st, Origin{Local: c.Local, Address: c.Address, RequestID: c.RequestID})
}
