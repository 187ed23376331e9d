package policy

import (
	"fmt"
	"slices"
)

// Request is what a caller asks for.
type Request struct {
	Permission Permission
	Action     string // as in the audit log, e.g. task.submit
	ProjectID  string // of what is asked about; empty: of no project
	// AgentID is the agent to be used, and AgentSkills what it can do.
	AgentID     string
	AgentSkills []string
	// SkillID is the skill to be used. SkillDangerous and SkillPermissions are
	// what its definition demands, beyond what documents do.
	SkillID          string
	SkillDangerous   bool
	SkillPermissions []Permission
	Labels           map[string]string
	// Approving is who submitted the task for which the caller approves
	// something; empty: it does not.
	Approving string
	// Opening says that a session is being opened: deviceTrust.minimumLevel
	// then counts instead of minimumTrustLevel.
	Opening bool
	// Preliminary says that the agent, the skill and the labels are not known
	// yet, and that it will be asked again when they are: custom rules, which may
	// depend on them, wait for that.
	Preliminary bool
}

// Decide says whether c may do what r asks for. All layers must allow, and
// within a layer every document; what denies first is what the decision names.
// Public operations are open to anyone and Authenticated ones to every known
// principal, whatever the documents say, except where a session is opened.
// Admitted ones need no permission, but all other layers' consent. A worker may
// work, whatever the documents demand of people; the agent of a leased task may
// report on it, and nothing else.
func (p *Policy) Decide(c Caller, r Request) Decision {
	d := Decision{PolicyVersion: p.version}
	switch {
	case r.Permission == Public:
		d.Allowed, d.Reason = true, "open to anyone"
		return d
	case c.UserID == "":
		d.deny(LayerSession, "", "there is no valid session: nobody is known to ask")
		return d
	case (c.Lease != nil) != (r.Permission == Report):
		if c.Lease == nil {
			d.deny(LayerPermission, "", "%s is not the agent of the task", c.UserID)
			return d
		}
		d.deny(LayerPermission, "", "the token is good for reports on task %s alone", c.Lease.TaskID)
		return d
	case r.Permission == Authenticated && !r.Opening:
		d.Allowed, d.Layer, d.Reason = true, LayerSession, "open to every principal"
		return d
	case p.closed != nil:
		return *p.closed
	case c.Lease != nil:
		d.Allowed, d.Layer, d.Reason = true, LayerSession, "the token of the task's agent"
		return d
	case c.Worker != nil && (r.Permission == Work || r.Opening):
		p.workerDenies(&d, &c)
		return d
	case r.Permission == Work:
		r.Permission = AdminAll
		if !c.AllProjects {
			d.deny(LayerPermission, "", "%s is neither a worker nor administers everything", c.UserID)
			return d
		}
	}
	trust := p.trust(&c)
	_ = p.deviceDenies(&d, &c, &r, trust) ||
		p.projectDenies(&d, &c, &r) ||
		p.permissionDenies(&d, &c, &r) ||
		p.agentDenies(&d, &c, &r, trust) ||
		p.skillDenies(&d, &c, &r, trust) ||
		p.organizationDenies(&d, &r) ||
		p.approverDenies(&d, &c, &r) ||
		p.customDenies(&d, &c, &r, trust)
	d.Approval = d.Allowed && p.needsApproval(&r)
	return d
}

// workerDenies decides about a worker. It is no person: of what documents say
// of people, only that somebody is denied concerns it.
func (p *Policy) workerDenies(d *Decision, c *Caller) bool {
	for i := range p.documents {
		if doc := &p.documents[i]; doc.deniedUsers[c.UserID] {
			return d.deny(LayerProject, doc.rule("deniedUsers[%s]", c.UserID), "%s is denied", c.UserID)
		}
	}
	d.Allowed, d.Layer, d.Reason = true, LayerSession, "a worker's credential"
	return false
}

// deny makes d a denial. It returns true, so that a layer can return its call.
func (d *Decision) deny(layer Layer, rule, format string, args ...any) bool {
	d.Allowed, d.Layer, d.Rule, d.Reason = false, layer, rule, fmt.Sprintf(format, args...)
	return true
}

func (p *Policy) trust(c *Caller) TrustLevel {
	switch {
	case p.trustLocal && c.Local:
		return Trusted
	case c.DeviceID == "":
		return Untrusted
	}
	return c.Trust
}

// lacks denies because the device is trusted less than what must be least.
func (d *Decision) lacks(layer Layer, rule, need string, c *Caller, least, trust TrustLevel) bool {
	if c.DeviceID == "" {
		return d.deny(layer, rule, "%s needs a %s device, and the caller has shown none", need, least)
	}
	return d.deny(layer, rule, "%s needs a %s device, and the caller's is %s", need, least, trust)
}

