package edge

import "net/http"

// keepHTTPS has browsers use HTTPS alone for a year (RFC 6797). Other hosts of
// the domain are not ours to speak for.
const keepHTTPS = "max-age=31536000"

// SecurityHeaders gives every answer the headers that suit an API: nobody keeps
// it, runs it or guesses at its type, and pages of other sites can neither embed
// it nor hold on to its window. Handlers of pages set their own. If clients come
// over TLS, browsers are told never to come without. That is so if the server itself speaks it,
// or if a proxy before it does, which proxied says.
func SecurityHeaders(proxied bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Cache-Control", "no-store")
			h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("X-Frame-Options", "DENY")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			if proxied || r.TLS != nil {
				h.Set("Strict-Transport-Security", keepHTTPS)
			}
			next.ServeHTTP(w, r)
		})
	}
}
