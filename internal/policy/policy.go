// Package policy decides who may do what and says why. It is pure: it does no
// I/O, reads no clock and keeps no state, so that every decision can be
// repeated from its arguments.
package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coderclaw/runtime/internal/fault"
)

// Permission is what an operation asks of its caller.
type Permission string

// The permissions that roles grant.
const (
	TaskSubmit   Permission = "task:submit"
	TaskRead     Permission = "task:read"
	TaskCancel   Permission = "task:cancel"
	AgentInvoke  Permission = "agent:invoke"
	SkillExecute Permission = "skill:execute"
	ConfigRead   Permission = "config:read"
	ConfigWrite  Permission = "config:write"
	AdminAll     Permission = "admin:all" // includes all of the above
)

// What operations may ask for besides a permission.
const (
	// Public operations are open to anyone, with or without a credential.
	Public Permission = "public"
	// Authenticated operations are open to every known principal.
	Authenticated Permission = "authenticated"
)

// Permissions lists what roles can grant, in the order of the documentation.
var Permissions = []Permission{
	TaskSubmit, TaskRead, TaskCancel, AgentInvoke, SkillExecute, ConfigRead, ConfigWrite, AdminAll,
}

// Role is a named set of permissions.
type Role string

// The built-in roles.
const (
	Admin     Role = "admin"
	Developer Role = "developer"
	ReadOnly  Role = "readonly"
	CI        Role = "ci"
)

var grants = map[Role][]Permission{
	Admin:     {AdminAll},
	Developer: {TaskSubmit, TaskRead, TaskCancel, AgentInvoke, SkillExecute},
	ReadOnly:  {TaskRead, ConfigRead},
	CI:        {TaskSubmit, TaskRead, AgentInvoke},
}

// Known reports whether r names a role.
func (r Role) Known() bool {
	_, ok := grants[r]
	return ok
}

// Permissions returns what the caller's roles grant, without duplicates, in
// the order of Permissions. An unknown role grants nothing.
func (c Caller) Permissions() []Permission {
	var held []Permission
	for _, p := range Permissions {
		if Authorize(c, p).Allowed {
			held = append(held, p)
		}
	}
	return held
}

// Err returns nil for an allowed decision and a Forbidden fault with the
// reason for a denied one.
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return fault.New(fault.Forbidden, "%s", d.Reason)
}

// Authorize decides whether c holds p.
func Authorize(c Caller, p Permission) Decision {
	if p == Public {
		return Decision{Allowed: true, Reason: "open to anyone"}
	}
	if c.UserID == "" {
		return Decision{Reason: "no principal"}
	}
	if p == Authenticated {
		return Decision{Allowed: true, Reason: "open to every principal"}
	}
	for _, r := range c.Roles {
		if granted := grants[r]; slices.Contains(granted, p) || slices.Contains(granted, AdminAll) {
			return Decision{Allowed: true, Reason: fmt.Sprintf("role %s grants %s", r, p)}
		}
	}
	if len(c.Roles) == 0 {
		return Decision{Reason: fmt.Sprintf("%s is needed and %s has no role", p, c.UserID)}
	}
	names := make([]string, len(c.Roles))
	for i, r := range c.Roles {
		names[i] = string(r)
	}
	return Decision{Reason: fmt.Sprintf("%s is needed and no role of %s grants it (%s)", p, c.UserID, strings.Join(names, ", "))}
}
