package edge

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/cors"
)

// preflightAge is how long browsers may remember what they are allowed.
const preflightAge = 10 * time.Minute

// Origins knows which sites' pages may call the API.
type Origins struct {
	allowed    map[string]bool
	protection *http.CrossOriginProtection
}

// NewOrigins returns the Origins of a server that pages of the given origins may
// call, in the form https://host[:port] that browsers use, and its own pages, at
// the origin public; public may be empty.
func NewOrigins(public string, allowed []string) (*Origins, error) {
	o := &Origins{allowed: map[string]bool{}, protection: http.NewCrossOriginProtection()}
	for _, origin := range append([]string{public}, allowed...) {
		if origin == "" {
			continue
		}
		if err := o.protection.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("allow pages of other sites: %w", err)
		}
		o.allowed[origin] = true
	}
	return o, nil
}

// CORS tells browsers which pages may read answers, and answers their
// preflights. It turns nothing away: without its headers browsers do.
func (o *Origins) CORS(next http.Handler) http.Handler {
	return cors.Handler(cors.Options{
		AllowOriginFunc: func(_ *http.Request, origin string) bool { return o.allowed[origin] },
		AllowedMethods: []string{
			http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		},
		AllowedHeaders: []string{
			"Accept", "Authorization", "Content-Digest", "Content-Type", "DPoP", "Idempotency-Key", "If-Match", "If-None-Match", "If-Range", "Last-Event-ID", "Range", "X-Request-Id",
		},
		ExposedHeaders:   []string{"Content-Disposition", "Content-Range", "DPoP-Nonce", "ETag", "Location", "Repr-Digest", "Retry-After", "WWW-Authenticate", "X-Request-Id"},
		AllowCredentials: true,
		MaxAge:           int(preflightAge.Seconds()),
	})(next)
}

// Protect turns requests away that a page of a site which is not allowed has
// made with somebody else's authority: with what ambient reports, which is that
// the request is let in by what browsers add by themselves, a cookie or being on
// this machine, rather than by what a page must know. That holds for reading
// too, streams above all; only a user who follows a link may come from anywhere.
//
// The first line of defence is Sec-Fetch-Site. Without it, as from browsers of
// before 2023, Origin must be that of the host; without both, no browser is
// behind the request.
func (o *Origins) Protect(ambient func(*http.Request) bool, refuse Refuse) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ambient(r) && !linked(r) && o.crossOrigin(r) {
				refuse(w, r, http.StatusForbidden, ForbiddenOrigin, "pages of this origin may not call the server in a user's name", nil)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// crossOrigin reports whether a page of another origin that is not allowed is
// behind the request.
func (o *Origins) crossOrigin(r *http.Request) bool {
	// The protection lets all safe methods pass, so it is asked about an unsafe
	// one.
	post := *r
	post.Method = http.MethodPost
	return o.protection.Check(&post) != nil
}

// linked reports whether a user has followed a link to where they can see that
// it led them. It is not for frames, which show a page within another's.
func linked(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" &&
		r.Header.Get("Sec-Fetch-Dest") == "document" && r.Header.Get("Origin") == ""
}
