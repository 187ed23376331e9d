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

// makePathsAbsolute resolves relative paths while the working directory is
// still the one they were written for.
func (c *Config) makePathsAbsolute() {
	for _, path := range []*string{&c.ConfigDir, &c.DataDir, &c.WorkspaceRoot} {
		if *path == "" {
			continue
		}
		if abs, err := filepath.Abs(*path); err == nil {
			*path = abs
		}
	}
}
