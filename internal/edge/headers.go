package edge

import "net/http"

// keepHTTPS has browsers use HTTPS alone for a year (RFC 6797). Other hosts of
// the domain are not ours to speak for.
const keepHTTPS = "max-age=31536000"

// SecurityHeaders gives every answer the headers that keep pages of other sites
// from embedding it or holding on to its window and, if clients come over TLS,
// browsers from ever coming without. That is so if the server itself speaks it,
// or if a proxy before it does, which proxied says.
func SecurityHeaders(proxied bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			if proxied || r.TLS != nil {
				h.Set("Strict-Transport-Security", keepHTTPS)
			}
			next.ServeHTTP(w, r)
		})
	}
}
