package config

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

const (
	runtimeFilename = "runtime.yaml"
	maxRuntimeBytes = 64 << 10
)

// roleForm is how roles may be named. Which there are, the policies say.
var roleForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// runtimeFile is the form of runtime.yaml.
type runtimeFile struct {
	Mode      Mode `yaml:"mode"`
	Transport struct {
		Type    TransportType `yaml:"type"`
		Enabled bool          `yaml:"enabled"`
	} `yaml:"transport"`
	Security struct {
		EnforceTrust bool     `yaml:"enforceTrust"`
		RequireAuth  bool     `yaml:"requireAuth"`
		DefaultRoles []string `yaml:"defaultRoles"`
	} `yaml:"security"`
	Deployment struct {
		Mode                Mode `yaml:"mode"`
		AllowRemoteSessions bool `yaml:"allowRemoteSessions"`
		MaxConcurrentTasks  int  `yaml:"maxConcurrentTasks"`
	} `yaml:"deployment"`
}

// readRuntimeFile overrides c with what the file names. That there is no file
// is no fault.
func (c *Config) readRuntimeFile(filename string) error {
	f := c.runtimeFile()
	doc, err := strictyaml.ReadFile(filename, maxRuntimeBytes, &f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return c.apply(&f, doc)
}

// runtimeFile returns c as a file, to be overridden by decoding.
func (c *Config) runtimeFile() (f runtimeFile) {
	f.Mode, f.Deployment.Mode = c.Mode, c.Mode
	f.Transport.Type, f.Transport.Enabled = c.TransportType, c.TransportEnabled
	f.Security.EnforceTrust, f.Security.RequireAuth = c.EnforceTrust, c.RequireAuth
	f.Security.DefaultRoles = c.DefaultRoles
	f.Deployment.AllowRemoteSessions = c.AllowRemoteSessions
	f.Deployment.MaxConcurrentTasks = c.MaxConcurrentTasks
	return f
}

// apply checks f and takes it over if nothing is wrong with it.
func (c *Config) apply(f *runtimeFile, doc *strictyaml.Document) error {
	mode := f.Mode
	if doc.Has(&f.Deployment.Mode) {
		mode = f.Deployment.Mode
		if doc.Has(&f.Mode) && f.Mode != mode {
			doc.Refuse(&f.Deployment.Mode, "deployment.mode is %s, but mode is %s; give one of them, or the same twice", mode, f.Mode)
		}
	}
	for i := range f.Security.DefaultRoles {
		role := &f.Security.DefaultRoles[i]
		if doc.Has(role) && !roleForm.MatchString(*role) {
			doc.Refuse(role, "defaultRoles: %.40q is no name of a role: a letter or digit first, then up to 63 of those and . _ -, in lower case", *role)
		}
	}
	if n := &f.Deployment.MaxConcurrentTasks; doc.Has(n) && !taskCountAllowed(*n) {
		doc.Refuse(n, "maxConcurrentTasks is %d and must be %d to %d", *n, minTasks, maxTasks)
	}
	if err := doc.Err(); err != nil {
		return err
	}
	c.Mode = mode
	c.TransportType, c.TransportEnabled = f.Transport.Type, f.Transport.Enabled
	c.EnforceTrust, c.RequireAuth = f.Security.EnforceTrust, f.Security.RequireAuth
	c.DefaultRoles = f.Security.DefaultRoles
	c.AllowRemoteSessions = f.Deployment.AllowRemoteSessions
	c.MaxConcurrentTasks = f.Deployment.MaxConcurrentTasks
	return nil
}
