package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

const (
	// freshness is how long a snapshot is used: within this time, what another
	// server wrote is seen, even if nothing is heard of it.
	freshness = 2 * time.Second
	// loadTimeout bounds the one round trip that all callers may be waiting for.
	loadTimeout = 5 * time.Second
)

// snapshot is all agents and skills, and which policies are in force, as they
// were at one moment. It never changes.
type snapshot struct {
	agents set[Agent]
	skills set[Skill]
	needs  map[string][]policy.Permission // that skills require, by skill
	// versions are those of the policy documents in force, by project; the
	// organisation's stands under "".
	versions map[string]int64
	served   []string // agents that something elsewhere can run
	// workspace is the policy in the workspace; nil: there is none.
	workspace *workspace
	taken     time.Time
}

// current returns a snapshot no older than freshness that holds every write of
// this registry that returned before the call.
//
// Every request is decided by it, and each submission asks whether its agent is
// there and can run. Reading the tables for each would cost more than the
// answer is worth, so callers share one round trip for a while, and between
// them a request costs none.
func (r *Registry) current(ctx context.Context) (*snapshot, error) {
	cached, writes := r.fresh()
	if cached != nil {
		return cached, nil
	}
	// A query that was under way when a write returned may not have seen it;
	// the count of writes in the key keeps callers from joining that one.
	return shared(ctx, r, "snapshot "+strconv.FormatUint(writes, 10), func(ctx context.Context) (*snapshot, error) {
		if cached, _ := r.fresh(); cached != nil {
			return cached, nil // another query ended since this caller looked
		}
		return r.load(ctx, writes)
	})
}

// shared runs fn once for all that ask for the same key meanwhile.
func shared[T any](ctx context.Context, r *Registry, key string, fn func(context.Context) (T, error)) (T, error) {
	flying := r.flight.DoChan(key, func() (any, error) {
		// The first caller's patience must not decide for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
		defer cancel()
		v, err := fn(ctx)
		if err != nil && ctx.Err() != nil {
			// No caller set this deadline, so none should take it for its own.
			return v, fault.Wrap(err, fault.Unavailable, "the database took too long to answer")
		}
		return v, err
	})
	var none T
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case result := <-flying:
		if result.Err != nil {
			return none, result.Err
		}
		return result.Val.(T), nil
	}
}

// fresh returns the snapshot if it may be used, else nil, and how often was
// written.
func (r *Registry) fresh() (*snapshot, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cached == nil || r.now().Sub(r.cached.taken) >= freshness {
		return nil, r.writes
	}
	return r.cached, r.writes
}

// load takes a snapshot and keeps it, unless something was written meanwhile.
func (r *Registry) load(ctx context.Context, writes uint64) (*snapshot, error) {
	s := &snapshot{taken: r.now(), needs: map[string][]policy.Permission{}, versions: map[string]int64{}}
	agents, skills := maps.Clone(r.base), maps.Clone(builtinSkills().byID)
	b := &pgx.Batch{}
	b.Queue(`SELECT id, definition FROM agents`).Query(each(func(row definitionRow) {
		agents[row.ID] = row.agent()
	}))
	b.Queue(`SELECT id, definition FROM skills`).Query(each(func(row definitionRow) {
		skills[row.ID] = row.skill()
	}))
	b.Queue(`SELECT project_id, version FROM policies`).Query(each(func(row versionRow) {
		s.versions[row.ProjectID] = row.Version
	}))
	if err := r.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("read agents, skills and policies: %w", postgres.Fault(err))
	}
	r.mu.Lock()
	was, looked := r.lastWorkspace, r.looked
	r.mu.Unlock()
	var err error
	if s.workspace, err = r.readWorkspace(ctx, was, s.versions[""]); err != nil {
		return nil, err
	}
	if s.served, err = r.served(ctx); err != nil {
		return nil, err
	}
	for id, a := range agents {
		agents[id] = r.judged(a, s.served)
	}
	for id, sk := range skills {
		s.needs[id] = permissions(sk)
	}
	s.agents, s.skills = newSet(agents), newSet(skills)
	r.mu.Lock()
	changed := looked && s.workspace != was
	r.lastWorkspace, r.looked = s.workspace, true
	if r.writes == writes {
		r.cached = s
	}
	r.mu.Unlock()
	if changed { // running tasks may be allowed no more
		r.bus.Publish(stream.Signal{Topic: stream.AccessChanged})
	}
	return s, nil
}

// each calls fn for every row of a result.
func each[T any](fn func(T)) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		for rows.Next() {
			row, err := pgx.RowToStructByName[T](rows)
			if err != nil {
				return err
			}
			fn(row)
		}
		return rows.Err()
	}
}

type versionRow struct {
	ProjectID string
	Version   int64
}

// definitionRow is a row of agents or of skills.
type definitionRow struct {
	ID         string
	Definition json.RawMessage
}

// agent returns the agent of a row. One whose definition cannot be read, say of
// a later version, is there and unavailable, so that the others remain.
func (row definitionRow) agent() Agent {
	d := definition{ID: row.ID}
	if err := json.Unmarshal(row.Definition, &d); err != nil {
		a := definition{ID: row.ID}.agent(SourceAPI)
		a.Unavailable = "its stored definition cannot be read; define it again"
		return a
	}
	return d.agent(SourceAPI)
}

// skill returns the skill of a row. One whose definition cannot be read cannot
// be used.
func (row definitionRow) skill() Skill {
	d := skillDefinition{ID: row.ID}
	if err := json.Unmarshal(row.Definition, &d); err != nil {
		d = skillDefinition{ID: row.ID, Dangerous: true, Description: "Its stored definition cannot be read; define it again."}
	}
	return d.skill()
}

// forget makes the next reader read anew.
func (r *Registry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	r.cached = nil
}

// judged returns a with its availability filled in.
func (r *Registry) judged(a Agent, served []string) Agent {
	if a.Unavailable != "" {
		return a
	}
	if err := r.runnable(a); err != nil && !slices.Contains(served, a.ID) {
		a.Unavailable = err.Error()
		return a
	}
	a.Available = true
	return a
}

func permissions(sk Skill) []policy.Permission {
	list := make([]policy.Permission, len(sk.RequiredPermissions))
	for i, p := range sk.RequiredPermissions {
		list[i] = policy.Permission(p)
	}
	return list
}
