package executor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coderclaw/runtime/internal/worker/executor"
)

// repository makes a repository with a file, a branch and a tag, and returns
// its directory.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=Author", "-c", "user.email=author@example.com"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "--quiet", "-b", "main")
	write("README.md", "first\n")
	git("add", ".")
	git("commit", "--quiet", "-m", "Begin")
	git("tag", "v1")
	git("switch", "--quiet", "-c", "feature")
	write("README.md", "feature\n")
	git("commit", "--quiet", "-am", "Go on")
	git("switch", "--quiet", "main")
	return dir
}

// checkoutRig returns executors that may check out what is in the repository's
// place, and a function that runs a job of the test binary there.
func checkoutRig(t *testing.T, o executor.CheckoutOptions) (state string, run func(workspace any, command ...string) (string, []string, error)) {
	t.Helper()
	state = t.TempDir()
	set, err := executor.NewSet(executor.Options{WorkspaceRoot: t.TempDir(), StateDir: state, Checkouts: o})
	if err != nil {
		t.Fatal(err)
	}
	set.Measure(5 * time.Millisecond)
	return state, func(workspace any, command ...string) (string, []string, error) {
		t.Helper()
		j := job(command...)
		j.Task.Metadata, _ = json.Marshal(map[string]any{"workspace": workspace})
		exec, err := set.For(j.Agent)
		if err != nil {
			t.Fatal(err)
		}
		l := newListener()
		output, err := exec.Run(t.Context(), j, l)
		return output, l.all(), err
	}
}

// lock locks a file as a worker does that lives.
func lock(t *testing.T, name string) *os.File {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return file
}

func left(t *testing.T, state string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(state, "checkouts"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestATaskWorksInACheckoutOfItsOwnAndHandsOverWhatChanged(t *testing.T) {
	t.Parallel()
	repo := repository(t)
	state, run := checkoutRig(t, executor.CheckoutOptions{Repositories: []string{"file://" + filepath.Dir(repo) + "/"}})
	sprung := filepath.Join(t.TempDir(), "sprung")
	output, said, err := run(map[string]string{"git": "file://" + repo, "ref": "feature"}, "edit", sprung)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(said, "\n"))
	}
	if dir := strings.TrimSpace(output); dir != filepath.Join(state, "checkouts", "0190b8a1-2") {
		t.Errorf("worked in %s", dir)
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{
		"artifact changes.diff (text/x-diff): ", "-feature\n+changed\n", "+by the agent\n", "+new\n",
		"artifact commits.txt (text/plain; charset=utf-8): ", " Agent <agent@example.com>\n    Add a file\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in\n%s", want, all)
		}
	}
	if strings.Contains(all, "Author") {
		t.Errorf("commits from before are handed over\n%s", all)
	}
	if _, err := os.Lstat(sprung); err == nil {
		t.Error("a program of the agent's making was run by git")
	}
	if names := left(t, state); len(names) > 0 {
		t.Errorf("left are %v", names)
	}
	if text, err := os.ReadFile(filepath.Join(repo, "README.md")); err != nil || string(text) != "first\n" {
		t.Errorf("the repository itself holds %q, %v", text, err)
	}
}

func TestARefIsABranchATagOrACommit(t *testing.T) {
	t.Parallel()
	repo := repository(t)
	_, run := checkoutRig(t, executor.CheckoutOptions{Repositories: []string{"file://" + repo}})
	commit, err := exec.Command("git", "-C", repo, "rev-parse", "feature").Output()
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{"": "first\n", "main": "first\n", "v1": "first\n", "feature": "feature\n", strings.TrimSpace(string(commit)): "feature\n"} {
		output, said, err := run(map[string]string{"git": "file://" + repo, "ref": ref}, "print", "README.md")
		if err != nil || output != want {
			t.Errorf("%q: %q, %v, said %q", ref, output, err, said)
		}
		if slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "artifact") }) {
			t.Errorf("nothing has changed, and %q", said)
		}
	}
	_, _, err = run(map[string]string{"git": "file://" + repo, "ref": "nowhere"}, "print", "README.md")
	if f := failure(t, err); !strings.Contains(f.Message, "git fetch: exit status 128") || !strings.Contains(f.Message, "nowhere") {
		t.Errorf("a ref that is not there: %+v", f)
	}
}