func (p *Policy) deviceDenies(d *Decision, c *Caller, r *Request, trust TrustLevel) bool {
	least, need := &p.act, "every action"
	if r.Opening {
		least, need = &p.open, "opening a session"
	}
	return trust < least.level && d.lacks(LayerDevice, least.rule, need, c, least.level, trust)
}

func (p *Policy) projectDenies(d *Decision, c *Caller, r *Request) bool {
	if r.ProjectID != "" && !c.AllProjects && c.ProjectID != r.ProjectID {
		if c.ProjectID == "" {
			return d.deny(LayerProject, "", "the session belongs to no project, and this is in project %s", r.ProjectID)
		}
		return d.deny(LayerProject, "", "the session is confined to project %s, and this is in project %s", c.ProjectID, r.ProjectID)
	}
	for i := range p.documents {
		doc := &p.documents[i]
		if doc.deniedUsers[c.UserID] {
			return d.deny(LayerProject, doc.rule("deniedUsers[%s]", c.UserID), "%s is denied", c.UserID)
		}
		if doc.AllowedUsers != nil && !doc.allowedUsers[c.UserID] {
			return d.deny(LayerProject, doc.rule("allowedUsers"), "only listed users are allowed, and %s is not one of them", c.UserID)
		}
		if d.rolesDeny(LayerProject, doc.Document, "", c, doc.AllowedRoles, doc.DeniedRoles) {
			return true
		}
	}
	return false
}

// rolesDeny denies to callers with a denied role, and to those without an
// allowed one if there is a list of such. The path stands before the keys.
func (d *Decision) rolesDeny(layer Layer, doc *Document, path string, c *Caller, allowed, denied []Role) bool {
	for _, role := range denied {
		if slices.Contains(c.Roles, role) {
			return d.deny(layer, doc.rule("%sdeniedRoles[%s]", path, role), "role %s is denied", role)
		}
	}
	if allowed == nil || slices.ContainsFunc(c.Roles, func(r Role) bool { return slices.Contains(allowed, r) }) {
		return false
	}
	rule := doc.rule("%sallowedRoles", path)
	if len(allowed) == 0 {
		return d.deny(layer, rule, "no role is allowed")
	}
	return d.deny(layer, rule, "one of the roles %s is needed, and %s has %s", join(allowed), c.UserID, c.roleNames())
}

func (c *Caller) roleNames() string {
	if len(c.Roles) == 0 {
		return "none"
	}
	return join(c.Roles)
}

func (p *Policy) permissionDenies(d *Decision, c *Caller, r *Request) bool {
	if r.Permission == Authenticated || r.Permission == Admitted {
		d.Allowed, d.Layer, d.Reason = true, LayerSession, "open to every principal"
		return false
	}
	if p.withholds(d, LayerPermission, "", c, r.Permission) {
		return true
	}
	for _, role := range c.Roles {
		if g := p.grants[role]; g.set.has(r.Permission) {
			d.Allowed, d.Layer, d.Rule, d.Reason = true, LayerPermission, g.rule, g.reasons[indexOf(r.Permission)]
			break
		}
	}
	return false
}

// withholds denies to a caller that does not hold the permission.
func (p *Policy) withholds(d *Decision, layer Layer, rule string, c *Caller, need Permission) bool {
	if p.granted(c).has(need) {
		if c.Scopes == nil || setOf(c.Scopes).has(need) {
			return false
		}
		return d.deny(layer, rule, "%s is needed, and the credential of %s is limited to %s", need, c.UserID, scopeNames(c.Scopes))
	}
	if len(c.Roles) == 0 {
		return d.deny(layer, rule, "%s is needed and %s has no role", need, c.UserID)
	}
	return d.deny(layer, rule, "%s is needed and no role of %s grants it (%s)", need, c.UserID, join(c.Roles))
}

func scopeNames(scopes []Permission) string {
	if len(scopes) == 0 {
		return "nothing"
	}
	return join(scopes)
}

func (p *Policy) agentDenies(d *Decision, c *Caller, r *Request, trust TrustLevel) bool {
	if r.AgentID == "" {
		return false
	}
	for i := range p.documents {
		doc := &p.documents[i]
		a, ok := doc.agents[r.AgentID]
		if !ok {
			continue
		}
		if d.rolesDeny(LayerAgent, doc.Document, a.path, c, a.AllowedRoles, a.DeniedRoles) {
			return true
		}
		if trust < a.RequireDeviceTrust {
			return d.lacks(LayerAgent, doc.rule("%srequireDeviceTrust", a.path), "agent "+a.AgentID, c, a.RequireDeviceTrust, trust)
		}
	}
	return false
}

