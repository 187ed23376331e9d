package identity_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/argon2"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
)

const publicURL = "https://claw.example.com"

// clock is one that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// recorder keeps the denials of a test.
type recorder struct {
	mu      sync.Mutex
	entries []audit.Entry
}

func (r *recorder) Record(_ context.Context, e audit.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
}

func (r *recorder) last(t *testing.T) audit.Entry {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) == 0 {
		t.Fatal("nothing was recorded")
	}
	return r.entries[len(r.entries)-1]
}

// policies are the same for every project, and can change.
type policies struct {
	mu  sync.Mutex
	now *policy.Policy
}

func (p *policies) Policy(context.Context, string) (*policy.Policy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, nil
}

func (p *policies) set(t testing.TB, security string) {
	t.Helper()
	org, err := policy.ParseDocument([]byte(security), "security.yaml", policy.Organization)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := policy.Compile(org, nil, policy.Options{Version: 7})
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = compiled
}

// rig is a server's identity service, over a database of its own.
type rig struct {
	*identity.Service
	pool     *pgxpool.Pool
	bus      *stream.Memory
	clock    *clock
	recorder *recorder
	policies *policies
}

func newRig(t testing.TB, change ...func(*identity.Options)) *rig {
	t.Helper()
	return rigOn(t, pgtest.DB(t), newClock(), change...)
}

