// Package policy decides who may do what and says why. It is pure: it does no
// I/O, reads no clock and keeps no state, so that every decision can be
// repeated from its arguments.
//
// What is demanded stands in documents, one of the organisation and one for
// each project that has its own. Compile makes a Policy of them once, and
// Decide asks its layers for every request: all must allow, deny rules bind
// administrators too, and a project's document can only take away. What is not
// understood is refused when the document is read, and what cannot be
// evaluated denies.
package policy

import (
	"sync"

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
	// Authenticated operations are open to every known principal, whatever its
	// device: they are what it takes to be let in, or to leave.
	Authenticated Permission = "authenticated"
	// Admitted operations are open to every principal that the documents let
	// in, whatever its roles grant.
	Admitted Permission = "admitted"
	// Work is to claim tasks and report on them: for the credentials of workers,
	// and for whoever administers everything.
	Work Permission = "work"
	// Report is to report on one leased task, and to read it: for the token of
	// its agent, and for nobody else.
	Report Permission = "report"
)

// Permissions lists what roles can grant, in the order of the documentation.
var Permissions = []Permission{
	TaskSubmit, TaskRead, TaskCancel, AgentInvoke, SkillExecute, ConfigRead, ConfigWrite, AdminAll,
}

// Err returns nil for an allowed decision and a Forbidden fault with the
// reason, and the rule if there is one, for a denied one.
func (d Decision) Err() error {
	switch {
	case d.Allowed:
		return nil
	case d.Rule == "":
		return fault.New(fault.Forbidden, "%s", d.Reason)
	}
	return fault.New(fault.Forbidden, "%s (%s)", d.Reason, d.Rule)
}

// undocumented is the policy without any document.
var undocumented = sync.OnceValue(func() *Policy {
	p, err := Compile(nil, nil, Options{})
	if err != nil {
		panic(err) // nothing was given that could be refused
	}
	return p
})

// Authorize decides by the built-in roles alone whether c holds p.
func Authorize(c Caller, p Permission) Decision {
	return undocumented().Decide(c, Request{Permission: p})
}

// Permissions returns what c's roles grant if they are built in, as
// Policy.Permissions does.
func (c Caller) Permissions() []Permission { return undocumented().Permissions(c) }
