package provider

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// claims is a JSON object with numbers as they were written.
type claims map[string]any

// text returns a claim that is a text, or "".
func (c claims) text(name string) string {
	s, _ := c[name].(string)
	return s
}

// name returns a claim that names something: a text of at most maxName
// printable bytes, which must be there and not be empty if it is required.
func (c claims) name(name string, required bool) (string, error) {
	value, ok := c[name]
	if !ok && !required {
		return "", nil
	}
	text, isText := value.(string)
	switch {
	case !ok:
		return "", fmt.Errorf("%s is missing", name)
	case !isText:
		return "", fmt.Errorf("%s is not a text", name)
	case text == "" && required:
		return "", fmt.Errorf("%s is empty", name)
	case len(text) > maxName || !printable(text):
		return "", fmt.Errorf("%s is longer than %d bytes or not printable", name, maxName)
	}
	return text, nil
}

// list returns a claim that is a text or a list of texts; none if it is absent.
func (c claims) list(name string) ([]string, error) {
	switch value := c[name].(type) {
	case nil:
		return nil, nil
	case string:
		return []string{value}, nil
	case []any:
		list := make([]string, len(value))
		for i, element := range value {
			text, ok := element.(string)
			if !ok {
				return nil, fmt.Errorf("%s holds something else than texts", name)
			}
			list[i] = text
		}
		return list, nil
	}
	return nil, fmt.Errorf("%s is neither a text nor a list of texts", name)
}

// date returns a claim that is a NumericDate (RFC 7519, section 2): seconds
// since 1970, after its first and before the year 10000. ok says that it is
// there.
func (c claims) date(name string) (at time.Time, ok bool, err error) {
	value, ok := c[name]
	if !ok {
		return time.Time{}, false, nil
	}
	number, isNumber := value.(json.Number)
	if !isNumber {
		return time.Time{}, true, fmt.Errorf("%s is not a number", name)
	}
	const year10000 = 253402300800
	seconds, err := number.Float64()
	if err != nil || !(seconds >= 1 && seconds < year10000) {
		return time.Time{}, true, fmt.Errorf("%s is not a date", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, nil
}

// has reports whether a claim is that value, or a list that holds it.
func (c claims) has(name, value string) bool {
	if list, ok := c[name].([]any); ok {
		return slices.ContainsFunc(list, func(element any) bool { return same(element, value) })
	}
	return same(c[name], value)
}

func same(claim any, value string) bool {
	switch claim := claim.(type) {
	case string:
		return claim == value
	case json.Number:
		return claim.String() == value
	case bool:
		return value == fmt.Sprint(claim)
	}
	return false
}

// leeway is how far the clocks of others may be off.
const leeway = time.Minute

// checkTime applies exp, nbf and iat (RFC 7519, section 4.1) and returns when
// the token was issued and when it ends. iat must be there, as in every ID token
// and JWT access token (OpenID Connect Core 1.0, section 2; RFC 9068, section
// 2.2): without it nobody could tell which of two tokens says what holds now.
func (c claims) checkTime(now time.Time) (issued, expires time.Time, err error) {
	expires, ok, err := c.date("exp")
	switch {
	case err != nil:
		return issued, expires, refuse(classClaims, "%w", err)
	case !ok:
		return issued, expires, refuse(classClaims, "exp is missing")
	case !now.Before(expires.Add(leeway)):
		return issued, expires, refuse(classExpired, "expired at %s", expires.UTC().Format(time.RFC3339))
	}
	for _, name := range []string{"nbf", "iat"} {
		at, ok, err := c.date(name)
		switch {
		case err != nil:
			return issued, expires, refuse(classClaims, "%w", err)
		case ok && at.After(now.Add(leeway)):
			return issued, expires, refuse(classNotYetValid, "%s is %s", name, at.UTC().Format(time.RFC3339))
		case name == "iat" && !ok:
			return issued, expires, refuse(classClaims, "iat is missing")
		}
		issued = at // iat is the last
	}
	return issued, expires, nil
}

// checkAudience demands that a token is made for one of ours and that whoever
// it was issued to (azp) is one of ours too. A token that is also good
// elsewhere must say to whom it was issued (OpenID Connect Core 1.0, section
// 3.1.3.7, steps 3 to 5): another service could have passed its own on.
func (c claims) checkAudience(ours []string) error {
	audience, err := c.list("aud")
	if err != nil {
		return refuse(classAudience, "%w", err)
	}
	mine := func(a string) bool { return a != "" && slices.Contains(ours, a) }
	if !slices.ContainsFunc(audience, mine) {
		return refuse(classAudience, "aud %.200q is none of %q", audience, ours)
	}
	party, issued := c["azp"]
	if text, _ := party.(string); issued && !mine(text) {
		return refuse(classAudience, "azp %.100q is none of %q", text, ours)
	}
	if !issued && slices.ContainsFunc(audience, func(a string) bool { return !mine(a) }) {
		return refuse(classAudience, "aud %.200q is for others too and there is no azp", audience)
	}
	return nil
}

// email returns the e-mail address for display, if the issuer has verified it.
func (c claims) email() string {
	if !c.has("email_verified", "true") {
		return ""
	}
	address := c.text("email")
	if !strings.Contains(address, "@") {
		return ""
	}
	return display(address)
}
