// Package httpapi is the HTTP face of the runtime: routes, who may use them,
// errors as problems (RFC 9457), streams as Server-Sent Events.
//
// It translates between the wire (package api) and the engine. It holds no SQL
// and takes no decisions: those are in task, registry and policy.
package httpapi
