package provider

import (
	"fmt"

	"github.com/coderclaw/runtime/internal/fault"
)

// class is as much as a stranger learns of why a token was refused.
type class string

const (
	classMalformed   class = "malformed"
	classIssuer      class = "issuer"
	classAlgorithm   class = "algorithm"
	classType        class = "type"
	classKey         class = "key"
	classSignature   class = "signature"
	classAudience    class = "audience"
	classExpired     class = "expired"
	classNotYetValid class = "not yet valid"
	classClaims      class = "claims"
	classNonce       class = "nonce"
	classTrustRule   class = "trust rule"
)

// refuse returns an Unauthenticated fault whose message tells the class and
// whose cause, for the log, tells the reason.
func refuse(c class, format string, args ...any) error {
	return fault.Wrap(fmt.Errorf(format, args...), fault.Unauthenticated, "the token is not accepted: %s", c)
}

// forbid is for those who are who they say and may not come in.
func forbid(provider, format string, args ...any) error {
	return fault.Wrap(fmt.Errorf(format, args...), fault.Forbidden, "this account of %s is not allowed in", provider)
}

func unavailable(provider string, cause error) error {
	return fault.Wrap(cause, fault.Unavailable, "the identity provider %s cannot be reached", provider)
}
