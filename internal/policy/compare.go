package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Weakens says how to allows more than from did, a line for each difference;
// nil: it does not. Either document may be nil, which is one that demands
// nothing. What cannot be compared, such as two expressions, counts as weaker.
func Weakens(from, to *Document) []string {
	var w weaknesses
	from, to = orEmpty(from, to)
	w.trust(from, to)
	w.lists("", from.AllowedRoles, to.AllowedRoles, from.DeniedRoles, to.DeniedRoles)
	w.allowed("allowedUsers", from.AllowedUsers, to.AllowedUsers)
	w.removed("deniedUsers", from.DeniedUsers, to.DeniedUsers)
	w.agents(from, to)
	w.skills(from, to)
	w.removed("organizationPolicy.requiredSkills", from.OrganizationPolicy.RequiredSkills, to.OrganizationPolicy.RequiredSkills)
	w.removed("organizationPolicy.deniedSkills", from.OrganizationPolicy.DeniedSkills, to.OrganizationPolicy.DeniedSkills)
	if from.Approvals.OtherThanSubmitter && !to.Approvals.OtherThanSubmitter {
		w.add("approvals.otherThanSubmitter is no longer on")
	}
	w.rules(from.CustomRules, to.CustomRules)
	w.roles(from, to)
	w.identity(&from.Identity, &to.Identity)
	return w
}

// Exceeds says which roles to newly makes grant what is not among held, or
// brings by a new or changed source of identity: nobody can give away what they
// do not hold. Either document may be nil.
func Exceeds(held []Permission, from, to *Document) (faults []string) {
	from, to = orEmpty(from, to)
	own, before, after := setOf(held), from.permissions(), to.permissions()
	for _, role := range to.roles() {
		if more := after[role] &^ before[role] &^ own; more != 0 {
			faults = append(faults, fmt.Sprintf("roles[%s] grants %s", role, join(more.list())))
		}
	}
	for _, s := range changed(&from.Identity, &to.Identity) {
		for _, l := range s.lists {
			for _, role := range l.roles {
				if more := after[role] &^ own; more != 0 {
					faults = append(faults, fmt.Sprintf("%s gives role %s, which grants %s", l.path, role, join(more.list())))
				}
			}
		}
	}
	return faults
}

// orEmpty returns the documents, with one that demands nothing for nil.
func orEmpty(from, to *Document) (*Document, *Document) {
	switch {
	case from == nil && to == nil:
		return &Document{}, &Document{}
	case from == nil:
		return &Document{Kind: to.Kind}, to
	case to == nil:
		return from, &Document{Kind: from.Kind}
	}
	return from, to
}

// changed returns the sources of to that from does not have exactly so.
func changed(from, to *Identity) (sources []source) {
	before := from.sources()
	for _, s := range to.sources() {
		if !slices.ContainsFunc(before, func(b source) bool { return reflect.DeepEqual(b.entry, s.entry) }) {
			sources = append(sources, s)
		}
	}
	return sources
}

type weaknesses []string

func (w *weaknesses) add(format string, args ...any) { *w = append(*w, fmt.Sprintf(format, args...)) }

func (w *weaknesses) trust(from, to *Document) {
	if from.EnforceTrust && !to.EnforceTrust {
		w.add("enforceTrust is no longer on")
	}
	w.lower("minimumTrustLevel", from.leastToAct(), to.leastToAct())
	w.lower("deviceTrust.minimumLevel", from.DeviceTrust.MinimumLevel, to.DeviceTrust.MinimumLevel)
	if to.DeviceTrust.AutoTrustLocal && !from.DeviceTrust.AutoTrustLocal {
		w.add("deviceTrust.autoTrustLocal is now on")
	}
}

func (w *weaknesses) lower(path string, from, to TrustLevel) {
	if to < from {
		w.add("%s falls from %s to %s", path, from, to)
	}
}

