package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// TLS names the server's certificate and its key, both or neither.
type TLS struct {
	// CODERCLAW_TLS_CERT_FILE: the certificate and those that link it to a root,
	// in PEM. The files are read again when they change. Default: none.
	CertFile string `split_words:"true"`
	// CODERCLAW_TLS_KEY_FILE: its private key, in PEM, not readable by others.
	KeyFile string `split_words:"true"`
}

// ACME has a certificate authority give the server its certificates (RFC 8555).
// The authority connects to port 443 of each domain (TLS-ALPN-01, RFC 8737),
// which must lead to the address that is listened on.
type ACME struct {
	// CODERCLAW_ACME_DOMAINS: the domains to have certificates for. Setting it
	// agrees to the authority's terms of service. Default: none.
	Domains List
	// CODERCLAW_ACME_EMAIL: where the authority reports problems. Default: none.
	Email string
	// CODERCLAW_ACME_DIRECTORY_URL: the authority. Default: Let's Encrypt.
	DirectoryURL string `split_words:"true"`
}

// ServesTLS reports whether the API is served with a certificate of its own.
func (c Config) ServesTLS() bool {
	network, _, err := ParseListen(c.Listen)
	return err == nil && network == "tcp" && c.hasCertificate()
}

func (c Config) hasCertificate() bool { return c.TLS.CertFile != "" || len(c.ACME.Domains) > 0 }

// Hosts returns the names and addresses, without a port, that clients may call
// the server by besides those of the loopback; or that any will do.
func (c Config) Hosts() (names []string, anyName bool) {
	if c.RequireAuth && len(c.AllowedHosts) == 0 {
		return nil, true
	}
	names = append(names, c.AllowedHosts...)
	if u, err := url.Parse(c.PublicURL); err == nil && u.Hostname() != "" {
		names = append(names, u.Hostname())
	}
	return names, false
}

// checkNetwork returns what is wrong with how c is reached.
func (c *Config) checkNetwork() (faults []error) {
	refuse := func(variable string, err error) { faults = append(faults, fmt.Errorf("%s: %w", variable, err)) }
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		refuse("CODERCLAW_TLS_CERT_FILE", errors.New("does nothing without CODERCLAW_TLS_KEY_FILE, nor that without it; set both"))
	}
	if c.TLS.CertFile != "" && len(c.ACME.Domains) > 0 {
		refuse("CODERCLAW_ACME_DOMAINS", errors.New("contradicts CODERCLAW_TLS_CERT_FILE; set one of them"))
	}
	for _, domain := range c.ACME.Domains {
		if !domainForm.MatchString(domain) || len(domain) > maxHostLength {
			refuse("CODERCLAW_ACME_DOMAINS", fmt.Errorf("%.60q is not a domain such as claw.example.com, in lower case and ASCII", domain))
		}
	}
	if len(c.ACME.Domains) > 0 {
		if u, err := url.Parse(c.ACME.DirectoryURL); err != nil || u.User != nil || !secure(u) {
			refuse("CODERCLAW_ACME_DIRECTORY_URL", errors.New("must be an https URL without a user or password"))
		}
	}
	if c.PublicURL != "" {
		if _, err := origin(c.PublicURL); err != nil {
			refuse("CODERCLAW_PUBLIC_URL", err)
		}
	}
	for _, o := range c.CORSOrigins {
		if exact, err := origin(o); err != nil {
			refuse("CODERCLAW_CORS_ORIGINS", err)
		} else if o != exact {
			refuse("CODERCLAW_CORS_ORIGINS", fmt.Errorf("%.200q is not how browsers write it: %s", o, exact))
		}
	}
	for _, host := range c.AllowedHosts {
		if !hostAllowed(host) {
			refuse("CODERCLAW_ALLOWED_HOSTS", fmt.Errorf("%.60q is not a name or address without a port, in lower case and ASCII", host))
		}
	}
	for _, p := range c.TrustedProxies {
		if p.Bits() == 0 {
			refuse("CODERCLAW_TRUSTED_PROXIES", fmt.Errorf("%s is everybody, who could then claim any address", p))
		}
	}
	return faults
}

