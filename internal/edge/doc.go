// Package edge stands between the network and the API: it finds out who is
// calling and from where, and turns away what should get no further. It knows
// addresses, hosts, origins and numbers of requests, but no accounts and no
// routes; who is bound by a limit is for its caller to say.
//
// Everything here is per process: two servers together let twice as much
// through.
package edge

import (
	"net/http"

	"github.com/coderclaw/runtime/internal/fault"
)

// Refuse answers a request that is turned away: with a status, a slug that
// clients can tell the reason by, and a detail that is safe to show. The answer
// must carry header, which may be nil.
type Refuse func(w http.ResponseWriter, r *http.Request, status int, slug, detail string, header http.Header)

// The slugs of refusals.
const (
	// ForbiddenHost: the server is not called by a name that it goes by (403).
	ForbiddenHost = "forbidden-host"
	// ForbiddenOrigin: the page of another site is behind the request (403).
	ForbiddenOrigin = "forbidden-origin"
	// TooMany: the caller has asked too often (429).
	TooMany = string(fault.TooMany)
)
