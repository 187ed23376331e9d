// Package fault holds the one error type that crosses package borders: a code
// that callers can act on and a message that is safe to show to anyone.
//
// It knows nothing of HTTP; internal/httpapi maps codes to statuses.
package fault

import (
	"errors"
	"fmt"
)

// Code classifies a fault. Its text is the last part of a problem's type URI
// (/problems/<code>) and never changes once released.
type Code string

// The codes, each with the situation it stands for.
const (
	// Invalid: well-formed, but a value is outside what is accepted.
	Invalid Code = "invalid"
	// Unauthenticated: no credential, or one that is not accepted.
	Unauthenticated Code = "unauthenticated"
	// Forbidden: the caller is known and the policy says no.
	Forbidden Code = "forbidden"
	// NotFound: no such thing, or one that the caller may not know of.
	NotFound Code = "not-found"
	// Conflict: the request contradicts the present state.
	Conflict Code = "conflict"
	// InvalidTransition: the status machine has no such step.
	InvalidTransition Code = "invalid-transition"
	// LeaseLost: the writer's lease ran out or was taken over.
	LeaseLost Code = "lease-lost"
	// AgentUnavailable: nothing that is configured can run the agent.
	AgentUnavailable Code = "agent-unavailable"
	// IdempotencyMismatch: the Idempotency-Key was used with another request.
	IdempotencyMismatch Code = "idempotency-key-reused"
	// TooLarge: more bytes than are taken.
	TooLarge Code = "too-large"
	// TooMany: a limit on how much one caller may hold or ask is reached.
	TooMany Code = "too-many"
	// Unavailable: a part that the request needs is down; try again later.
	Unavailable Code = "unavailable"
	// ProviderRefused: an identity provider does not take the server for its
	// client; only whoever runs the server can change that.
	ProviderRefused Code = "provider-refused"
	// AuditUnavailable: the decision cannot be recorded, so it has no effect.
	AuditUnavailable Code = "audit-unavailable"
)

// Field points at one faulty value of a request.
type Field struct {
	Path    string // in JSON terms, e.g. "body.tasks[3].description"
	Message string
}

// Error is a fault with its cause. The message is safe to show, the cause is
// for the log only.
type Error struct {
	Code    Code
	Message string
	Fields  []Field
	cause   error
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.cause }

// New returns a fault with a formatted, safe message.
func New(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns a fault whose cause is kept for the log.
func Wrap(cause error, code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), cause: cause}
}

// MaxFields bounds how many faulty fields one fault names.
const MaxFields = 100

// InvalidFields returns an Invalid fault that names every faulty field, or the
// first hundred, or nil if there is none.
func InvalidFields(fields []Field) error {
	if len(fields) == 0 {
		return nil
	}
	message := fields[0].Path + " " + fields[0].Message
	if more := len(fields) - 1; more > 0 {
		message = fmt.Sprintf("%s (and %d more)", message, more)
	}
	return &Error{Code: Invalid, Message: message, Fields: fields[:min(len(fields), MaxFields)]}
}

// CodeOf returns the code of the first fault in err's chain, or "" if there is
// none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}