// skillDenies asks both the definition of the skill and the documents.
func (p *Policy) skillDenies(d *Decision, c *Caller, r *Request, trust TrustLevel) bool {
	if r.SkillID == "" {
		return false
	}
	if r.SkillDangerous && p.dangerDenies(d, "", c, r, trust) {
		return true
	}
	for _, need := range r.SkillPermissions {
		if p.withholds(d, LayerSkill, "", c, need) {
			return true
		}
	}
	for i := range p.documents {
		doc := &p.documents[i]
		s, ok := doc.skills[r.SkillID]
		if !ok {
			continue
		}
		for _, need := range s.RequiredPermissions {
			if p.withholds(d, LayerSkill, s.required, c, need) {
				return true
			}
		}
		if d.rolesDeny(LayerSkill, doc.Document, s.path, c, s.AllowedRoles, nil) ||
			s.Dangerous && p.dangerDenies(d, s.dangerous, c, r, trust) {
			return true
		}
		if trust < s.least.level {
			return d.lacks(LayerSkill, s.least.rule, "skill "+r.SkillID, c, s.least.level, trust)
		}
	}
	return false
}

// dangerDenies asks for what every dangerous skill needs.
func (p *Policy) dangerDenies(d *Decision, rule string, c *Caller, r *Request, trust TrustLevel) bool {
	if p.withholds(d, LayerSkill, rule, c, SkillExecute) {
		return true
	}
	return trust < Verified && d.lacks(LayerSkill, rule, "the dangerous skill "+r.SkillID, c, Verified, trust)
}

func (p *Policy) organizationDenies(d *Decision, r *Request) bool {
	for i := range p.documents {
		doc := &p.documents[i]
		for _, skill := range doc.OrganizationPolicy.DeniedSkills {
			rule := "organizationPolicy.deniedSkills[%s]"
			if skill == r.SkillID {
				return d.deny(LayerOrganization, doc.rule(rule, skill), "skill %s is denied", skill)
			}
			if r.AgentID != "" && slices.Contains(r.AgentSkills, skill) {
				return d.deny(LayerOrganization, doc.rule(rule, skill), "skill %s is denied, and agent %s has it", skill, r.AgentID)
			}
		}
		for _, skill := range doc.OrganizationPolicy.RequiredSkills {
			if r.AgentID != "" && !slices.Contains(r.AgentSkills, skill) {
				return d.deny(LayerOrganization, doc.rule("organizationPolicy.requiredSkills[%s]", skill),
					"every agent needs skill %s, and %s does not have it", skill, r.AgentID)
			}
		}
	}
	return false
}

func (p *Policy) approverDenies(d *Decision, c *Caller, r *Request) bool {
	if r.Approving != c.UserID {
		return false
	}
	for i := range p.documents {
		doc := &p.documents[i]
		if doc.Approvals.OtherThanSubmitter {
			layer := [...]Layer{Organization: LayerOrganization, Project: LayerProject}[doc.Kind]
			return d.deny(layer, doc.rule("approvals.otherThanSubmitter"), "somebody else than who submitted the task must approve this, and %s did", c.UserID)
		}
	}
	return false
}

// needsApproval reports whether people are asked before the skill is used.
func (p *Policy) needsApproval(r *Request) bool {
	if r.SkillID == "" {
		return false
	}
	dangerous := r.SkillDangerous
	for i := range p.documents {
		doc := &p.documents[i]
		s, ok := doc.skills[r.SkillID]
		if ok {
			// The organisation's document comes first: what it waives, a project's
			// can ask for again.
			dangerous = (dangerous || s.Dangerous) && !s.WithoutApproval
		}
	}
	return dangerous
}

func (p *Policy) customDenies(d *Decision, c *Caller, r *Request, trust TrustLevel) bool {
	if !p.custom || r.Preliminary {
		return false
	}
	f := &facts{caller: *c, request: *r, trust: trust}
	for i := range p.documents {
		doc := &p.documents[i]
		for j := range doc.CustomRules {
			rule := &doc.CustomRules[j]
			holds, err := rule.holds(f)
			switch {
			case err != nil:
				return d.deny(LayerCustom, doc.rule("customRules[%s]", rule.Name), "rule %s could not be evaluated: %s", rule.Name, err)
			case !holds && rule.Message != "":
				return d.deny(LayerCustom, doc.rule("customRules[%s]", rule.Name), "%s", rule.Message)
			case !holds:
				return d.deny(LayerCustom, doc.rule("customRules[%s]", rule.Name), "rule %s does not hold", rule.Name)
			}
		}
	}
	return false
}
