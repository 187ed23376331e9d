package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	minTasks = 0
	maxTasks = 10_000

	maxPerSecond = 1_000_000
	maxStreams   = 1_000_000
	maxRetention = 36_500 // days
	minRetention = time.Hour
	// maxArtifactBytes is what can be sent in an hour, generously.
	maxArtifactBytes = 1 << 40

	maxSessionMax = 24 * time.Hour
	minLease      = 2 * time.Second
	maxLease      = 10 * time.Minute
)

func taskCountAllowed(n int) bool { return minTasks <= n && n <= maxTasks }

// check returns what is wrong with c as a whole, whoever set it.
func (c *Config) check(serves bool) error {
	var faults []error
	refuse := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if !taskCountAllowed(c.MaxConcurrentTasks) {
		refuse("CODERCLAW_MAX_CONCURRENT_TASKS: %d is not within %d to %d", c.MaxConcurrentTasks, minTasks, maxTasks)
	}
	for _, s := range []struct {
		variable   string
		value, max int
	}{
		{"CODERCLAW_DATABASE_MAX_CONNS", c.DatabaseMaxConns, maxTasks},
		{"CODERCLAW_RATE_LIMIT", c.RateLimit, maxPerSecond},
		{"CODERCLAW_RATE_LIMIT_ANONYMOUS", c.RateLimitAnonymous, maxPerSecond},
		{"CODERCLAW_MAX_STREAMS_PER_PRINCIPAL", c.MaxStreamsPerPrincipal, maxStreams},
		{"CODERCLAW_AUDIT_RETENTION_DAYS", c.Audit.RetentionDays, maxRetention},
		{"CODERCLAW_WORKSPACE_QUOTA", c.Workspace.Quota, math.MaxInt32},
	} {
		if s.value < 0 || s.value > s.max {
			refuse("%s: %d is not within 0 to %d", s.variable, s.value, s.max)
		}
	}
	for _, s := range []struct {
		variable string
		value    int
	}{
		{"CODERCLAW_ARTIFACTS_MAX_BYTES", c.Artifacts.MaxBytes},
		{"CODERCLAW_ARTIFACTS_MAX_TASK_BYTES", c.Artifacts.MaxTaskBytes},
	} {
		if s.value < 1 || s.value > maxArtifactBytes {
			refuse("%s: %d is not within 1 to %d", s.variable, s.value, maxArtifactBytes)
		}
	}
	if r := time.Duration(c.Retention); r != 0 && (r < minRetention || r > maxRetention*24*time.Hour) {
		refuse("CODERCLAW_RETENTION: %s is neither 0 nor within %s to %d days", r, minRetention, maxRetention)
	}
	if s3 := c.Artifacts.S3; s3.Endpoint != "" {
		if u, err := url.Parse(s3.Endpoint); err != nil || checkURL(s3.Endpoint) != nil || strings.Trim(u.Path, "/") != "" {
			refuse("CODERCLAW_ARTIFACTS_S3_ENDPOINT: must be an address such as https://s3.example.com, without a path")
		}
		if s3.Bucket == "" || s3.AccessKey == "" || s3.SecretKey.Reveal() == "" {
			refuse("CODERCLAW_ARTIFACTS_S3_ENDPOINT: goes with CODERCLAW_ARTIFACTS_S3_BUCKET, _ACCESS_KEY and _SECRET_KEY")
		}
	}
	if c.ShutdownGrace < 0 {
		refuse("CODERCLAW_SHUTDOWN_GRACE: %s is negative", c.ShutdownGrace)
	}
	if c.Worker.Patience <= 0 {
		refuse("CODERCLAW_WORKER_PATIENCE: %s is not positive", c.Worker.Patience)
	}
	if c.WorkerLease < minLease || c.WorkerLease > maxLease {
		refuse("CODERCLAW_WORKER_LEASE: %s is not within %s to %s", c.WorkerLease, minLease, maxLease)
	}
	if c.EmbeddedPostgres && c.DatabaseURL.Reveal() != "" {
		refuse("CODERCLAW_EMBEDDED_POSTGRES: contradicts CODERCLAW_DATABASE_URL; set one of them")
	}
	if err := checkToken(c.Token.Reveal()); err != nil {
		refuse("CODERCLAW_TOKEN: %w", err)
	}
	if c.SessionMax <= 0 || c.SessionMax > maxSessionMax {
		refuse("CODERCLAW_SESSION_MAX: %s is not more than 0 and at most %s", c.SessionMax, maxSessionMax)
	} else if c.SessionTTL <= 0 || c.SessionTTL > c.SessionMax {
		refuse("CODERCLAW_SESSION_TTL: %s is not more than 0 and at most CODERCLAW_SESSION_MAX, which is %s", c.SessionTTL, c.SessionMax)
	}
	for _, repository := range c.Workspace.Repositories {
		if !slices.ContainsFunc([]string{"https://", "ssh://", "file://"}, func(scheme string) bool { return strings.HasPrefix(repository, scheme) }) {
			refuse("CODERCLAW_WORKSPACE_REPOSITORIES: %.100q does not begin with https://, ssh:// or file://", repository)
		}
	}
	if err := checkURL(c.LLM.BaseURL); err != nil {
		refuse("CODERCLAW_LLM_BASE_URL: %w", err)
	}
	if err := checkURL(c.Audit.WitnessURL); err != nil {
		refuse("CODERCLAW_AUDIT_WITNESS_URL: %w", err)
	}
	if _, _, err := ParseListen(c.Listen); err != nil {
		refuse("CODERCLAW_LISTEN: %w", err)
	}
	if c.MetricsListen != "" {
		if _, _, err := ParseListen(c.MetricsListen); err != nil {
			refuse("CODERCLAW_METRICS_LISTEN: %w", err)
		}
	}
	faults = append(faults, c.checkNetwork()...)
	if serves {
		faults = append(faults, c.checkServing()...)
	}
	return errors.Join(faults...)
}

// checkServing holds the rules that bind only a process which serves: another
// one, say a migration, may share its environment but not its token.
func (c *Config) checkServing() (faults []error) {
	if !c.RequireAuth {
		faults = append(faults, c.checkLoopback()...)
	}
	for _, s := range []struct{ variable, filename string }{
		{"CODERCLAW_TLS_KEY_FILE", c.TLS.KeyFile},
		{"CODERCLAW_SIGNING_KEY_FILE", c.SigningKeyFile},
		{"CODERCLAW_AUDIT_KEY_FILE", c.Audit.KeyFile},
	} {
		if err := checkKeyFile(s.filename); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.variable, err))
		}
	}
	if info, err := os.Stat(c.WorkspaceRoot); err != nil || !info.IsDir() {
		faults = append(faults, fmt.Errorf("CODERCLAW_WORKSPACE_ROOT: %q is not a directory", c.WorkspaceRoot))
	}
	return faults
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

// checkKeyFile refuses a private key that other users can read, or a group can
// change. That there is no file is for whoever needs it to say.
func checkKeyFile(filename string) error {
	if filename == "" {
		return nil
	}
	info, err := os.Stat(filename)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the file cannot be looked at: %w", withoutPath(err))
	case !info.Mode().IsRegular():
		return errors.New("that is not a file")
	case info.Mode().Perm()&0o027 != 0:
		return fmt.Errorf("the file's mode is %#o, which lets others in; make it 0600", info.Mode().Perm())
	}
	return nil
}