// lists compares whom roles let in.
func (w *weaknesses) lists(path string, fromAllowed, toAllowed, fromDenied, toDenied []Role) {
	w.allowed(path+"allowedRoles", texts(fromAllowed), texts(toAllowed))
	w.removed(path+"deniedRoles", texts(fromDenied), texts(toDenied))
}

// allowed compares lists of which nil allows all.
func (w *weaknesses) allowed(path string, from, to []string) {
	switch {
	case from == nil:
	case to == nil:
		w.add("%s is gone", path)
	default:
		for _, item := range to {
			if !slices.Contains(from, item) {
				w.add("%s has %s too", path, item)
			}
		}
	}
}

// removed compares lists of what is demanded or denied.
func (w *weaknesses) removed(path string, from, to []string) {
	for _, item := range from {
		if !slices.Contains(to, item) {
			w.add("%s no longer has %s", path, item)
		}
	}
}

func (w *weaknesses) agents(from, to *Document) {
	for _, a := range from.AgentPolicies {
		path := "agentPolicies[" + a.AgentID + "]"
		i := slices.IndexFunc(to.AgentPolicies, func(b AgentPolicy) bool { return b.AgentID == a.AgentID })
		if i < 0 {
			w.add("%s is gone", path)
			continue
		}
		b := to.AgentPolicies[i]
		w.lists(path+".", a.AllowedRoles, b.AllowedRoles, a.DeniedRoles, b.DeniedRoles)
		w.lower(path+".requireDeviceTrust", a.RequireDeviceTrust, b.RequireDeviceTrust)
	}
}

func (w *weaknesses) skills(from, to *Document) {
	for _, b := range to.SkillPolicies {
		if b.WithoutApproval && !slices.ContainsFunc(from.SkillPolicies, func(a SkillPolicy) bool { return a.SkillID == b.SkillID && a.WithoutApproval }) {
			w.add("skillPolicies[%s] no longer needs an approval", b.SkillID)
		}
	}
	for _, a := range from.SkillPolicies {
		path := "skillPolicies[" + a.SkillID + "]"
		i := slices.IndexFunc(to.SkillPolicies, func(b SkillPolicy) bool { return b.SkillID == a.SkillID })
		if i < 0 {
			w.add("%s is gone", path)
			continue
		}
		b := to.SkillPolicies[i]
		if a.Dangerous && !b.Dangerous {
			w.add("%s is no longer dangerous", path)
		}
		w.removed(path+".requiredPermissions", texts(a.RequiredPermissions), texts(b.RequiredPermissions))
		w.allowed(path+".allowedRoles", texts(a.AllowedRoles), texts(b.AllowedRoles))
		w.lower(path+".trustLevel", a.least(), b.least())
	}
}

func (w *weaknesses) rules(from, to []CustomRule) {
	for _, a := range from {
		i := slices.IndexFunc(to, func(b CustomRule) bool { return b.Name == a.Name })
		switch {
		case i < 0:
			w.add("customRules[%s] is gone", a.Name)
		case to[i].Expression != a.Expression:
			w.add("customRules[%s] has another expression", a.Name)
		}
	}
}

func (w *weaknesses) roles(from, to *Document) {
	before, after := from.permissions(), to.permissions()
	for _, role := range slices.Sorted(maps.Keys(after)) {
		if more := after[role] &^ before[role]; more != 0 {
			w.add("roles[%s] grants %s too", role, join(more.list()))
		}
	}
}

func (w *weaknesses) identity(from, to *Identity) {
	w.allowed("identity.providers", texts(from.Providers), texts(to.Providers))
	for _, s := range changed(from, to) {
		w.add("%s is new or not the same", s.path)
	}
	if a, b := from.Sessions.MaxHours, to.Sessions.MaxHours; a != b && (a == 0 || b == 0 || b > a) {
		w.add("identity.sessions.maxHours is another: %d after %d", b, a)
	}
}

func texts[T ~string](items []T) []string {
	if items == nil {
		return nil
	}
	list := make([]string, len(items))
	for i, item := range items {
		list[i] = string(item)
	}
	return list
}
