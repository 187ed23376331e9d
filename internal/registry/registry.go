// Package registry knows the agents that can be asked to run a task and the
// skills that they may use.
//
// Agents come from three sources, each hiding the definitions of the same id
// before it: those in the binary, the operator's agents.yaml, and the API. It
// owns the table agents, which holds the last; no other package names it.
package registry

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"github.com/coderclaw/runtime/internal/fault"
)

// Registry answers which agents and skills there are. It is safe for
// concurrent use.
type Registry struct {
	pool     *pgxpool.Pool
	runnable func(Agent) error
	base     map[string]Agent // built in, or from the file
	now      func() time.Time
	patience time.Duration // with a query

	flight singleflight.Group
	mu     sync.Mutex // guards what follows
	writes uint64
	cached *snapshot
}

// Options says what a Registry offers besides the built-in agents.
type Options struct {
	// File holds the agents of the operator's agents.yaml.
	File []Agent
	// Runnable returns nil if something is there that can run the agent, and
	// otherwise an error whose text says what to configure. It is called
	// whenever the agents are read anew and must be quick.
	Runnable func(Agent) error
}

// New returns a registry on a migrated database.
func New(pool *pgxpool.Pool, o Options) *Registry {
	base := map[string]Agent{}
	for _, a := range slices.Concat(builtinAgents(), o.File) {
		base[a.ID] = a
	}
	return &Registry{pool: pool, runnable: o.Runnable, base: base, now: time.Now, patience: loadTimeout}
}

// Agents returns all agents, sorted by id.
func (r *Registry) Agents(ctx context.Context) ([]Agent, error) {
	s, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clone(s.all), nil
}

// Agent returns the agent of that id, or a NotFound fault.
func (r *Registry) Agent(ctx context.Context, id string) (Agent, error) {
	s, err := r.current(ctx)
	if err != nil {
		return Agent{}, err
	}
	a, ok := s.byID[id]
	if !ok {
		return Agent{}, noAgent(id)
	}
	return a, nil
}

// Skills returns all skills, sorted by id.
func (r *Registry) Skills(context.Context) ([]Skill, error) {
	return slices.Clone(builtinSkills().all), nil
}

// Skill returns the skill of that id, or a NotFound fault.
func (r *Registry) Skill(_ context.Context, id string) (Skill, error) {
	s, ok := builtinSkills().byID[id]
	if !ok {
		return Skill{}, fault.New(fault.NotFound, "no skill %.128q", id)
	}
	return s, nil
}

func noAgent(id string) error { return fault.New(fault.NotFound, "no agent %.128q", id) }

// set is some agents, or skills, by id and in the order of their ids.
type set[T any] struct {
	byID map[string]T
	all  []T
}

func newSet[T any](byID map[string]T) set[T] {
	all := make([]T, 0, len(byID))
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		all = append(all, byID[id])
	}
	return set[T]{byID, all}
}
