package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

// read applies a runtime.yaml of the given text to the defaults.
func read(text string) (Config, error) {
	c := Default()
	f := c.runtimeFile()
	doc := strictyaml.Decode(runtimeFilename, []byte(text), maxRuntimeBytes, &f)
	err := c.apply(&f, doc)
	return c, err
}

func TestRuntimeFilesOfTheGuideAreAcceptedAsTheyStand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want func(*Config)
	}{
		"local development": {`mode: local-only
transport:
  type: local
  enabled: true
security:
  enforceTrust: false  # Permissive for local dev
  requireAuth: false
deployment:
  mode: local-only
  maxConcurrentTasks: 10
`, func(*Config) {}},
		"team environment": {`mode: remote-enabled
transport:
  type: local  # Use HTTP adapter for true remote (future)
  enabled: true
security:
  enforceTrust: true
  requireAuth: true
  defaultRoles: [developer]
deployment:
  mode: remote-enabled
  allowRemoteSessions: true
  maxConcurrentTasks: 50
`, func(c *Config) {
			c.Mode, c.EnforceTrust, c.RequireAuth, c.AllowRemoteSessions, c.MaxConcurrentTasks = RemoteEnabled, true, true, true, 50
		}},
		"configuration reference": {`# Deployment mode: local-only | remote-enabled | distributed-cluster
mode: local-only

transport:
  type: local # local | http | websocket | grpc
  enabled: true

security:
  enforceTrust: false # Enable device trust enforcement
  requireAuth: false # Require authentication
  defaultRoles: [developer]

deployment:
  mode: local-only
  allowRemoteSessions: false
  maxConcurrentTasks: 10
`, func(*Config) {}},
		"troubleshooting": {`# In ~/.coderclaw/.coderClaw/runtime.yaml
mode: remote-enabled
deployment:
  allowRemoteSessions: true
`, func(c *Config) { c.Mode, c.AllowRemoteSessions = RemoteEnabled, true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := read(c.text)
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			c.want(&want)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestRuntimeFileSetsEveryKey(t *testing.T) {
	t.Parallel()
	got, err := read(`transport: {type: grpc, enabled: false}
security: {enforceTrust: true, requireAuth: true, defaultRoles: [ci, team-developer]}
deployment: {mode: distributed-cluster, allowRemoteSessions: true, maxConcurrentTasks: 10000}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Mode, want.TransportType, want.TransportEnabled = DistributedCluster, TransportGRPC, false
	want.EnforceTrust, want.RequireAuth, want.DefaultRoles = true, true, []string{"ci", "team-developer"}
	want.AllowRemoteSessions, want.MaxConcurrentTasks = true, 10_000
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRuntimeFileFaultsNameTheirPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"modes that disagree": {
			"mode: local-only\ndeployment:\n  mode: remote-enabled\n",
			"runtime.yaml:3:9: deployment.mode is remote-enabled, but mode is local-only; give one of them, or the same twice",
		},
		"a mode that does not exist": {
			"mode: remote\n",
			`runtime.yaml:1:7: mode: "remote" is not one of local-only, remote-enabled, distributed-cluster`,
		},
		"a transport that does not exist": {
			"transport:\n  type: carrier-pigeon\n",
			`runtime.yaml:2:9: type: "carrier-pigeon" is not one of local, http, websocket, grpc`,
		},
		"a role that cannot exist": {
			"security:\n  defaultRoles: [team-developer, Root]\n",
			`runtime.yaml:2:34: defaultRoles: "Root" is no name of a role: a letter or digit first, then up to 63 of those and . _ -, in lower case`,
		},
		"too few tasks": {
			"deployment:\n  maxConcurrentTasks: -1\n",
			"runtime.yaml:2:23: maxConcurrentTasks is -1 and must be 0 to 10000",
		},
		"too many tasks": {
			"deployment:\n  maxConcurrentTasks: 10001\n",
			"runtime.yaml:2:23: maxConcurrentTasks is 10001 and must be 0 to 10000",
		},
		"a misspelt requireAuth": {
			"security:\n  requireauth: true\n",
			`runtime.yaml:2:3: unknown key "requireauth"; known here: defaultRoles, enforceTrust, requireAuth`,
		},
		"a requireAuth that is not a boolean": {
			"security:\n  requireAuth: on\n",
			`runtime.yaml:2:16: requireAuth must be true or false, not "on"`,
		},
		"a requireAuth left empty": {
			"security:\n  requireAuth:\n",
			"runtime.yaml:2:3: requireAuth has no value",
		},
		"a key given twice": {
			"security:\n  requireAuth: true\n  requireAuth: false\n",
			`runtime.yaml:3:3: key "requireAuth" is given twice, first in line 2`,
		},
		"a second document": {
			"mode: local-only\n---\nsecurity: {requireAuth: true}\n",
			"runtime.yaml:2:1: a second document begins here; only one is accepted",
		},
		"a file too large": {
			"#" + strings.Repeat("x", 64<<10),
			"runtime.yaml:1:1: the file is larger than 65536 bytes",
		},
		"deep nesting": {
			"security: " + strings.Repeat("[", 60_000),
			"runtime.yaml:1:42: nested deeper than 32 levels",
		},
		"all at once": {
			"mode: x\nsecurity:\n  trust: yes\n  defaultRoles: [-boss]\ndeployment: {maxConcurrentTasks: many}\n",
			`runtime.yaml:1:7: mode: "x" is not one of local-only, remote-enabled, distributed-cluster
runtime.yaml:3:3: unknown key "trust"; known here: defaultRoles, enforceTrust, requireAuth
runtime.yaml:4:18: defaultRoles: "-boss" is no name of a role: a letter or digit first, then up to 63 of those and . _ -, in lower case
runtime.yaml:5:34: maxConcurrentTasks must be a whole number, not "many"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := read(c.text); err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestRuntimeFileMayBeAbsentButNotUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := Default()
	if err := c.readRuntimeFile(filepath.Join(dir, "none", runtimeFilename)); err != nil {
		t.Errorf("no file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, runtimeFilename), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.readRuntimeFile(filepath.Join(dir, runtimeFilename)); err == nil {
		t.Error("a directory was taken for a file")
	}
}

func FuzzRuntimeYAML(f *testing.F) {
	for _, text := range []string{
		"mode: local-only\ntransport:\n  type: local\n  enabled: true\n",
		"security:\n  enforceTrust: false\n  requireAuth: false\n  defaultRoles: [developer]\n",
		"deployment:\n  mode: local-only\n  allowRemoteSessions: false\n  maxConcurrentTasks: 10\n",
		"---\nmode: &a local-only\ndeployment: {mode: *a}\n...\n", "? [mode]\n: - - |\n  x\n", "mode: \"\\x00\"\n<<: {}\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		late := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("still reading %q", text)) })
		defer late.Stop()
		c, err := read(text)
		if err != nil {
			return
		}
		if err := new(Mode).UnmarshalText([]byte(c.Mode)); err != nil {
			t.Errorf("accepted mode: %v", err)
		}
		if err := c.check(false); err != nil {
			t.Errorf("accepted what the check refuses: %v", err)
		}
	})
}
