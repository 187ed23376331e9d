package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
)

const (
	minTasks = 1
	maxTasks = 10_000
)

func taskCountAllowed(n int) bool { return minTasks <= n && n <= maxTasks }

// check returns what is wrong with c as a whole, whoever set it.
func (c *Config) check(serves bool) error {
	var faults []error
	refuse := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if !taskCountAllowed(c.MaxConcurrentTasks) {
		refuse("CODERCLAW_MAX_CONCURRENT_TASKS: %d is not within %d to %d", c.MaxConcurrentTasks, minTasks, maxTasks)
	}
	if c.DatabaseMaxConns < 0 || c.DatabaseMaxConns > maxTasks {
		refuse("CODERCLAW_DATABASE_MAX_CONNS: %d is not within 0 to %d", c.DatabaseMaxConns, maxTasks)
	}
	if c.ShutdownGrace < 0 {
		refuse("CODERCLAW_SHUTDOWN_GRACE: %s is negative", c.ShutdownGrace)
	}
	if c.EmbeddedPostgres && c.DatabaseURL.Reveal() != "" {
		refuse("CODERCLAW_EMBEDDED_POSTGRES: contradicts CODERCLAW_DATABASE_URL; set one of them")
	}
	if err := checkToken(c.Token.Reveal()); err != nil {
		refuse("CODERCLAW_TOKEN: %w", err)
	}
	if err := checkBaseURL(c.LLM.BaseURL); err != nil {
		refuse("CODERCLAW_LLM_BASE_URL: %w", err)
	}
	if _, _, err := ParseListen(c.Listen); err != nil {
		refuse("CODERCLAW_LISTEN: %w", err)
	}
	if c.MetricsListen != "" {
		if _, _, err := ParseListen(c.MetricsListen); err != nil {
			refuse("CODERCLAW_METRICS_LISTEN: %w", err)
		}
	}
	if serves {
		faults = append(faults, c.checkServing()...)
	}
	return errors.Join(faults...)
}

// checkServing holds the rules that bind only a process which serves: another
// one, say a migration, may share its environment but not its token.
func (c *Config) checkServing() (faults []error) {
	if c.RequireAuth && c.Token.Reveal() == "" {
		faults = append(faults, errors.New("security.requireAuth is true and no credential is known: set CODERCLAW_TOKEN or CODERCLAW_TOKEN_FILE"))
	}
	if network, address, err := ParseListen(c.Listen); err == nil && !c.RequireAuth && !local(network, address) {
		faults = append(faults, fmt.Errorf("security.requireAuth is false and %s can be reached from other machines: "+
			"set CODERCLAW_REQUIRE_AUTH=true and CODERCLAW_TOKEN (or CODERCLAW_TOKEN_FILE), or listen on 127.0.0.1", c.Listen))
	}
	if info, err := os.Stat(c.WorkspaceRoot); err != nil || !info.IsDir() {
		faults = append(faults, fmt.Errorf("CODERCLAW_WORKSPACE_ROOT: %q is not a directory", c.WorkspaceRoot))
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
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("%.200q: the port must be a number from 0 to 65535", listen)
	}
	return "tcp", listen, nil
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

// checkToken refuses what an Authorization header cannot carry.
func checkToken(token string) error {
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return errors.New("may hold only visible ASCII characters, no spaces")
		}
	}
	return nil
}

func checkBaseURL(base string) error {
	if base == "" {
		return nil
	}
	// The messages leave the value out: it may hold a password by mistake.
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must be an http or https URL, e.g. http://127.0.0.1:11434/v1")
	case u.User != nil:
		return errors.New("must not hold a user or password; the key goes into CODERCLAW_LLM_API_KEY")
	}
	return nil
}

func sendsInClear(base string) bool {
	u, err := url.Parse(base)
	return err == nil && u.Scheme == "http" && !loopback(u.Hostname())
}
