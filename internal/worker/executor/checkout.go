package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coderclaw/runtime/api"
)

// Cleanup says when the checkout of a task is removed.
type Cleanup string

// The ways of cleaning up.
const (
	CleanupAlways    Cleanup = "always"    // at the end of the attempt
	CleanupOnSuccess Cleanup = "onSuccess" // unless the attempt fails
	CleanupNever     Cleanup = "never"
)

// CheckoutOptions say what may be checked out for a task that names a
// repository in metadata.workspace, {"git": address, "ref": branch, tag or
// commit}.
type CheckoutOptions struct {
	// Repositories are the addresses that a task may name, or what they begin
	// with: https://, ssh:// or file:// ones. None: a task may name none.
	Repositories []string
	// Cleanup defaults to CleanupAlways.
	Cleanup Cleanup
	// Quota is how many bytes a checkout may take on the disk. 0: any.
	Quota int64
}

const (
	maxSetUp   = 10 * time.Minute // to check a repository out
	maxCollect = 2 * time.Minute  // to find out what has changed
	maxDiff    = 64 << 20         // bytes
	maxCommits = 10_000
	// depth is how many commits of the history are there.
	depth = "100"
)

// checkouts makes a directory of its own for each task that wants one, with a
// repository checked out by the git program, and tells what has changed in it
// at the end.
type checkouts struct {
	CheckoutOptions
	dir     string // holds them; empty: there can be none
	grace   time.Duration
	measure time.Duration // from one look at the disk to the next

	sweep sync.Once
}

// source is a repository that a task names.
type source struct {
	Git string `json:"git"`
	Ref string `json:"ref"`
}

// errQuota ends an attempt whose checkout has grown too large.
var errQuota = &Failure{Message: "disk quota exceeded"}

// inCheckout runs an executor in a checkout, if the task wants one.
type inCheckout struct {
	Executor
	checkouts *checkouts
}

