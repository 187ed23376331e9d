package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// environment gives the test a home and a working directory of its own and
// exactly the given CODERCLAW_ variables. Tests that use it cannot be parallel:
// envconfig reads the environment of the process.
func environment(t *testing.T, variables map[string]string) (home string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, prefix+"_") {
			t.Setenv(name, value) // so that it is restored
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	home = t.TempDir()
	t.Setenv("HOME", home)
	t.Chdir(home)
	for name, value := range variables {
		t.Setenv(name, value)
	}
	return home
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDefaultsNeedNothingSet(t *testing.T) {
	home := environment(t, nil)
	c, warnings, err := Load(Options{Serves: true})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if c.Listen != "127.0.0.1:7433" || c.Mode != LocalOnly || c.MaxConcurrentTasks != 10 ||
		c.ShutdownGrace != 20*time.Second || c.LogFormat != LogAuto || c.LogLevel.Level() != 0 ||
		c.RequireAuth || !slices.Equal(c.DefaultRoles, []string{"developer"}) ||
		c.RateLimit != 100 || c.RateLimitAnonymous != 20 || c.MaxStreamsPerPrincipal != 200 ||
		c.SessionTTL != 12*time.Hour || c.SessionMax != 24*time.Hour || c.ServesTLS() {
		t.Errorf("got %+v", c)
	}
	if want := filepath.Join(home, ".coderclaw", ".coderClaw"); c.ConfigDir != want {
		t.Errorf("configuration in %s, want %s", c.ConfigDir, want)
	}
	for got, want := range map[string]string{
		c.SecurityFile():       ".coderclaw/.coderClaw/security.yaml",
		c.ACMEDir():            filepath.Join(c.DataDir, "acme"),
		c.Audit.CheckpointFile: filepath.Join(c.DataDir, "audit/checkpoints"),
		c.Audit.KeyFile:        filepath.Join(c.DataDir, "audit/key"),
	} {
		if !filepath.IsAbs(want) {
			want = filepath.Join(home, want)
		}
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if c.WorkspaceRoot != home {
		t.Errorf("workspace %s, want the working directory %s", c.WorkspaceRoot, home)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	home := environment(t, map[string]string{
		"CODERCLAW_MODE":                 "distributed-cluster",
		"CODERCLAW_MAX_CONCURRENT_TASKS": "7",
	})
	write(t, filepath.Join(home, ".coderclaw/.coderClaw/runtime.yaml"),
		"mode: remote-enabled\nsecurity: {requireAuth: true}\ndeployment: {maxConcurrentTasks: 5}\n")
	c, _, err := Load(Options{Flags: func(c *Config) { c.MaxConcurrentTasks = 9 }})
	if err != nil {
		t.Fatal(err)
	}
	if !c.RequireAuth || c.Mode != DistributedCluster || c.MaxConcurrentTasks != 9 {
		t.Errorf("requireAuth %t from the file, mode %s from the environment, %d tasks from the flag",
			c.RequireAuth, c.Mode, c.MaxConcurrentTasks)
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	dir := t.TempDir()
	environment(t, map[string]string{
		"CODERCLAW_LISTEN":                    "0.0.0.0:80",
		"CODERCLAW_PUBLIC_URL":                "https://Claw.example:443/",
		"CODERCLAW_ACME_DOMAINS":              "claw.example,www.claw.example",
		"CODERCLAW_ACME_EMAIL":                "ops@claw.example",
		"CODERCLAW_ACME_DIRECTORY_URL":        "https://acme.example/directory",
		"CODERCLAW_TRUSTED_PROXIES":           "10.0.0.0/8, ::1 ,192.0.2.1",
		"CODERCLAW_ALLOWED_HOSTS":             "claw.internal, 10.0.0.5,",
		"CODERCLAW_CORS_ORIGINS":              "https://app.example, http://localhost:5173",
		"CODERCLAW_RATE_LIMIT":                "7",
		"CODERCLAW_RATE_LIMIT_ANONYMOUS":      "0",
		"CODERCLAW_MAX_STREAMS_PER_PRINCIPAL": "8",
		"CODERCLAW_SESSION_TTL":               "1h",
		"CODERCLAW_SESSION_MAX":               "2h",
		"CODERCLAW_SIGNING_KEY_FILE":          "signing.key",
		"CODERCLAW_AUDIT_CHECKPOINT_FILE":     "proof/log",
		"CODERCLAW_AUDIT_WITNESS_URL":         "https://witness.example/add",
		"CODERCLAW_AUDIT_RETENTION_DAYS":      "365",
		"CODERCLAW_GITHUB_CLIENT_SECRET":      "hub",
		"CODERCLAW_GOOGLE_CLIENT_SECRET":      "goo",
		"CODERCLAW_METRICS_LISTEN":            "unix:/run/metrics.sock",
		"CODERCLAW_DATABASE_URL":              "postgres://u:hunter2@db/claw",
		"CODERCLAW_DATABASE_MAX_CONNS":        "33",
		"CODERCLAW_EMBEDDED_POSTGRES":         "false",
		"CODERCLAW_NO_INSTALL":                "1",
		"CODERCLAW_CONFIG_DIR":                dir,
		"CODERCLAW_DATA_DIR":                  "data",
		"CODERCLAW_WORKSPACE_ROOT":            dir,
		"CODERCLAW_MODE":                      "remote-enabled",
		"CODERCLAW_REQUIRE_AUTH":              "true",
		"CODERCLAW_MAX_CONCURRENT_TASKS":      "12",
		"CODERCLAW_TOKEN":                     "0123456789abcdef",
		"CODERCLAW_LLM_BASE_URL":              "https://models.example/v1",
		"CODERCLAW_LLM_API_KEY":               "key",
		"CODERCLAW_LLM_MODEL":                 "m-1",
		"CODERCLAW_ACP_COMMAND":               "gemini --experimental-acp",
		"CODERCLAW_WORKSPACE_REPOSITORIES":    "https://code.example/team/, ssh://git@code.example/one.git",
		"CODERCLAW_WORKSPACE_CLEANUP":         "onSuccess",
		"CODERCLAW_WORKSPACE_QUOTA":           "100",
		"CODERCLAW_SHUTDOWN_GRACE":            "1m",
		"CODERCLAW_WORKER_LEASE":              "5s",
		"CODERCLAW_LOG_LEVEL":                 "warn",
		"CODERCLAW_LOG_FORMAT":                "json",
		"CODERCLAW_URL":                       "http://elsewhere",
		"CODERCLAW_WORKER_NAME":               "build-7",
		"CODERCLAW_WORKER_AGENTS":             "a, b",
		"CODERCLAW_WORKER_LABELS":             "gpu=true, zone = north",
		"CODERCLAW_WORKER_PATIENCE":           "45s",
		"CODERCLAW_POSTGRES_BIN":              "/usr/lib/postgresql/15/bin",
		"CODERCLAW_TEST_DATABASE":             "x",
	})
	got, warnings, err := Load(Options{Serves: true})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	workdir, _ := os.Getwd()
	want := Default()
	want.Listen, want.MetricsListen = "0.0.0.0:80", "unix:/run/metrics.sock"
	want.PublicURL = "https://claw.example"
	want.ACME = ACME{List{"claw.example", "www.claw.example"}, "ops@claw.example", "https://acme.example/directory"}
	want.TrustedProxies = Prefixes{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("192.0.2.1/32")}
	want.AllowedHosts = List{"claw.internal", "10.0.0.5"}
	want.CORSOrigins = List{"https://app.example", "http://localhost:5173"}
	want.RateLimit, want.RateLimitAnonymous, want.MaxStreamsPerPrincipal = 7, 0, 8
	want.SessionTTL, want.SessionMax, want.SigningKeyFile = time.Hour, 2*time.Hour, filepath.Join(workdir, "signing.key")
	want.Audit = Audit{filepath.Join(workdir, "proof/log"), filepath.Join(workdir, "proof/key"), "https://witness.example/add", 365}
	want.GitHub.ClientSecret, want.Google.ClientSecret = NewSecret("hub"), NewSecret("goo")
	want.DatabaseURL, want.DatabaseMaxConns, want.NoInstall = NewSecret("postgres://u:hunter2@db/claw"), 33, true
	want.ConfigDir, want.DataDir, want.WorkspaceRoot = dir, filepath.Join(workdir, "data"), dir
	want.Mode, want.RequireAuth, want.MaxConcurrentTasks = RemoteEnabled, true, 12
	want.Token = NewSecret("0123456789abcdef")
	want.LLM = LLM{BaseURL: "https://models.example/v1", APIKey: NewSecret("key"), Model: "m-1"}
	want.Workspace = Workspace{List{"https://code.example/team/", "ssh://git@code.example/one.git"}, CleanupOnSuccess, 100}
	want.ACP = ACP{Command: "gemini --experimental-acp"}
	want.URL, want.Worker = "http://elsewhere", Worker{"build-7", List{"a", "b"}, Labels{"gpu": "true", "zone": "north"}, 45 * time.Second}
	want.WorkerLease, want.ShutdownGrace, want.LogLevel, want.LogFormat = 5*time.Second, time.Minute, 4, LogJSON
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAVariableSetToNothingCountsAsNotSet(t *testing.T) {
	environment(t, map[string]string{
		"CODERCLAW_LISTEN": "", "CODERCLAW_REQUIRE_AUTH": "", "CODERCLAW_SHUTDOWN_GRACE": "",
		"CODERCLAW_TOKEN": "", "CODERCLAW_TOKEN_FILE": "", "CODERCLAW_MODE": "", "CODERCLAW_CONFIG_DIR": "",
		"CODERCLAW_ACME_DOMAINS": "claw.example", "CODERCLAW_ACME_DIRECTORY_URL": "",
		"CODERCLAW_AUDIT_WITNESS_URL": "https://witness.example", "CODERCLAW_AUDIT_RETENTION_DAYS": "",
	})
	got, warnings, err := Load(Options{Serves: true})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := Default()
	want.ACME.Domains, want.Audit.WitnessURL = List{"claw.example"}, "https://witness.example"
	want.complete()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSecretsMayComeFromFiles(t *testing.T) {
	dir := t.TempDir()
	environment(t, map[string]string{
		"CODERCLAW_TOKEN_FILE":                write(t, filepath.Join(dir, "token"), "0123456789abcdef\r\n"),
		"CODERCLAW_DATABASE_URL_FILE":         write(t, filepath.Join(dir, "url"), "postgres://db/claw"),
		"CODERCLAW_LLM_API_KEY_FILE":          write(t, filepath.Join(dir, "key"), "key\n"),
		"CODERCLAW_LLM_BASE_URL":              "http://localhost:11434/v1",
		"CODERCLAW_GITHUB_CLIENT_SECRET_FILE": write(t, filepath.Join(dir, "hub"), "hub\n"),
		"CODERCLAW_GOOGLE_CLIENT_SECRET_FILE": write(t, filepath.Join(dir, "goo"), "goo\n"),
	})
	c, warnings, err := Load(Options{})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if got := []string{
		c.Token.Reveal(), c.DatabaseURL.Reveal(), c.LLM.APIKey.Reveal(), c.GitHub.ClientSecret.Reveal(), c.Google.ClientSecret.Reveal(),
	}; !slices.Equal(got, []string{"0123456789abcdef", "postgres://db/claw", "key", "hub", "goo"}) {
		t.Errorf("read %q", got)
	}
}

func TestFaultsNameTheirVariableAndComeTogether(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		variables map[string]string
		want      string
	}{
		"values of the wrong type": {
			map[string]string{
				"CODERCLAW_MODE": "remote", "CODERCLAW_REQUIRE_AUTH": "maybe", "CODERCLAW_MAX_CONCURRENT_TASKS": "ten",
				"CODERCLAW_SHUTDOWN_GRACE": "20", "CODERCLAW_LOG_LEVEL": "loud", "CODERCLAW_LOG_FORMAT": "xml",
			},
			`CODERCLAW_MODE: "remote" is not one of local-only, remote-enabled, distributed-cluster
CODERCLAW_REQUIRE_AUTH: "maybe" is not true or false
CODERCLAW_MAX_CONCURRENT_TASKS: "ten" is not a whole number
CODERCLAW_SHUTDOWN_GRACE: "20" is not a duration such as 20s or 1m30s
CODERCLAW_LOG_LEVEL: "loud" is not one of debug, info, warn, error
CODERCLAW_LOG_FORMAT: "xml" is not one of auto, text, json`,
		},
		"values out of range": {
			map[string]string{
				"CODERCLAW_MAX_CONCURRENT_TASKS": "-1", "CODERCLAW_DATABASE_MAX_CONNS": "-1", "CODERCLAW_SHUTDOWN_GRACE": "-1s", "CODERCLAW_WORKER_LEASE": "1s",
				"CODERCLAW_TOKEN": "two words", "CODERCLAW_LLM_BASE_URL": "ftp://models", "CODERCLAW_LISTEN": "7433",
				"CODERCLAW_METRICS_LISTEN": "localhost:http", "CODERCLAW_RATE_LIMIT": "-1", "CODERCLAW_RATE_LIMIT_ANONYMOUS": "1000001",
				"CODERCLAW_MAX_STREAMS_PER_PRINCIPAL": "-3", "CODERCLAW_AUDIT_RETENTION_DAYS": "-1",
				"CODERCLAW_SESSION_TTL": "0s", "CODERCLAW_AUDIT_WITNESS_URL": "witness",
			},
			`CODERCLAW_MAX_CONCURRENT_TASKS: -1 is not within 0 to 10000
CODERCLAW_DATABASE_MAX_CONNS: -1 is not within 0 to 10000
CODERCLAW_RATE_LIMIT: -1 is not within 0 to 1000000
CODERCLAW_RATE_LIMIT_ANONYMOUS: 1000001 is not within 0 to 1000000
CODERCLAW_MAX_STREAMS_PER_PRINCIPAL: -3 is not within 0 to 1000000
CODERCLAW_AUDIT_RETENTION_DAYS: -1 is not within 0 to 36500
CODERCLAW_SHUTDOWN_GRACE: -1s is negative
CODERCLAW_WORKER_LEASE: 1s is not within 2s to 10m0s
CODERCLAW_TOKEN: may hold only visible ASCII characters, no spaces
CODERCLAW_SESSION_TTL: 0s is not more than 0 and at most CODERCLAW_SESSION_MAX, which is 24h0m0s
CODERCLAW_LLM_BASE_URL: must be an http or https URL
CODERCLAW_AUDIT_WITNESS_URL: must be an http or https URL
CODERCLAW_LISTEN: "7433" is not host:port or unix:/path
CODERCLAW_METRICS_LISTEN: "localhost:http": the port must be a number from 0 to 65535`,
		},
		"contradictions": {
			map[string]string{
				"CODERCLAW_TOKEN": "hunter2", "CODERCLAW_TOKEN_FILE": write(t, filepath.Join(dir, "token"), "hunter2"),
				"CODERCLAW_DATABASE_URL": "postgres://u:hunter2@db/claw", "CODERCLAW_EMBEDDED_POSTGRES": "1",
			},
			`CODERCLAW_TOKEN_FILE: contradicts CODERCLAW_TOKEN; set one of them
CODERCLAW_EMBEDDED_POSTGRES: contradicts CODERCLAW_DATABASE_URL; set one of them`,
		},
		"secret files that hold none": {
			map[string]string{
				"CODERCLAW_TOKEN_FILE":        "hunter2",
				"CODERCLAW_DATABASE_URL_FILE": write(t, filepath.Join(dir, "empty"), "\n"),
				"CODERCLAW_LLM_API_KEY_FILE":  write(t, filepath.Join(dir, "big"), strings.Repeat("x", maxSecretBytes+1)),
			},
			`CODERCLAW_TOKEN_FILE: the file cannot be read: no such file or directory
CODERCLAW_DATABASE_URL_FILE: the file is empty
CODERCLAW_LLM_API_KEY_FILE: the file is larger than 16384 bytes`,
		},
		"a password in the model's address": {
			map[string]string{"CODERCLAW_LLM_BASE_URL": "https://me:hunter2@models.example/v1"},
			"CODERCLAW_LLM_BASE_URL: must not hold a user or password",
		},
		"several faults among settings that belong together": {
			map[string]string{"CODERCLAW_AUDIT_RETENTION_DAYS": "ever", "CODERCLAW_AUDIT_WITNESS_URL": "witness"},
			"CODERCLAW_AUDIT_RETENTION_DAYS: \"ever\" is not a whole number\n" +
				"CODERCLAW_AUDIT_WITNESS_URL: must be an http or https URL",
		},
		"sessions longer than a day": {
			map[string]string{"CODERCLAW_SESSION_MAX": "25h"},
			"CODERCLAW_SESSION_MAX: 25h0m0s is not more than 0 and at most 24h0m0s",
		},
		"sessions longer than they may be": {
			map[string]string{"CODERCLAW_SESSION_MAX": "8h"},
			"CODERCLAW_SESSION_TTL: 12h0m0s is not more than 0 and at most CODERCLAW_SESSION_MAX, which is 8h0m0s",
		},
		"a workspace that is not there": {
			map[string]string{"CODERCLAW_WORKSPACE_ROOT": "/no/such/place"},
			`CODERCLAW_WORKSPACE_ROOT: "/no/such/place" is not a directory`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, c.variables)
			got, _, err := Load(Options{Serves: true})
			if err == nil || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
			if !reflect.DeepEqual(got, Config{}) {
				t.Errorf("a faulty configuration was returned: %+v", got)
			}
		})
	}
}

func TestFileAndEnvironmentFaultsComeTogether(t *testing.T) {
	home := environment(t, map[string]string{"CODERCLAW_LOG_LEVEL": "loud", "CODERCLAW_LISTEN": "0.0.0.0:80"})
	file := write(t, filepath.Join(home, ".coderclaw/.coderClaw/runtime.yaml"), "mode: remote\n")
	_, _, err := Load(Options{Serves: true})
	want := file + `:1:7: mode: "remote" is not one of local-only, remote-enabled, distributed-cluster
CODERCLAW_LOG_LEVEL: "loud" is not one of debug, info, warn, error`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestOnlyLoopbackGoesWithoutAuthentication(t *testing.T) {
	for name, c := range map[string]struct {
		listen, requireAuth, token string
		want                       string
	}{
		"IPv4 loopback":               {"127.0.0.1:7433", "false", "", ""},
		"all of 127.0.0.0/8":          {"127.200.0.9:7433", "false", "", ""},
		"IPv6 loopback":               {"[::1]:7433", "false", "", ""},
		"IPv4 loopback within IPv6":   {"[::ffff:127.0.0.1]:7433", "false", "", ""},
		"localhost":                   {"LocalHost:0", "false", "", ""},
		"a unix socket":               {"unix:/run/coderclaw.sock", "false", "", ""},
		"all addresses":               {"0.0.0.0:7433", "false", "", "0.0.0.0:7433"},
		"all addresses, without host": {":7433", "false", "", ":7433"},
		"all addresses of IPv6":       {"[::]:7433", "false", "", "[::]:7433"},
		"a private address":           {"10.0.0.1:7433", "false", "", "10.0.0.1:7433"},
		"a name":                      {"localhost.example:7433", "false", "", "localhost.example:7433"},
		"a token but not required":    {"0.0.0.0:7433", "false", "0123456789abcdef", "0.0.0.0:7433"},
		"required with a token":       {"0.0.0.0:7433", "true", "0123456789abcdef", ""},
		"required of accounts alone":  {"0.0.0.0:7433", "true", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, map[string]string{
				"CODERCLAW_LISTEN": c.listen, "CODERCLAW_REQUIRE_AUTH": c.requireAuth, "CODERCLAW_TOKEN": c.token,
			})
			want := c.want
			if want != "" {
				want = "security.requireAuth is false and " + want + " can be reached from other machines: " +
					"set CODERCLAW_REQUIRE_AUTH=true, or listen on 127.0.0.1"
			}
			_, _, err := Load(Options{Serves: true})
			if err == nil && want != "" || err != nil && err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if _, _, err := Load(Options{}); err != nil {
				t.Errorf("a process that does not serve: %v", err)
			}
		})
	}
}

func TestUnknownVariablesAreWarnedAbout(t *testing.T) {
	environment(t, map[string]string{
		"CODERCLAW_LISTN": "0.0.0.0:80", "CODERCLAW_REQUIREAUTH": "true", "CODERCLAW_TOKEN_FIL": "hunter2",
		"CODERCLAW_FLUX_CAPACITOR": "hunter2", "CODERCLAWED": "x", "LISTEN": "0.0.0.0:80",
	})
	c, warnings, err := Load(Options{Serves: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:7433" {
		t.Errorf("a variable without the prefix was read: listening on %s", c.Listen)
	}
	want := []string{
		"CODERCLAW_FLUX_CAPACITOR is set, but there is no such setting",
		"CODERCLAW_LISTN is set, but there is no such setting; did you mean CODERCLAW_LISTEN?",
		"CODERCLAW_REQUIREAUTH is set, but there is no such setting; did you mean CODERCLAW_REQUIRE_AUTH?",
		"CODERCLAW_TOKEN_FIL is set, but there is no such setting; did you mean CODERCLAW_TOKEN_FILE?",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(warnings, "\n"), strings.Join(want, "\n"))
	}
}

func TestSettingsWithoutEffectAreWarnedAbout(t *testing.T) {
	for name, c := range map[string]struct {
		variables map[string]string
		want      string
	}{
		"a model without an endpoint": {
			map[string]string{"CODERCLAW_LLM_MODEL": "m-1"},
			"CODERCLAW_LLM_API_KEY and CODERCLAW_LLM_MODEL do nothing without CODERCLAW_LLM_BASE_URL",
		},
		"a certificate for a Unix socket": {
			map[string]string{"CODERCLAW_LISTEN": "unix:/run/claw.sock", "CODERCLAW_ACME_DOMAINS": "claw.example"},
			"CODERCLAW_TLS_CERT_FILE and CODERCLAW_ACME_DOMAINS do nothing on a Unix socket",
		},
		"an address for a certificate authority that is not asked": {
			map[string]string{"CODERCLAW_ACME_EMAIL": "ops@claw.example"},
			"CODERCLAW_ACME_EMAIL does nothing without CODERCLAW_ACME_DOMAINS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, c.variables)
			_, warnings, err := Load(Options{})
			if err != nil || !slices.Equal(warnings, []string{c.want}) {
				t.Errorf("got %q, %v", warnings, err)
			}
		})
	}
}

func TestEnforcedTrustHasAnEffect(t *testing.T) {
	home := environment(t, nil)
	write(t, filepath.Join(home, ".coderclaw/.coderClaw/runtime.yaml"), "security: {enforceTrust: true}\n")
	c, warnings, err := Load(Options{})
	if err != nil || len(warnings) > 0 || !c.EnforceTrust {
		t.Errorf("enforced: %t, warnings %q, %v", c.EnforceTrust, warnings, err)
	}
}

func TestInsecureSettingsAreListed(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Token = NewSecret("short")
	c.LLM = LLM{BaseURL: "http://models.example/v1", APIKey: NewSecret("key")}
	want := []string{
		"security.requireAuth is false: whoever reaches 127.0.0.1:7433 acts with the roles [developer]",
		"security.enforceTrust is false: devices are not checked",
		"CODERCLAW_TOKEN is shorter than 16 characters and could be guessed",
		"CODERCLAW_LLM_BASE_URL is plain http to another machine: CODERCLAW_LLM_API_KEY and all prompts travel unencrypted",
	}
	if got := c.Insecure(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	c.RequireAuth, c.EnforceTrust, c.Token = true, true, NewSecret("0123456789abcdef")
	c.LLM.BaseURL = "http://127.0.0.1:11434/v1"
	if got := c.Insecure(); len(got) > 0 {
		t.Errorf("a careful configuration is called insecure: %q", got)
	}
	c.Listen = "0.0.0.0:443"
	want = []string{"0.0.0.0:443 is plain HTTP and can be reached from other machines: " +
		"set CODERCLAW_TLS_CERT_FILE or CODERCLAW_ACME_DOMAINS, or see that only a proxy that ends TLS reaches it"}
	if got := c.Insecure(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	c.TLS = TLS{"cert.pem", "key.pem"}
	if got := c.Insecure(); len(got) > 0 {
		t.Errorf("TLS is called insecure: %q", got)
	}
}

func TestAUserWithoutAHomeGetsTheSystemsDirectories(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		home      string
		root      bool
		conf, dat string
	}{
		"a user":                {"/home/ann", false, "/home/ann/.coderclaw/.coderClaw", "/home/ann/.coderclaw/data"},
		"root":                  {"/root", true, "/root/.coderclaw/.coderClaw", "/var/lib/coderclaw"},
		"root without a home":   {"", true, "/etc/coderclaw", "/var/lib/coderclaw"},
		"a user without a home": {"", false, "/etc/coderclaw", "/var/lib/coderclaw"},
	} {
		if conf, dat := defaultDirs(c.home, c.root); conf != c.conf || dat != c.dat {
			t.Errorf("%s: %s and %s", name, conf, dat)
		}
	}
}

func TestAnEmptyHomeBreaksNothing(t *testing.T) {
	environment(t, nil)
	for _, dir := range []string{"", "relative"} {
		t.Setenv("HOME", dir)
		c, _, err := Load(Options{Serves: true})
		if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsAbs(c.ConfigDir) || !filepath.IsAbs(c.DataDir) {
			t.Errorf("HOME=%q: %s and %s", dir, c.ConfigDir, c.DataDir)
		}
	}
}
