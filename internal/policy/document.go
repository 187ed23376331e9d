package policy

import (
	"fmt"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

// MaxDocumentBytes bounds the text of a document.
const MaxDocumentBytes = 64 << 10

// Kind is whose document it is.
type Kind int

// The kinds.
const (
	// Organization documents bind every project. Roles, identity and devices
	// are defined by them alone.
	Organization Kind = iota
	// Project documents bind one project and can only narrow.
	Project
)

func (k Kind) String() string { return [...]string{"organization", "project"}[k] }

// Document is a security.yaml: what is demanded of whom. A list that is not
// given demands nothing; an empty list of who is allowed allows nobody. It
// comes from ParseDocument and must not be changed.
type Document struct {
	Kind   Kind
	Name   string // stands before each rule in a decision
	Source string // the text it was parsed from

	Identity    Identity         `yaml:"identity"`
	DeviceTrust DeviceTrust      `yaml:"deviceTrust"`
	Roles       map[Role]*Custom `yaml:"roles"`

	// EnforceTrust demands devices of MinimumTrustLevel for all that is done.
	EnforceTrust bool `yaml:"enforceTrust"`
	// MinimumTrustLevel counts where trust is enforced. Without one an
	// organisation demands verified devices, and a project nothing of its own.
	MinimumTrustLevel *TrustLevel `yaml:"minimumTrustLevel"`

	AllowedRoles []Role   `yaml:"allowedRoles"`
	DeniedRoles  []Role   `yaml:"deniedRoles"`
	AllowedUsers []string `yaml:"allowedUsers"`
	DeniedUsers  []string `yaml:"deniedUsers"`

	AgentPolicies      []AgentPolicy      `yaml:"agentPolicies"`
	SkillPolicies      []SkillPolicy      `yaml:"skillPolicies"`
	OrganizationPolicy OrganizationPolicy `yaml:"organizationPolicy"`
	Approvals          Approvals          `yaml:"approvals"`
	CustomRules        []CustomRule       `yaml:"customRules"`

	places *strictyaml.Document
}

// DeviceTrust says what devices are worth.
type DeviceTrust struct {
	// MinimumLevel is the least that opens a session where trust is enforced.
	MinimumLevel TrustLevel `yaml:"minimumLevel"`
	// AutoTrustLocal counts what comes from this machine as from a trusted device.
	AutoTrustLocal bool `yaml:"autoTrustLocal"`
}

// Custom is a role that a document defines. It grants what the roles that it
// inherits grant and more. Where roles are listed it is not one of those.
type Custom struct {
	Inherits              Roles        `yaml:"inherits"`
	AdditionalPermissions []Permission `yaml:"additionalPermissions"`
}

// Roles is a list of roles that is written as one name if it has one item.
type Roles []Role

// UnmarshalText accepts one name.
func (r *Roles) UnmarshalText(text []byte) error {
	*r = Roles{Role(text)}
	return nil
}

// AgentPolicy says who may use an agent.
type AgentPolicy struct {
	AgentID      string `yaml:"agentId"`
	AllowedRoles []Role `yaml:"allowedRoles"`
	DeniedRoles  []Role `yaml:"deniedRoles"`
	// RequireDeviceTrust holds whether or not trust is enforced elsewhere.
	RequireDeviceTrust TrustLevel `yaml:"requireDeviceTrust"`
}

// SkillPolicy says who may use a skill.
type SkillPolicy struct {
	SkillID string `yaml:"skillId"`
	// Dangerous skills need skill:execute and a device that is verified at least.
	Dangerous bool `yaml:"dangerous"`
	// WithoutApproval lets agents use the skill without asking people each time,
	// dangerous or not. Only the organisation's document can say so, and only of
	// what a project's does not call dangerous.
	WithoutApproval     bool         `yaml:"withoutApproval"`
	RequiredPermissions []Permission `yaml:"requiredPermissions"`
	AllowedRoles        []Role       `yaml:"allowedRoles"`
	// RequireDeviceTrust and TrustLevel say the same: the higher one counts,
	// whether or not trust is enforced elsewhere.
	RequireDeviceTrust TrustLevel `yaml:"requireDeviceTrust"`
	TrustLevel         TrustLevel `yaml:"trustLevel"`
}

// least is the level that a device needs.
func (s *SkillPolicy) least() TrustLevel { return max(s.RequireDeviceTrust, s.TrustLevel) }

// OrganizationPolicy is demanded of the agents and skills of all projects.
type OrganizationPolicy struct {
	RequiredSkills []string `yaml:"requiredSkills"` // every agent that is used has them
	DeniedSkills   []string `yaml:"deniedSkills"`   // no agent that is used has them
}

// Approvals says who may approve what agents ask leave for.
type Approvals struct {
	// OtherThanSubmitter demands somebody else than who submitted the task.
	OtherThanSubmitter bool `yaml:"otherThanSubmitter"`
}

// ParseDocument reads a document of that kind. Name is how faults and decisions
// call it, e.g. its file's name. The error holds all faults, one a line in the
// form name:line:column: message. Which roles exist for a project is known to
// Compile alone, which refuses the others.
func ParseDocument(data []byte, name string, kind Kind) (*Document, error) {
	d := &Document{Kind: kind, Name: name, Source: string(data)}
	d.places = strictyaml.Decode(name, data, MaxDocumentBytes, d)
	c := checker{Document: d.places}
	c.document(d)
	if err := d.places.Err(); err != nil {
		return nil, err
	}
	return d, nil
}

// rule names a line of the document, as decisions do.
func (d *Document) rule(format string, args ...any) string {
	return d.Name + ": " + fmt.Sprintf(format, args...)
}
