package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// create makes the cluster. It takes its name only when it is whole, so that a
// start that is killed leaves nothing half made.
func (c *Cluster) create(ctx context.Context) error {
	c.opts.Log.InfoContext(ctx, "making a private PostgreSQL cluster", "dir", c.layout.data, "version", c.bin.Major)
	dir := filepath.Join(c.layout.home, fmt.Sprintf("init-%d", time.Now().UnixNano()))
	if err := c.initdb(ctx, dir); err != nil {
		os.RemoveAll(dir)
		return fmt.Errorf("make a PostgreSQL cluster: %w", err)
	}
	if err := os.Rename(dir, c.layout.data); err != nil {
		return fmt.Errorf("make a PostgreSQL cluster: %w", err)
	}
	home, err := os.Open(c.layout.home)
	if err != nil {
		return err
	}
	defer home.Close()
	return home.Sync()
}

// initdb makes a cluster that compares text byte by byte, the same on every
// system and for ever, and knows the letters of all languages where the system
// does.
func (c *Cluster) initdb(ctx context.Context, dir string) error {
	args := []string{
		"-D", dir, "-U", User, "-E", "UTF8", "--no-instructions",
		"--auth-local=peer", "--auth-host=reject", "--locale=C",
	}
	if c.opts.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	out, err := c.run(ctx, "initdb", append(args, "--lc-ctype=C.UTF-8")...)
	if err != nil && strings.Contains(string(out), "locale") {
		os.RemoveAll(dir)
		out, err = c.run(ctx, "initdb", args...)
	}
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(out))
	}
	return nil
}

// run runs a program of PostgreSQL as the cluster's owner and returns what it
// says.
func (c *Cluster) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin.BinDir, program), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	c.confine(cmd)
	exited, err := startBound(cmd)
	if err == nil {
		err = <-exited
	}
	return []byte(out.String()), err
}

// lastLines returns the end of a program's output in one line.
func lastLines(out []byte) string {
	const most = 5
	lines := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' || r == '\r' })
	lines = lines[max(0, len(lines)-most):]
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}
