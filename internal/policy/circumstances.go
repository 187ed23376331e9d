package policy

import "encoding/json"

// Circumstances are what a decision depended on and the audit log has no column
// for: with them it can be made again, under another document.
type Circumstances struct {
	Roles       []Role            `json:"roles,omitempty"`
	Scopes      []Permission      `json:"scopes,omitempty"`
	Trust       TrustLevel        `json:"trust"`
	Local       bool              `json:"local,omitempty"`
	AllProjects bool              `json:"allProjects,omitempty"`
	Permission  Permission        `json:"permission"`
	AgentID     string            `json:"agentId,omitempty"`
	SkillID     string            `json:"skillId,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

// Circumstances returns those of a caller's request, as JSON.
func (r Request) Circumstances(c Caller) (json.RawMessage, error) {
	return json.Marshal(Circumstances{
		Roles: c.Roles, Scopes: c.Scopes, Trust: c.Trust, Local: c.Local, AllProjects: c.AllProjects,
		Permission: r.Permission, AgentID: r.AgentID, SkillID: r.SkillID, Labels: r.Labels,
	})
}

// Restore completes a caller and a request that were put together from the
// columns of an audit entry.
func (x Circumstances) Restore(c *Caller, r *Request) {
	c.Roles, c.Scopes, c.Trust, c.Local, c.AllProjects = x.Roles, x.Scopes, x.Trust, x.Local, x.AllProjects
	r.Permission, r.AgentID, r.SkillID, r.Labels = x.Permission, x.AgentID, x.SkillID, x.Labels
}
