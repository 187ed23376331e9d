package policy

import (
	"fmt"
)

// TrustLevel is how far a device is trusted.
type TrustLevel int

// The trust levels, from the least.
const (
	Untrusted TrustLevel = iota // unknown, or no device at all
	Verified                    // it has proved its key, with a code from someone who may give one
	Trusted                     // an administrator has approved its key
)

var trustNames = [...]string{"untrusted", "verified", "trusted"}

func (l TrustLevel) String() string { return trustNames[l] }

// MarshalText returns the level's name.
func (l TrustLevel) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText accepts the name of a level.
func (l *TrustLevel) UnmarshalText(text []byte) error {
	for i, name := range trustNames {
		if string(text) == name {
			*l = TrustLevel(i)
			return nil
		}
	}
	return fmt.Errorf("%.40q is not one of untrusted, verified, trusted", text)
}

// Caller is who a request speaks for, from which device and within which
// bounds: everything about the requester that a decision can depend on.
type Caller struct {
	UserID    string // e.g. local:ann, github:583231, key:018f…; empty: nobody
	SessionID string
	DeviceID  string
	// Trust is that of the device.
	Trust TrustLevel
	// Local says that the request came over the Unix socket or from this
	// machine's loopback, by no proxy.
	Local bool
	// Roles are those that the caller has in its project.
	Roles []Role
	// Scopes, if not nil, are the only permissions that the credential carries,
	// whatever the roles grant.
	Scopes []Permission
	// ProjectID is the one project that the caller is confined to. Without one
	// it has its own tasks that belong to no project.
	ProjectID string
	// AllProjects lifts that confinement.
	AllProjects bool
	// Worker says that the caller is a worker, and what it may serve; nil: it is
	// none.
	Worker *WorkerScope
	// Lease says that the caller is the agent of one attempt of one task, and
	// nobody besides; nil: it is none.
	Lease *LeaseScope
	// RequestID and Address go into the audit log.
	RequestID string
	Address   string
}

// WorkerScope bounds the tasks that a worker may be given. What is nil bounds
// nothing.
type WorkerScope struct {
	Projects []string          `json:"projects,omitempty"` // "" is that of tasks without a project
	Agents   []string          `json:"agents,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"` // which a task must carry, all of them
}

// LeaseScope is the attempt that an agent speaks of.
type LeaseScope struct {
	TaskID string
	Token  string // of the lease that its worker holds
}

// Sees reports whether something of that project, submitted by that user, is
// within the caller's confinement.
func (c Caller) Sees(projectID, userID string) bool {
	return c.AllProjects || c.ProjectID == projectID && (projectID != "" || c.UserID == userID)
}

// Layer names the part of a policy that made a decision.
type Layer string

// The layers, in the order in which they are asked. All must allow.
const (
	LayerSession      Layer = "session"      // is there a valid session?
	LayerDevice       Layer = "device"       // is its device trusted enough?
	LayerProject      Layer = "project"      // may this user, in this role, enter the project?
	LayerPermission   Layer = "permission"   // does a role grant the permission?
	LayerAgent        Layer = "agent"        // may it use this agent?
	LayerSkill        Layer = "skill"        // may it use this skill?
	LayerOrganization Layer = "organization" // what the organisation demands of all projects
	LayerCustom       Layer = "custom"       // rules in CEL
)

// Decision is the answer to "may the caller?", with the reason for it.
type Decision struct {
	Allowed bool
	Layer   Layer
	// Rule is the line that decided, after the name of its document, e.g.
	// security.yaml: agentPolicies[code-modifier].requireDeviceTrust; empty for
	// what is built in.
	Rule   string
	Reason string
	// Approval says that the skill asked for is dangerous: an agent that is
	// about to use it needs a person's approval each time.
	Approval bool
	// PolicyVersion is that of the organisation's document; 0: there is none.
	PolicyVersion int64
}
