package provider

import (
	"net/http"
	"time"
)

// SetAskTimeout shortens what a look at an issuer's keys may take.
func (s *Set) SetAskTimeout(d time.Duration) {
	for _, b := range s.bearers {
		if p, ok := b.(*oidcProvider); ok {
			p.issuer.keys.timeout = d
		}
	}
}

// APIURL returns where the API of a GitHub is expected.
func APIURL(baseURL string) string { return GitHub{BaseURL: baseURL}.apiURL() }

// ClientElsewhere is how providers are reached that are not on loopback.
func (s *Set) ClientElsewhere() *http.Client { return s.clients.of("https://idp.example") }

// ReadClaims returns the issuer and the subject of a payload that is accepted.
func ReadClaims(payload []byte) (issuer, subject string, err error) {
	c, err := readObject(payload, claimNames)
	return c.text("iss"), c.text("sub"), err
}