// checkLoopback returns what would let other machines in while no credential is
// asked for.
func (c *Config) checkLoopback() (faults []error) {
	if network, address, err := ParseListen(c.Listen); err == nil && !local(network, address) {
		faults = append(faults, fmt.Errorf("security.requireAuth is false and %s can be reached from other machines: "+
			"set CODERCLAW_REQUIRE_AUTH=true, or listen on 127.0.0.1", c.Listen))
	}
	if u, err := url.Parse(c.PublicURL); err == nil && u.Hostname() != "" && !loopback(u.Hostname()) {
		faults = append(faults, fmt.Errorf("security.requireAuth is false and %s is for other machines: "+
			"set CODERCLAW_REQUIRE_AUTH=true, or no CODERCLAW_PUBLIC_URL", c.PublicURL))
	}
	return faults
}

// ParseListen splits a listen address into what net.Listen takes: "tcp" and
// host:port, or "unix" and the path of unix:/path.
func ParseListen(listen string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return "", "", fmt.Errorf("%.200q: a socket's path must begin with /", listen)
		}
		return "unix", path, nil
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", "", fmt.Errorf("%.200q is not host:port or unix:/path", listen)
	}
	if port == "" || !portAllowed(port) {
		return "", "", fmt.Errorf("%.200q: the port must be a number from 0 to 65535", listen)
	}
	return "tcp", listen, nil
}

// portAllowed accepts numbers of ports, and that there is none.
func portAllowed(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil || port == ""
}

// local reports whether only this machine can reach the address.
func local(network, address string) bool {
	if network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopback(host)
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

const maxHostLength = 253

var (
	// Underscores are in no domain of the Internet, but in names of containers.
	hostForm   = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
	domainForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?$`)
)

func hostAllowed(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Zone() == ""
	}
	return hostForm.MatchString(host) && len(host) <= maxHostLength
}

// origin returns text, an https URL without a path, as browsers write the
// Origin header (RFC 6454, section 6.2): in lower case, without the port that
// goes without saying. For this machine's loopback it may be http.
func origin(text string) (string, error) {
	// The messages leave the value out where it may hold a password by mistake.
	u, err := url.Parse(text)
	switch {
	case err != nil || u.User != nil:
		return "", errors.New("must be an https URL without a user or password, e.g. https://claw.example.com")
	case u.Scheme != "https" && u.Scheme != "http" || !hostAllowed(strings.ToLower(u.Hostname())):
		return "", fmt.Errorf("%.200q is not an https URL such as https://claw.example.com", text)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", fmt.Errorf("%.200q must end after the host and port", text)
	case !portAllowed(u.Port()):
		return "", fmt.Errorf("%.200q: the port must be a number from 0 to 65535", text)
	case !secure(u):
		return "", fmt.Errorf("%.200q is plain HTTP to another machine; it must be https", text)
	}
	host := strings.ToLower(u.Host)
	if bare, port, err := net.SplitHostPort(host); err == nil && port == map[string]string{"https": "443", "http": "80"}[u.Scheme] {
		host = bare
		if strings.Contains(bare, ":") {
			host = "[" + bare + "]"
		}
	}
	return u.Scheme + "://" + host, nil
}

// secure reports whether nobody on the way to u can read along.
func secure(u *url.URL) bool {
	return u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()))
}

// checkURL refuses what is not the URL of another service; it may be empty.
func checkURL(text string) error {
	if text == "" {
		return nil
	}
	// The messages leave the value out: it may hold a password by mistake.
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must be an http or https URL")
	case u.User != nil:
		return errors.New("must not hold a user or password")
	}
	return nil
}

func sendsInClear(base string) bool {
	u, err := url.Parse(base)
	return err == nil && u.Scheme == "http" && !secure(u)
}