// Run makes the checkout, runs the executor in it, hands over what has changed
// and removes it.
func (e *inCheckout) Run(ctx context.Context, job Job, sink Sink) (output string, err error) {
	src, err := sourceOf(job.Task)
	if err != nil {
		return "", err
	}
	if src == nil {
		return e.Executor.Run(ctx, job, sink)
	}
	if err := e.checkouts.allow(*src); err != nil {
		return "", err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c, err := e.checkouts.reopen(&job)
	if err != nil {
		return "", err
	}
	resumed := c != nil
	if resumed {
		sink.Note("the checkout is used again", nil)
	} else if c, err = e.checkouts.create(job.Task); err != nil {
		return "", err
	}
	defer func() {
		if errors.Is(context.Cause(ctx), ErrSuspended) {
			c.leave()
			return
		}
		keep := e.checkouts.Cleanup == CleanupNever || e.checkouts.Cleanup == CleanupOnSuccess && err != nil
		c.close(keep)
		if keep {
			sink.Note("the checkout is kept", map[string]string{"directory": c.dir})
		}
	}()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop(nil)
	if e.checkouts.Quota > 0 {
		watching.Go(func() { c.watch(ctx, e.checkouts.Quota, e.checkouts.measure, func() { stop(errQuota) }) })
	}

	if !resumed {
		sink.Note("checking out "+src.Git, map[string]any{"workspace": src})
		err = c.setUp(ctx, *src)
	}
	if err == nil {
		job.Workspace = c.dir
		output, err = e.Executor.Run(ctx, job, placed{sink, c})
		c.collect(ctx, sink)
	}
	if errors.Is(context.Cause(ctx), errQuota) {
		return "", errQuota
	}
	return output, err
}

// sourceOf returns the repository that the task names, or nil.
func sourceOf(t api.Task) (*source, error) {
	var metadata struct {
		Workspace *source `json:"workspace"`
	}
	if t.Metadata != nil {
		if err := json.Unmarshal(t.Metadata, &metadata); err != nil {
			var wrong *json.UnmarshalTypeError
			if errors.As(err, &wrong) && strings.HasPrefix(wrong.Field, "workspace") {
				return nil, &Failure{Message: `metadata.workspace must be an object {"git": address, "ref": name}`}
			}
		}
	}
	return metadata.Workspace, nil
}

var refForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}$`)

// allow refuses a repository that is not listed, and addresses by which git
// could be led elsewhere.
func (cs *checkouts) allow(src source) error {
	if len(cs.Repositories) == 0 || cs.dir == "" {
		return &Failure{Message: "this worker checks nothing out: CODERCLAW_WORKSPACE_REPOSITORIES would say what it may"}
	}
	u, err := url.Parse(src.Git)
	var password bool
	if err == nil && u.User != nil {
		_, password = u.User.Password()
	}
	switch {
	case err != nil || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(src.Git, "%\\ \t\r\n\x00") || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") || u.Path == "":
		return &Failure{Message: fmt.Sprintf("metadata.workspace.git: %q is no plain address of a repository, like https://host/path", shortened(src.Git, maxComplaint))}
	case password || u.User != nil && u.Scheme != "ssh":
		return &Failure{Message: "metadata.workspace.git must not hold a user or password"}
	case strings.HasPrefix(u.Host, "-") || u.User != nil && strings.HasPrefix(u.User.Username(), "-"):
		return &Failure{Message: "metadata.workspace.git: a host or user begins with a dash"}
	case src.Ref != "" && (!refForm.MatchString(src.Ref) || strings.Contains(src.Ref, "..")):
		return &Failure{Message: fmt.Sprintf("metadata.workspace.ref: %q is no name of a branch, tag or commit", shortened(src.Ref, maxComplaint))}
	}
	for _, allowed := range cs.Repositories {
		if src.Git == allowed || strings.HasSuffix(allowed, "/") && strings.HasPrefix(src.Git, allowed) {
			switch u.Scheme {
			case "https", "ssh", "file":
				return nil
			}
		}
	}
	return &Failure{Message: fmt.Sprintf("this worker may not check out %s: it is not within CODERCLAW_WORKSPACE_REPOSITORIES", src.Git)}
}

// checkout is the directory of one attempt.
type checkout struct {
	dir    string
	git    git
	lock   *os.File // held while the attempt lives, so that a sweep leaves it alone
	config []byte   // of the repository, as git left it
	base   string   // the commit that was checked out
}

// create makes the directory, which is empty.
func (cs *checkouts) create(t api.Task) (*checkout, error) {
	if err := os.MkdirAll(cs.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of checkouts: %w", err)
	}
	cs.sweep.Do(cs.clean)
	cs.prune()
	name := fmt.Sprintf("%s-%d", t.ID, t.Attempt)
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return nil, fmt.Errorf("make checkout: %q is no name", name)
	}
	dir := filepath.Join(cs.dir, name)
	lock, err := locked(dir + ".lock")
	if err != nil {
		return nil, fmt.Errorf("lock checkout: %w", err)
	}
	c := &checkout{dir: dir, lock: lock, git: git{dir: dir, index: dir + ".index", grace: cs.grace}}
	_ = os.Remove(dir + leftSuffix)
	if err := errors.Join(removeAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		lock.Close()
		return nil, fmt.Errorf("make checkout: %w", err)
	}
	return c, nil
}

// locked creates a file and locks it, or says that somebody else has.
func locked(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// clean removes what attempts have left behind whose worker was killed.
func (cs *checkouts) clean() {
	if cs.Cleanup == CleanupNever || cs.Cleanup == CleanupOnSuccess {
		return // what was kept looks the same
	}
	left, _ := filepath.Glob(filepath.Join(cs.dir, "*.lock"))
	for _, name := range left {
		if lock, err := locked(name); err == nil {
			(&checkout{dir: strings.TrimSuffix(name, ".lock"), lock: lock}).close(false)
		}
	}
}

// close removes the checkout, unless it is to be kept.
func (c *checkout) close(keep bool) {
	if !keep {
		_ = removeAll(c.dir) // what is left is removed by the next sweep
	}
	_ = os.Remove(c.dir + ".index")
	_ = os.Remove(c.lock.Name())
	c.lock.Close()
}

// removeAll removes a tree, also where directories have been made read-only.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// watch calls exceeded once the checkout takes more than quota bytes.
func (c *checkout) watch(ctx context.Context, quota int64, every time.Duration, exceeded func()) {
	for ctx.Err() == nil {
		began := time.Now()
		if used(ctx, c.dir) > quota {
			exceeded()
			return
		}
		// A tree that takes long to look at is looked at less often.
		pause := time.NewTimer(max(every, 10*time.Since(began)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// used is how many bytes a tree takes on the disk.
func used(ctx context.Context, dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil // it was removed meanwhile
		}
		if info, err := d.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += stat.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