func rigOn(t testing.TB, pool *pgxpool.Pool, c *clock, change ...func(*identity.Options)) *rig {
	t.Helper()
	builtIn, err := policy.Compile(nil, nil, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{pool: pool, bus: &stream.Memory{}, clock: c, recorder: &recorder{}, policies: &policies{now: builtIn}}
	o := identity.Options{
		PublicURL: publicURL, Policies: r.policies, Recorder: r.recorder, Bus: r.bus, Log: slog.New(slog.DiscardHandler),
		DefaultRoles: []policy.Role{policy.ReadOnly}, AllowRemoteSessions: true, Now: c.Now,
	}
	for _, f := range change {
		f(&o)
	}
	if r.Service, err = identity.New(pool, o); err != nil {
		t.Fatal(err)
	}
	return r
}

// sibling is another server over the same database and clock, which hears
// nothing of the first.
func (r *rig) sibling(t testing.TB, change ...func(*identity.Options)) *rig {
	t.Helper()
	return rigOn(t, r.pool, r.clock, change...)
}

// last is where lists begin.
var last = uuid.Max

// password is shorter than new ones may be, so that it stays at the cost at
// which the rig stores it, which is next to nothing.
const password = "old and short"

// user stores a local account, and binds the roles to it everywhere.
func (r *rig) user(t testing.TB, login string, roles ...policy.Role) string {
	t.Helper()
	salt := []byte("8 bytes.")
	hash := argon2.IDKey([]byte(password), salt, 1, 8, 1, 16)
	encoded := fmt.Sprintf("$argon2id$v=19$m=8,t=1,p=1$%s$%s", base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(hash))
	id := "local:" + login
	r.exec(t, `INSERT INTO users (id, provider, issuer, subject, password_hash, created_at) VALUES ($1, 'local', '', $2, $3, $4)`,
		id, login, encoded, r.clock.Now())
	for _, role := range roles {
		r.bind(t, id, role, "")
	}
	return id
}

func (r *rig) bind(t testing.TB, subject string, role policy.Role, project string) uuid.UUID {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	r.exec(t, `INSERT INTO role_bindings (id, subject_kind, subject, role, project_id, created_by, created_at)
		VALUES ($1, 'user', $2, $3, $4, 'test', $5)`, id, subject, role, project, r.clock.Now())
	r.bus.Publish(stream.Signal{Topic: stream.AccessChanged})
	return id
}

func (r *rig) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := r.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) count(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	if err := r.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

var here = identity.Origin{Address: "192.0.2.7", RequestID: "req-1", UserAgent: "test"}

func byPassword(login string) identity.Opening {
	return identity.Opening{Credential: identity.Credential{Login: login, Password: password}, Origin: here}
}

func (r *rig) open(t testing.TB, o identity.Opening) identity.Opened {
	t.Helper()
	opened, err := r.OpenSession(t.Context(), o)
	if err != nil {
		t.Fatalf("open a session: %v", err)
	}
	return opened
}

// login opens a session for the account of user.
func (r *rig) login(t testing.TB, login string) identity.Opened {
	t.Helper()
	return r.open(t, byPassword(login))
}

// as is the caller that the account's new session stands for.
func (r *rig) as(t testing.TB, login string) policy.Caller {
	t.Helper()
	return r.caller(t, bearer(r.login(t, login).AccessToken))
}

// admin is the caller of an administrator.
func (r *rig) admin(t testing.TB) policy.Caller {
	t.Helper()
	r.user(t, "root", policy.Admin)
	return r.as(t, "root")
}

func bearer(token string) identity.Request {
	return identity.Request{Bearer: token, Method: "GET", URL: publicURL + "/v1/tasks", Address: here.Address, RequestID: here.RequestID}
}

func (r *rig) caller(t testing.TB, q identity.Request) policy.Caller {
	t.Helper()
	c, err := r.Authenticate(t.Context(), q)
	if err != nil {
		t.Fatalf("authenticate: %v", err)
	}
	return c
}

// refuses fails unless the request is refused with the message that all bad
// credentials get, for a reason.
func (r *rig) refuses(t testing.TB, q identity.Request, reason string) {
	t.Helper()
	_, err := r.Authenticate(t.Context(), q)
	wantRefusal(t, err, reason)
}

func wantRefusal(t testing.TB, err error, reason string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.Unauthenticated || f.Message != "the credential is not accepted" {
		t.Fatalf("got %v, want the one answer to bad credentials, because %s", err, reason)
	}
	if cause := errors.Unwrap(err); cause == nil || !strings.Contains(cause.Error(), reason) {
		t.Fatalf("refused because %v, want because %s", cause, reason)
	}
}

func wantFault(t testing.TB, err error, code fault.Code, message string) {
	t.Helper()
	if fault.CodeOf(err) != code || !strings.Contains(err.Error(), message) {
		t.Fatalf("got %v (%s), want %s: %s", err, fault.CodeOf(err), code, message)
	}
}

// key makes the key pair of a device.
func key(t testing.TB) *dpop.Signer {
	t.Helper()
	s, err := dpop.GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// proves adds a proof by the key to an origin of a request for sessions.
func (r *rig) proves(t testing.TB, s *dpop.Signer, o identity.Origin) identity.Origin {
	t.Helper()
	o.Method, o.URL = "POST", publicURL+"/v1/sessions"
	var err error
	if o.Proof, err = s.Proof(o.Method, o.URL, "", "", r.clock.Now()); err != nil {
		t.Fatal(err)
	}
	return o
}

// signs adds a proof by the key to a request with an access token.
func (r *rig) signs(t testing.TB, s *dpop.Signer, q identity.Request) identity.Request {
	t.Helper()
	var err error
	if q.Proof, err = s.Proof(q.Method, q.URL, q.Bearer, "", r.clock.Now()); err != nil {
		t.Fatal(err)
	}
	return q
}

// together runs f at the same time as often as it is told, and returns the
// errors.
func together(n int, f func(int) error) []error {
	errs := make([]error, n)
	var g sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		g.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	g.Wait()
	return errs
}

func succeeded(errs []error) (n int) {
	for _, err := range errs {
		if err == nil {
			n++
		}
	}
	return n
}

// noAudit takes the right to write audit entries from the server.
func (r *rig) noAudit(t testing.TB) {
	t.Helper()
	owner, err := postgres.Open(t.Context(), r.pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if _, err := owner.Exec(t.Context(), `REVOKE INSERT ON audit_entries FROM coderclaw_app`); err != nil {
		t.Fatal(err)
	}
}

// audited returns the entries of an action that the database holds.
func (r *rig) audited(t testing.TB, action string) []auditRow {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), `SELECT user_id, session_id, resource_id, result, coalesce(details::text, '') AS details
		FROM audit_entries WHERE action = $1 ORDER BY id`, action)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := pgx.CollectRows(rows, pgx.RowToStructByName[auditRow])
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

type auditRow struct{ UserID, SessionID, ResourceID, Result, Details string }
