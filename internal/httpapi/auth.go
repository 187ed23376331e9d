package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// Access says who is let in.
type Access struct {
	// Token is the bearer token of the operator, a principal with the role
	// admin. Empty: there is none.
	Token string
	// Anonymous is who a request without a credential speaks for. Without a
	// UserID such requests are refused.
	Anonymous policy.Caller
}

// operator is who the Token speaks for.
var operator = policy.Caller{UserID: "operator", Roles: []policy.Role{policy.Admin}}

// caller finds out who the request speaks for. A credential that is not
// accepted is an Unauthenticated fault, also where none would be needed.
func (a *Access) caller(r *http.Request) (policy.Caller, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if a.Anonymous.UserID == "" {
			return policy.Caller{}, fault.New(fault.Unauthenticated, "a bearer token is needed")
		}
		return a.Anonymous, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || a.Token == "" || !equal(strings.TrimSpace(token), a.Token) {
		return policy.Caller{}, fault.New(fault.Unauthenticated, "the credential is not accepted")
	}
	return operator, nil
}

// equal takes the same time wherever the strings differ, also in length.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// permissionOf names the key under which an operation keeps its permission.
const permissionOf = "permission"

// authorize stands before every operation, and before its body is read: who
// asks, and may they?
func (s *Server) authorize(ctx huma.Context, next func(huma.Context)) {
	permission := ctx.Operation().Metadata[permissionOf].(policy.Permission)
	if permission == policy.Public {
		next(ctx)
		return
	}
	r, w := humachi.Unwrap(ctx)
	c, err := s.access.caller(r)
	if err == nil {
		err = policy.Authorize(c, permission).Err()
	}
	if err != nil {
		writeProblem(w, r, problemOf(r.Context(), s.log, err))
		return
	}
	next(huma.WithValue(ctx, callerKey, c))
}

// callerOf returns who authorize let in.
func callerOf(ctx context.Context) policy.Caller {
	c, _ := ctx.Value(callerKey).(policy.Caller)
	return c
}
