package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
)

var (
	admin = policy.Caller{UserID: "ann", Roles: []policy.Role{policy.Admin}, AllProjects: true}
	// clerk may write configuration, by a role that the document clerks defines.
	clerk = policy.Caller{UserID: "cid", Roles: []policy.Role{"clerk"}}
	dev   = policy.Caller{UserID: "dev", Roles: []policy.Role{policy.Developer}}
)

// in returns c confined to a project.
func in(projectID string, c policy.Caller) policy.Caller {
	c.ProjectID, c.AllProjects = projectID, false
	return c
}

// clerks is a document that defines the role clerk.
const clerks = `roles:
  clerk:
    inherits: developer
    additionalPermissions: [config:read, config:write]
`

// denials keeps what is recorded.
type denials struct {
	mu      sync.Mutex
	entries []audit.Entry
}

func (d *denials) Record(_ context.Context, e audit.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, e)
}

// last returns what was recorded last as "action resource: reason".
func (d *denials) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.entries) == 0 {
		return ""
	}
	e := d.entries[len(d.entries)-1]
	return e.Action + " " + e.ResourceType + " " + e.ResourceID + ": " + e.Reason
}

func anything(registry.Agent) error { return nil }

func newRegistry(t testing.TB, file ...registry.Agent) *registry.Registry {
	t.Helper()
	return over(pgtest.DB(t), registry.Options{File: file})
}

// over returns a registry that can run anything.
func over(pool *pgxpool.Pool, o registry.Options) *registry.Registry {
	o.Runnable = anything
	if o.Recorder == nil {
		o.Recorder = &denials{}
	}
	return registry.New(pool, o)
}

// owner returns a pool on the same database that may do anything there.
func owner(t testing.TB, pool *pgxpool.Pool) *pgxpool.Pool {
	t.Helper()
	p, err := postgres.Open(t.Context(), pool.Config().ConnString(), postgres.MaxConns(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func exec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// audited returns what the audit log holds, as "action resource details".
func audited(t testing.TB, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := owner(t, pool).Query(t.Context(),
		`SELECT concat_ws(' ', action, resource_id, details) FROM audit_entries ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// putPolicy puts a document as an administrator and returns its version.
func putPolicy(t testing.TB, r *registry.Registry, projectID, document string) registry.PolicyVersion {
	t.Helper()
	v, err := r.PutPolicy(t.Context(), admin, projectID, []byte(document), nil, "")
	if err != nil {
		t.Fatalf("put the policy of %q: %v", projectID, err)
	}
	return v
}

func decide(t testing.TB, r *registry.Registry, c policy.Caller, q policy.Request) policy.Decision {
	t.Helper()
	d, err := r.Decide(t.Context(), c, q)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// refused checks the code of a fault and what it says.
func refused(t testing.TB, what string, err error, code fault.Code, says string) {
	t.Helper()
	if fault.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v; want %s, saying %q", what, err, code, says)
	}
}

// fields returns the paths and messages of an Invalid fault.
func fields(err error) (list []string) {
	var f *fault.Error
	if errors.As(err, &f) && f.Code == fault.Invalid {
		for _, field := range f.Fields {
			list = append(list, field.Path+" "+field.Message)
		}
	}
	slices.Sort(list)
	return list
}

// counted returns a pool whose round trips are counted.
func counted(t testing.TB) (*pgxpool.Pool, *pgtest.RoundTrips) {
	t.Helper()
	asked := &pgtest.RoundTrips{}
	return pgtest.DB(t, asked.Count), asked
}
