// Package registry knows the agents that can be asked to run a task, the skills
// that they may use, and the policies by which everything is decided.
//
// Agents come from three sources, each hiding the definitions of the same id
// before it: those in the binary, the operator's agents.yaml, and the API.
// Skills come from the binary and the API. Policies are documents, one of the
// organisation and one for each project that has its own, of which every
// version is kept.
//
// All of it is in memory, two seconds old at most, so that to decide costs no
// round trip. What is written through this server is seen here at once, and by
// other servers as soon as they hear of it.
//
// It owns the tables agents, skills, policies and policy_documents; no other
// package names them.
package registry

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
)

// Registry answers which agents and skills there are, and who may do what. It
// is safe for concurrent use.
type Registry struct {
	pool      *pgxpool.Pool
	runnable  func(Agent) error
	served    func(context.Context) ([]string, error)
	base      map[string]Agent // built in, or from the file
	options   policy.Options
	workspace string
	recorder  Recorder
	bus       Bus
	now       func() time.Time
	patience  time.Duration // with a query

	flight singleflight.Group
	mu     sync.Mutex // guards what follows
	writes uint64
	cached *snapshot
	read   kept[parsed]
	ready  kept[compiled]
	// lastWorkspace is what was in the workspace when it was looked at.
	lastWorkspace *workspace
	looked        bool
}

// Recorder keeps denials, which have no transaction of their own to stand in.
type Recorder interface {
	Record(ctx context.Context, e audit.Entry)
}

// Bus tells other servers, and the other parts of this one, what has changed.
type Bus interface {
	Publish(...stream.Signal)
	Subscribe(func(stream.Signal)) (cancel func())
}

// Options says what a Registry offers besides the built-in agents, and what it
// decides by besides the documents.
type Options struct {
	// File holds the agents of the operator's agents.yaml.
	File []Agent
	// Runnable returns nil if something is there that can run the agent, and
	// otherwise an error whose text says what to configure. It is called
	// whenever the agents are read anew and must be quick.
	Runnable func(Agent) error
	// Served, if not nil, returns the ids of the agents that something elsewhere
	// can run.
	Served func(context.Context) ([]string, error)
	// EnforceTrust is security.enforceTrust of runtime.yaml, DefaultRoles its
	// security.defaultRoles.
	EnforceTrust bool
	DefaultRoles []policy.Role
	// Workspace is the file of the policy in the workspace, which may come and
	// go; "": there is never one.
	Workspace string
	// Recorder must be there if callers that may be denied ask for changes.
	Recorder Recorder
	// Bus. Default: one that nobody else hears.
	Bus Bus
}

// New returns a registry on a migrated database. It listens to the bus for as
// long as that lives.
func New(pool *pgxpool.Pool, o Options) *Registry {
	base := map[string]Agent{}
	for _, a := range slices.Concat(builtinAgents(), o.File) {
		base[a.ID] = a
	}
	if o.Bus == nil {
		o.Bus = &stream.Memory{}
	}
	if o.Served == nil {
		o.Served = func(context.Context) ([]string, error) { return nil, nil }
	}
	r := &Registry{
		pool: pool, runnable: o.Runnable, served: o.Served, base: base, recorder: o.Recorder, bus: o.Bus, workspace: o.Workspace,
		options: policy.Options{EnforceTrust: o.EnforceTrust, DefaultRoles: o.DefaultRoles},
		now:     time.Now, patience: loadTimeout,
		read: kept[parsed]{}, ready: kept[compiled]{},
	}
	o.Bus.Subscribe(r.hear)
	return r
}

// hear makes the next reader look again when others have changed something. The
// end of a single session changes nothing that is known here.
func (r *Registry) hear(s stream.Signal) {
	if s.Topic == stream.Resync || s.Topic == stream.WorkersChanged || s.Topic == stream.AccessChanged && s.ID == "" {
		r.forget()
	}
}

// Agents returns all agents, sorted by id.
func (r *Registry) Agents(ctx context.Context) ([]Agent, error) {
	s, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clone(s.agents.all), nil
}

// Agent returns the agent of that id, or a NotFound fault.
func (r *Registry) Agent(ctx context.Context, id string) (Agent, error) {
	s, err := r.current(ctx)
	if err != nil {
		return Agent{}, err
	}
	a, ok := s.agents.byID[id]
	if !ok {
		return Agent{}, noAgent(id)
	}
	return a, nil
}

// Skills returns all skills, sorted by id.
func (r *Registry) Skills(ctx context.Context) ([]Skill, error) {
	s, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clone(s.skills.all), nil
}

// Skill returns the skill of that id, or a NotFound fault.
func (r *Registry) Skill(ctx context.Context, id string) (Skill, error) {
	s, err := r.current(ctx)
	if err != nil {
		return Skill{}, err
	}
	sk, ok := s.skills.byID[id]
	if !ok {
		return Skill{}, noSkill(id)
	}
	return sk, nil
}

func noAgent(id string) error { return fault.New(fault.NotFound, "no agent %.128q", id) }
func noSkill(id string) error { return fault.New(fault.NotFound, "no skill %.128q", id) }

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
