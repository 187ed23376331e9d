package policy

import (
	"errors"
	"fmt"
	"slices"
)

// Options are what decisions depend on beside the documents.
type Options struct {
	// EnforceTrust is security.enforceTrust of runtime.yaml: trust is enforced
	// if either that or a document says so.
	EnforceTrust bool
	// DefaultRoles are those of runtime.yaml. Compile refuses unknown ones;
	// callers come with their roles, so no decision adds them.
	DefaultRoles []Role
	// Version is that of the organisation's document, for decisions to name.
	Version int64
}

// Policy decides. It never changes, so that any number of goroutines may ask it
// at once.
type Policy struct {
	version    int64
	roles      []Role
	grants     map[Role]grant
	trustLocal bool
	open, act  level // what devices need, to open a session and otherwise
	documents  []document
	custom     bool      // there are custom rules
	closed     *Decision // if not nil: what everything comes to
}

// grant is what a role grants. Its texts are made once, for decisions that
// allow are the ones that are asked for all the time.
type grant struct {
	set     set
	rule    string
	reasons []string // in the order of Permissions
}

// level is a trust level and the line that demands it.
type level struct {
	level TrustLevel
	rule  string
}

// document is a Document with its lists made ready to be looked up in.
type document struct {
	*Document
	allowedUsers, deniedUsers map[string]bool
	agents                    map[string]agent
	skills                    map[string]skill
}

type agent struct {
	*AgentPolicy
	path string // stands before the keys of its rules
}

type skill struct {
	*SkillPolicy
	path                string
	dangerous, required string // rules
	least               level
}

// Compile makes a policy of the organisation's document and a project's; either
// may be nil. The error holds all that cannot be used, as ParseDocument's does:
// roles in the project's document, or among the default roles, that neither the
// organisation's document defines nor are built in.
func Compile(org, project *Document, o Options) (*Policy, error) {
	if err := compatible(org, project, o); err != nil {
		return nil, err
	}
	p := &Policy{version: o.Version, roles: org.roles(), grants: grants(org)}
	for _, d := range []*Document{org, project} {
		if d != nil {
			p.documents = append(p.documents, prepare(d))
			p.custom = p.custom || len(d.CustomRules) > 0
		}
	}
	p.trustLocal = org != nil && org.DeviceTrust.AutoTrustLocal
	p.demand(org, project, o)
	return p, nil
}

func compatible(org, project *Document, o Options) error {
	var faults []error
	for kind, d := range []*Document{org, project} {
		if d != nil && (d.places == nil || d.Kind != Kind(kind)) {
			return fmt.Errorf("compile policy: %q is not a parsed %s document", d.Name, Kind(kind))
		}
	}
	for _, r := range o.DefaultRoles {
		if message := unknownRole(r, org); message != "" {
			faults = append(faults, errors.New("defaultRoles: "+message))
		}
	}
	if project != nil {
		for _, l := range project.roleLists() {
			for i, r := range l.roles {
				if message := unknownRole(r, org); message != "" {
					faults = append(faults, fmt.Errorf("%s: %s: %s", project.places.Place(l.place(project.places, i)), l.path, message))
				}
			}
		}
	}
	return errors.Join(faults...)
}

func grants(org *Document) map[Role]grant {
	all := map[Role]grant{}
	for role, s := range org.permissions() {
		g := grant{set: s, reasons: make([]string, len(Permissions))}
		if _, ok := builtIn[role]; !ok {
			g.rule = org.rule("roles[%s]", role)
		}
		for i, p := range Permissions {
			g.reasons[i] = fmt.Sprintf("role %s grants %s", role, p)
		}
		all[role] = g
	}
	return all
}

// demand sets the levels that devices need.
func (p *Policy) demand(org, project *Document, o Options) {
	var enforced string
	switch {
	case org != nil && org.EnforceTrust:
		enforced = org.rule("enforceTrust")
	case project != nil && project.EnforceTrust:
		enforced = project.rule("enforceTrust")
	case o.EnforceTrust:
		enforced = "runtime.yaml: security.enforceTrust"
	default:
		return
	}
	p.act = level{org.leastToAct(), enforced}
	if org != nil {
		p.open = level{org.DeviceTrust.MinimumLevel, org.rule("deviceTrust.minimumLevel")}
		if org.MinimumTrustLevel != nil {
			p.act.rule = org.rule("minimumTrustLevel")
		}
	}
	if project != nil && project.leastToAct() > p.act.level {
		p.act = level{project.leastToAct(), project.rule("minimumTrustLevel")}
	}
}

// leastToAct is the level that d demands where trust is enforced.
func (d *Document) leastToAct() TrustLevel {
	switch {
	case d != nil && d.MinimumTrustLevel != nil:
		return *d.MinimumTrustLevel
	case d != nil && d.Kind == Project:
		return Untrusted
	}
	return Verified
}

func prepare(d *Document) document {
	doc := document{
		Document: d, allowedUsers: members(d.AllowedUsers), deniedUsers: members(d.DeniedUsers),
		agents: map[string]agent{}, skills: map[string]skill{},
	}
	for i := range d.AgentPolicies {
		a := &d.AgentPolicies[i]
		doc.agents[a.AgentID] = agent{a, "agentPolicies[" + a.AgentID + "]."}
	}
	for i := range d.SkillPolicies {
		s := &d.SkillPolicies[i]
		path := "skillPolicies[" + s.SkillID + "]."
		least := level{s.least(), d.rule("%srequireDeviceTrust", path)}
		if s.TrustLevel > s.RequireDeviceTrust {
			least.rule = d.rule("%strustLevel", path)
		}
		doc.skills[s.SkillID] = skill{s, path, d.rule("%sdangerous", path), d.rule("%srequiredPermissions", path), least}
	}
	return doc
}

func members(items []string) map[string]bool {
	set := make(map[string]bool, len(items))
	for _, item := range items {
		set[item] = true
	}
	return set
}

// Roles returns the roles that there are: the built-in ones first, then the
// organisation's own by name.
func (p *Policy) Roles() []Role { return slices.Clone(p.roles) }

// KnownRole reports whether r is one of Roles.
func (p *Policy) KnownRole(r Role) bool { return slices.Contains(p.roles, r) }

// Grants returns what a role grants, in the order of Permissions. An unknown
// role grants nothing.
func (p *Policy) Grants(r Role) []Permission { return p.grants[r].set.list() }

// Permissions returns what c's roles grant and its credential carries, without
// duplicates, in the order of Permissions. Whether documents let c use them
// depends on the request.
func (p *Policy) Permissions(c Caller) []Permission { return p.held(&c).list() }

// Holds reports whether Permissions would return that one.
func (p *Policy) Holds(c Caller, permission Permission) bool { return p.held(&c).has(permission) }

func (p *Policy) held(c *Caller) set {
	held := p.granted(c)
	if c.Scopes != nil {
		held &= setOf(c.Scopes)
	}
	return held
}

func (p *Policy) granted(c *Caller) (held set) {
	for _, r := range c.Roles {
		held |= p.grants[r].set
	}
	return held
}
