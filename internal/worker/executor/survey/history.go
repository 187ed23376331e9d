package survey

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	maxCommits  = 5000
	historyTime = 30 * time.Second
	// maxHistory bounds what is read of git's output, in bytes.
	maxHistory = 64 << 20
)

// history is what git knows of a tree.
type history struct {
	missing string // why there is none; "": there is one
	partial bool   // there are more commits, or reading them took too long
	commits int
	authors map[string]int // commits by name
	first   time.Time
	last    time.Time
	changes map[string]*changes // by path
}

// changes are those of one file.
type changes struct {
	commits int
	authors map[string]bool
	last    time.Time
}

// readHistory reads the last commits of the repository that the directory
// belongs to. The repository may be hostile: git is told by its command line and
// environment not to run anything, not to fetch anything and not to look
// elsewhere.
func readHistory(ctx context.Context, workspace *os.Root, base, dir string) history {
	gitDir, ok := findRepository(workspace, dir)
	if !ok {
		return history{missing: "there is no git repository here that stays inside the workspace"}
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return history{missing: "git is not installed"}
	}
	ctx, cancel := context.WithTimeout(ctx, historyTime)
	defer cancel()
	workTree := filepath.Join(base, filepath.FromSlash(path.Dir(gitDir)))
	cmd := exec.CommandContext(ctx, git, "--no-pager", "--no-optional-locks",
		"--git-dir="+filepath.Join(base, filepath.FromSlash(gitDir)), "--work-tree="+workTree,
		"-c", "safe.directory="+workTree, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false",
		"-c", "core.attributesFile=/dev/null", "-c", "log.follow=false",
		"log", "--max-count="+strconv.Itoa(maxCommits+1), "--no-merges", "--no-color", "--no-show-signature",
		"--no-ext-diff", "--no-textconv", "--no-renames", "-O/dev/null",
		"--format=%x01%ct%x02%an", "--name-only", "-z", "--relative", "HEAD", "--", ".")
	cmd.Dir = filepath.Join(base, filepath.FromSlash(dir))
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none", "GIT_NO_REPLACE_OBJECTS=1",
	}
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return history{missing: "git could not be started"}
	}
	if err := cmd.Start(); err != nil {
		return history{missing: "git could not be started"}
	}
	h := history{authors: map[string]int{}, changes: map[string]*changes{}}
	h.read(out)
	out.Close() // git ends when nobody wants the rest
	err = cmd.Wait()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		h.partial = true
	case err != nil && h.commits == 0:
		return history{missing: "git cannot read the repository, or there is no commit yet"}
	}
	return h
}

// findRepository returns the .git directory of dir or of a directory above it in
// the workspace. One that leads elsewhere is none: a link, a file that names
// another place, borrowed objects.
func findRepository(workspace *os.Root, dir string) (string, bool) {
	for at := filepath.ToSlash(dir); ; at = path.Dir(at) {
		git := path.Join(at, ".git")
		if _, err := workspace.Lstat(git); err == nil {
			for _, part := range []string{"", "objects", "refs", "HEAD"} {
				info, err := workspace.Lstat(path.Join(git, part))
				if err != nil || info.Mode()&os.ModeSymlink != 0 || info.IsDir() == (part == "HEAD") {
					return "", false
				}
			}
			for _, borrowed := range []string{"commondir", "objects/info/alternates"} {
				if _, err := workspace.Lstat(path.Join(git, borrowed)); err == nil {
					return "", false
				}
			}
			return git, true
		}
		if at == "." {
			return "", false
		}
	}
}

// read takes in git's output: each commit begins with U+0001, its time, U+0002
// and its author; its paths follow, the first after a line break. NUL ends each.
func (h *history) read(out io.Reader) {
	limited := &io.LimitedReader{R: out, N: maxHistory}
	fields := bufio.NewScanner(limited)
	fields.Buffer(nil, 1<<20)
	fields.Split(splitNUL)
	var at time.Time
	var author string
	for fields.Scan() {
		head, ok := strings.CutPrefix(fields.Text(), "\x01")
		if !ok {
			if name := strings.TrimPrefix(fields.Text(), "\n"); name != "" && h.commits > 0 {
				h.addChange(name, at, author)
			}
			continue
		}
		if h.commits == maxCommits {
			h.partial = true
			return
		}
		when, name, _ := strings.Cut(head, "\x02")
		seconds, _ := strconv.ParseInt(when, 10, 64)
		at, author = time.Unix(seconds, 0).UTC(), name
		h.addCommit(at, author)
	}
	h.partial = h.partial || fields.Err() != nil || limited.N == 0
}

func splitNUL(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func (h *history) addCommit(at time.Time, author string) {
	h.commits++
	h.authors[author]++
	if h.first.IsZero() || at.Before(h.first) {
		h.first = at
	}
	if at.After(h.last) {
		h.last = at
	}
}

func (h *history) addChange(name string, at time.Time, author string) {
	c := h.changes[name]
	if c == nil {
		if len(h.changes) >= 4*maxFiles {
			h.partial = true
			return
		}
		c = &changes{authors: map[string]bool{}}
		h.changes[name] = c
	}
	c.commits++
	c.authors[author] = true
	if at.After(c.last) {
		c.last = at
	}
}
