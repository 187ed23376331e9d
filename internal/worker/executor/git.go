package executor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// git runs the git program for one checkout: without a shell, a terminal,
// passwords, hooks, or a configuration other than that of the repository.
type git struct {
	dir   string
	index string // of what there is at the end
	grace time.Duration
}

// settings keep a repository, which an agent may have changed, from having git
// run other programs.
var settings = []string{
	"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.pager=cat", "credential.helper=", "http.followRedirects=false",
	"diff.external=", "gc.auto=0", "maintenance.auto=false", "log.showSignature=false", "submodule.recurse=false", "fetch.recurseSubmodules=false",
}

// run runs one git command. A variable of the environment may be added to it.
func (g git) run(ctx context.Context, out taker, variables []string, args ...string) error {
	program, err := exec.LookPath("git")
	if err != nil {
		return &Failure{Message: "the worker's machine has no git"}
	}
	var all []string
	for _, s := range settings {
		all = append(all, "-c", s)
	}
	cmd := exec.Command(program, append(all, args...)...)
	cmd.Dir = g.dir
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SSH_AUTH_SOCK"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false", "GIT_SSH_COMMAND=ssh -o BatchMode=yes", "GIT_NO_LAZY_FETCH=1", "GIT_OPTIONAL_LOCKS=0",
		"GIT_DIR="+filepath.Join(g.dir, ".git"), "GIT_WORK_TREE="+g.dir)
	cmd.Env = append(cmd.Env, variables...)
	setApart(cmd)
	complaint := &kept{tail{limit: maxErrorTail}}
	if out == nil {
		out = complaint
	}
	r, err := start(cmd, false, out, complaint)
	if err != nil {
		return fmt.Errorf("start git: %w", err)
	}
	stopped, err := r.wait(ctx, g.grace)
	switch {
	case err != nil:
		return fmt.Errorf("wait for git: %w", err)
	case stopped:
		return ctx.Err()
	case !cmd.ProcessState.Success():
		return exit("git "+args[0]+": ", cmd.ProcessState, &complaint.tail)
	}
	return nil
}

// kept is a taker that keeps the end of what it takes.
type kept struct{ tail }

func (*kept) end() {}

// capped is a taker that writes to a file up to a limit.
type capped struct {
	file *os.File
	room int64 // negative: it was too much
	err  error
}

func (c *capped) write(p []byte) {
	if c.room -= int64(len(p)); c.room >= 0 && c.err == nil {
		_, c.err = c.file.Write(p)
	}
}

func (*capped) end() {}

// setUp checks the repository out on a branch of its own.
func (c *checkout) setUp(ctx context.Context, src source) error {
	limited, cancel := context.WithTimeoutCause(ctx, maxSetUp, errSlowCheckout)
	defer cancel()
	scheme, _, _ := strings.Cut(src.Git, ":")
	ref := src.Ref
	if ref == "" {
		ref = "HEAD"
	}
	var head kept
	head.limit = 100
	for _, step := range []struct {
		out  taker
		args []string
	}{
		{nil, []string{"init", "--quiet", "--template="}},
		{nil, []string{"remote", "add", "--", "origin", src.Git}},
		{nil, []string{"fetch", "--quiet", "--no-tags", "--depth=" + depth, "--", "origin", ref}},
		{nil, []string{"checkout", "--quiet", "--no-track", "-B", "coderclaw", "FETCH_HEAD"}},
		{&head, []string{"rev-parse", "--verify", "HEAD^{commit}"}},
	} {
		err := c.git.run(limited, step.out, []string{"GIT_ALLOW_PROTOCOL=" + scheme, "GIT_LFS_SKIP_SMUDGE=1"}, step.args...)
		switch {
		case limited.Err() != nil && ctx.Err() == nil:
			return errSlowCheckout
		case err != nil:
			return err
		}
	}
	c.base = strings.TrimSpace(head.text())
	config, err := os.ReadFile(filepath.Join(c.dir, ".git", "config"))
	if err != nil {
		return fmt.Errorf("read configuration of checkout: %w", err)
	}
	c.config = config
	return nil
}

var errSlowCheckout = &Failure{Message: fmt.Sprintf("the repository could not be checked out within %v", maxSetUp), Retryable: true}

// collect hands over what has changed since the checkout, whether it was
// committed or not, and what was committed. That it cannot is noted.
func (c *checkout) collect(ctx context.Context, sink Sink) {
	if ctx.Err() != nil {
		return // there is nobody to hand it to
	}
	ctx, cancel := context.WithTimeout(ctx, maxCollect)
	defer cancel()
	if err := c.handOver(ctx, sink); err != nil && ctx.Err() != context.Canceled {
		sink.Note("what has changed in the checkout cannot be told: "+shortened(err.Error(), maxComplaint), nil)
	}
}

func (c *checkout) handOver(ctx context.Context, sink Sink) error {
	// A filter of the agent's making would be run by git as we look.
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if info, err := root.Lstat(".git"); err != nil || !info.IsDir() {
		return fmt.Errorf("the repository is gone")
	}
	for _, name := range []string{".git/config", ".git/config.worktree"} {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := root.WriteFile(".git/config", c.config, 0o600); err != nil {
		return err
	}
	own := []string{"GIT_INDEX_FILE=" + c.git.index}
	if err := c.git.run(ctx, nil, own, "read-tree", c.base); err != nil {
		return err
	}
	if err := c.git.run(ctx, nil, own, "add", "--all", "--", "."); err != nil {
		return err
	}
	if err := c.artifact(ctx, sink, "changes.diff", "text/x-diff", own,
		"diff", "--cached", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", c.base, "--"); err != nil {
		return err
	}
	return c.artifact(ctx, sink, "commits.txt", "text/plain; charset=utf-8", own,
		"log", "--no-color", "--no-mailmap", fmt.Sprintf("--max-count=%d", maxCommits), "--format=%H %aI %an <%ae>%n    %s", c.base+"..HEAD", "--")
}

// artifact hands over what a git command writes, unless that is nothing.
func (c *checkout) artifact(ctx context.Context, sink Sink, name, contentType string, variables []string, args ...string) error {
	file, err := os.CreateTemp(filepath.Dir(c.dir), "artifact-*")
	if err != nil {
		return err
	}
	defer file.Close()
	defer os.Remove(file.Name())
	out := &capped{file: file, room: maxDiff}
	if err := c.git.run(ctx, out, variables, args...); err != nil {
		return err
	}
	switch {
	case out.err != nil:
		return out.err
	case out.room < 0:
		return fmt.Errorf("%s would have more than %d MiB", name, maxDiff>>20)
	case out.room == maxDiff:
		return nil
	}
	if _, err := file.Seek(0, 0); err != nil {
		return err
	}
	return sink.Artifact(ctx, name, contentType, file)
}
