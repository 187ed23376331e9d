package policy

import (
	"maps"
	"slices"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

// Role is a named set of permissions.
type Role string

// The built-in roles.
const (
	Admin     Role = "admin"
	Developer Role = "developer"
	ReadOnly  Role = "readonly"
	CI        Role = "ci"
)

var builtInRoles = []Role{Admin, Developer, ReadOnly, CI}

var builtIn = map[Role]set{
	Admin:     setOf([]Permission{AdminAll}),
	Developer: setOf([]Permission{TaskSubmit, TaskRead, TaskCancel, AgentInvoke, SkillExecute}),
	ReadOnly:  setOf([]Permission{TaskRead, ConfigRead}),
	CI:        setOf([]Permission{TaskSubmit, TaskRead, AgentInvoke}),
}

// set is a set of permissions: a bit for each, in the order of Permissions.
type set uint8

// setOf returns the set of items. AdminAll includes all; what is unknown is in
// no set.
func setOf(items []Permission) (s set) {
	for _, p := range items {
		switch i := indexOf(p); {
		case p == AdminAll:
			return 1<<len(Permissions) - 1
		case i >= 0:
			s |= 1 << i
		}
	}
	return s
}

func indexOf(p Permission) int { return slices.Index(Permissions, p) }

func (s set) has(p Permission) bool {
	i := indexOf(p)
	return i >= 0 && s&(1<<i) != 0
}

// list returns the permissions in the order of Permissions.
func (s set) list() (items []Permission) {
	for i, p := range Permissions {
		if s&(1<<i) != 0 {
			items = append(items, p)
		}
	}
	return items
}

// roles returns the names of the roles that there are: the built-in ones first,
// then d's own by name. d may be nil.
func (d *Document) roles() []Role {
	all := slices.Clone(builtInRoles)
	if d != nil {
		all = append(all, slices.Sorted(maps.Keys(d.Roles))...)
	}
	return all
}

// permissions returns what each role grants, built-in ones included. d may be
// nil.
func (d *Document) permissions() map[Role]set {
	all := maps.Clone(builtIn)
	if d != nil {
		for name := range d.Roles {
			d.resolve(name, all)
		}
	}
	return all
}

// resolve adds role name to all, after those that it inherits.
func (d *Document) resolve(name Role, all map[Role]set) set {
	if s, ok := all[name]; ok {
		return s
	}
	role := d.Roles[name]
	s := setOf(role.AdditionalPermissions)
	for _, parent := range role.Inherits {
		s |= d.resolve(parent, all)
	}
	all[name] = s
	return s
}

// roleList is a list of roles in a document.
type roleList struct {
	path  string
	roles []Role
	name  any // stands where the role does, if it is no list but a single name
}

// place is what stands where the i-th role is named.
func (l roleList) place(doc *strictyaml.Document, i int) any {
	if item := &l.roles[i]; doc.Has(item) {
		return item
	}
	return l.name
}

// roleLists returns every list of roles that the document holds.
func (d *Document) roleLists() []roleList {
	lists := []roleList{{"allowedRoles", d.AllowedRoles, nil}, {"deniedRoles", d.DeniedRoles, nil}}
	for name, r := range d.Roles {
		lists = append(lists, roleList{"roles[" + string(name) + "].inherits", r.Inherits, &r.Inherits})
	}
	for i := range d.AgentPolicies {
		a := &d.AgentPolicies[i]
		path := "agentPolicies[" + a.AgentID + "]."
		lists = append(lists,
			roleList{path + "allowedRoles", a.AllowedRoles, nil},
			roleList{path + "deniedRoles", a.DeniedRoles, nil})
	}
	for i := range d.SkillPolicies {
		s := &d.SkillPolicies[i]
		lists = append(lists, roleList{"skillPolicies[" + s.SkillID + "].allowedRoles", s.AllowedRoles, nil})
	}
	for _, s := range d.Identity.sources() {
		lists = append(lists, s.lists...)
	}
	return lists
}
