package dpop

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// sameTarget compares the htu of a proof with the URL of a request (RFC 9449,
// section 4.3, step 9).
func sameTarget(htu, requested string) error {
	want, err := target(requested)
	if err != nil {
		return fmt.Errorf("the URL of the request %w", err)
	}
	got, err := target(htu)
	if err != nil {
		return fmt.Errorf("htu %w", err)
	}
	if got != want {
		return errors.New("htu is another URL")
	}
	return nil
}

// target returns the absolute URL raw without query and fragment, normalised by
// syntax and scheme (RFC 3986, sections 6.2.2 and 6.2.3). Segments of dots stay:
// what a server makes of them is its own affair.
func target(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return "", errors.New("is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return "", errors.New("is not an absolute http or https URL")
	case u.Hostname() == "" || u.Opaque != "":
		return "", errors.New("has no host")
	case u.User != nil:
		return "", errors.New("has a user")
	}
	host := asciiLower(u.Hostname())
	if port := u.Port(); port != "" && port != defaultPort[u.Scheme] {
		host = net.JoinHostPort(host, port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return u.Scheme + "://" + host + normalEscapes(path), nil
}

var defaultPort = map[string]string{"http": "80", "https": "443"}

// asciiLower leaves alone the letters that only Unicode makes equal to ASCII.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

const hexDigits = "0123456789ABCDEF"

// normalEscapes writes each escape of a path that net/url has accepted in upper
// case, and those that need none as what they stand for.
func normalEscapes(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			b.WriteByte(path[i])
			continue
		}
		c := unhex(path[i+1])<<4 | unhex(path[i+2])
		i += 2
		if isUnreserved(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
