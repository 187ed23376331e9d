package config

import (
	"os"
	"os/user"
	"path/filepath"
)

// home returns the user's home directory, or "" if there is none, as in a
// container that runs under a bare user id.
func home() string {
	if dir, err := os.UserHomeDir(); err == nil && filepath.IsAbs(dir) {
		return dir
	}
	if u, err := user.Current(); err == nil && filepath.IsAbs(u.HomeDir) {
		return u.HomeDir
	}
	return ""
}

func defaultDirs(home string, root bool) (configDir, dataDir string) {
	configDir, dataDir = "/etc/coderclaw", "/var/lib/coderclaw"
	if home != "" {
		configDir = filepath.Join(home, ".coderclaw", ".coderClaw")
		if !root {
			dataDir = filepath.Join(home, ".coderclaw", "data")
		}
	}
	return configDir, dataDir
}

// SecurityFile returns where the organisation's policy is, if there is one.
func (c Config) SecurityFile() string { return filepath.Join(c.ConfigDir, "security.yaml") }

// ACMEDir returns where certificates and keys from an ACME authority are kept.
func (c Config) ACMEDir() string { return filepath.Join(c.DataDir, "acme") }

// complete fills in the defaults that depend on other settings, resolves
// relative paths while the working directory is still the one they were written
// for, and gives the public URL its one form.
func (c *Config) complete() {
	for _, path := range []*string{
		&c.ConfigDir, &c.DataDir, &c.WorkspaceRoot, &c.TLS.CertFile, &c.TLS.KeyFile, &c.SigningKeyFile,
		&c.Audit.CheckpointFile, &c.Audit.KeyFile,
	} {
		if *path == "" {
			continue
		}
		if abs, err := filepath.Abs(*path); err == nil {
			*path = abs
		}
	}
	if c.Audit.CheckpointFile == "" {
		c.Audit.CheckpointFile = filepath.Join(c.DataDir, "audit", "checkpoints")
	}
	if c.Audit.KeyFile == "" {
		c.Audit.KeyFile = filepath.Join(filepath.Dir(c.Audit.CheckpointFile), "key")
	}
	if exact, err := origin(c.PublicURL); err == nil {
		c.PublicURL = exact
	}
}