func TestOnlyListedRepositoriesAreCheckedOut(t *testing.T) {
	t.Parallel()
	state, run := checkoutRig(t, executor.CheckoutOptions{Repositories: []string{"https://code.example/team/", "ssh://git@code.example/one.git", "ext://"}})
	plain := func(s string) string {
		return fmt.Sprintf("metadata.workspace.git: %q is no plain address of a repository, like https://host/path", s)
	}
	for address, want := range map[string]string{
		"https://code.example/other/x":        "this worker may not check out https://code.example/other/x: it is not within CODERCLAW_WORKSPACE_REPOSITORIES",
		"https://code.example/teamster/x":     "this worker may not check out https://code.example/teamster/x: it is not within CODERCLAW_WORKSPACE_REPOSITORIES",
		"ssh://git@code.example/one.git/two":  "this worker may not check out ssh://git@code.example/one.git/two: it is not within CODERCLAW_WORKSPACE_REPOSITORIES",
		"file:///etc":                         "this worker may not check out file:///etc: it is not within CODERCLAW_WORKSPACE_REPOSITORIES",
		"ext://sh/x":                          "this worker may not check out ext://sh/x: it is not within CODERCLAW_WORKSPACE_REPOSITORIES",
		"https://code.example/team/../x":      plain("https://code.example/team/../x"),
		"https://code.example/team/%2e%2e/x":  plain("https://code.example/team/%2e%2e/x"),
		"https://code.example/team/x?a=b":     plain("https://code.example/team/x?a=b"),
		"--upload-pack=touch x":               plain("--upload-pack=touch x"),
		"git@code.example:team/x":             plain("git@code.example:team/x"),
		"ext::sh -c whoami":                   plain("ext::sh -c whoami"),
		"":                                    plain(""),
		"https://me:pass@code.example/team/x": "metadata.workspace.git must not hold a user or password",
		"ssh://-oProxyCommand=x/y":            "metadata.workspace.git: a host or user begins with a dash",
	} {
		_, _, err := run(map[string]string{"git": address}, "say", "no")
		if f := failure(t, err); f.Message != want || f.Retryable {
			t.Errorf("%s: %+v, want %q", address, f, want)
		}
	}
	for ref, want := range map[string]bool{"--output=x": true, "a..b": true, "a b": true, "HEAD^": true} {
		_, _, err := run(map[string]string{"git": "https://code.example/team/x", "ref": ref}, "say", "no")
		if f := failure(t, err); strings.HasPrefix(f.Message, "metadata.workspace.ref:") != want {
			t.Errorf("%s: %+v", ref, f)
		}
	}
	_, _, err := run("https://code.example/team/x", "say", "no")
	if f := failure(t, err); f.Message != `metadata.workspace must be an object {"git": address, "ref": name}` {
		t.Errorf("a workspace that is text: %+v", f)
	}
	if names := left(t, state); len(names) > 0 {
		t.Errorf("left are %v", names)
	}
	_, none := checkoutRig(t, executor.CheckoutOptions{})
	_, _, err = none(map[string]string{"git": "https://code.example/team/x"}, "say", "no")
	if f := failure(t, err); !strings.HasPrefix(f.Message, "this worker checks nothing out") {
		t.Errorf("without a list: %+v", f)
	}
}

func TestACheckoutIsRemovedAsConfigured(t *testing.T) {
	t.Parallel()
	repo := repository(t)
	for _, c := range []struct {
		cleanup executor.Cleanup
		command []string
		kept    bool
	}{
		{executor.CleanupAlways, []string{"say", "yes"}, false},
		{executor.CleanupAlways, []string{"fail", "1"}, false},
		{executor.CleanupOnSuccess, []string{"say", "yes"}, false},
		{executor.CleanupOnSuccess, []string{"fail", "1"}, true},
		{executor.CleanupNever, []string{"say", "yes"}, true},
	} {
		state, run := checkoutRig(t, executor.CheckoutOptions{Repositories: []string{"file://" + repo}, Cleanup: c.cleanup})
		_, said, _ := run(map[string]string{"git": "file://" + repo}, c.command...)
		if names := left(t, state); slices.Equal(names, []string{"0190b8a1-2"}) != c.kept || len(names) > 1 {
			t.Errorf("%s, %v: left are %v", c.cleanup, c.command, names)
		}
		if kept := strings.HasPrefix(said[len(said)-1], "note: the checkout is kept"); kept != c.kept {
			t.Errorf("%s, %v: said %q", c.cleanup, c.command, said)
		}
	}
}

func TestACheckoutThatGrowsTooLargeEndsTheAttempt(t *testing.T) {
	t.Parallel()
	repo := repository(t)
	state, run := checkoutRig(t, executor.CheckoutOptions{Repositories: []string{"file://" + repo}, Quota: 8 << 20})
	_, _, err := run(map[string]string{"git": "file://" + repo}, "grow")
	if f := failure(t, err); f.Message != "disk quota exceeded" || f.Retryable {
		t.Errorf("%+v", f)
	}
	if names := left(t, state); len(names) > 0 {
		t.Errorf("left are %v", names)
	}
}

func TestCheckoutsOfAKilledWorkerAreRemovedAndThoseInUseAreNot(t *testing.T) {
	t.Parallel()
	repo := repository(t)
	state, run := checkoutRig(t, executor.CheckoutOptions{Repositories: []string{"file://" + repo}})
	abandoned := filepath.Join(state, "checkouts", "0190aaaa-1")
	if err := os.MkdirAll(filepath.Join(abandoned, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(abandoned+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(state, "checkouts", "0190bbbb-1")
	if err := os.Mkdir(used, 0o755); err != nil {
		t.Fatal(err)
	}
	other := lock(t, used+".lock")
	defer other.Close()
	if _, _, err := run(map[string]string{"git": "file://" + repo}, "say", "yes"); err != nil {
		t.Fatal(err)
	}
	if names := left(t, state); !slices.Equal(names, []string{"0190bbbb-1", "0190bbbb-1.lock"}) {
		t.Errorf("left are %v", names)
	}
}

func TestATaskWithoutAWorkspaceWorksInTheRoot(t *testing.T) {
	t.Parallel()
	state, run := checkoutRig(t, executor.CheckoutOptions{})
	if output, _, err := run(nil, "say", "yes"); err != nil || output != "yes\n" {
		t.Errorf("%q, %v", output, err)
	}
	if names := left(t, state); len(names) > 0 {
		t.Errorf("left are %v", names)
	}
}
