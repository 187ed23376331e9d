package survey_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository is a directory under version control.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T, dir string) repository {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := repository{t, dir}
	r.git("init", "--quiet", "--initial-branch=main")
	return r
}

func (r repository) git(args ...string) string {
	r.t.Helper()
	return r.run(nil, args...)
}

func (r repository) run(env []string, args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes the files and commits them, on that day of November 2025.
func (r repository) commit(author, day string, changed files) {
	r.t.Helper()
	add(r.t, r.dir, changed)
	r.git("add", "--all")
	when := "2025-11-" + day + "T12:00:00Z"
	r.run([]string{"GIT_AUTHOR_DATE=" + when, "GIT_COMMITTER_DATE=" + when},
		"-c", "user.name="+author, "-c", "user.email=x@example.com", "commit", "--quiet", "--message=change")
}

func TestMostChangedFilesComeFromTheHistory(t *testing.T) {
	t.Parallel()
	workspace := t.TempDir()
	r := newRepository(t, workspace)
	r.commit("Ann", "01", files{"a.go": "package a\n", "sub/b.go": "package b\n", "sub/weird\nname.go": "package b\n", "gone.go": "package a\n"})
	r.commit("Bob", "02", files{"sub/b.go": "package b\n\nvar X = 1\n"})
	r.commit("Ann", "03", files{"sub/b.go": "package b\n\nvar X = 2\n", "a.go": "package a\n\nvar X = 1\n"})
	r.git("rm", "--quiet", "gone.go")
	r.commit("Cy", "04", nil)

	text := report(t, workspace, ".")
	has(t, section(t, text, "In short"), "4 commits by 3 authors, the last on 4 November 2025.")
	changed := section(t, text, "Most changed files")
	has(t, changed, "4 commits without merges, 1 November 2025 to 4 November 2025.")
	var got []string
	for _, row := range cells(changed) {
		got = append(got, strings.Join(row, " "))
	}
	want := []string{"`sub/b.go` 3 2 3 2025-11-03", "`a.go` 2 1 3 2025-11-03", "`sub/weird\uFFFDname.go` 1 1 1 2025-11-01"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("most changed are %q, want %q", got, want)
	}

	part := section(t, report(t, workspace, "sub"), "Most changed files")
	has(t, part, "| `b.go` | 3 | 2 | 3 | 2025-11-03 |")
	hasNot(t, part, "a.go")
}

func TestARepositoryThatLeadsOutOfTheWorkspaceHasNoHistory(t *testing.T) {
	t.Parallel()
	for name, lead := range map[string]func(t *testing.T, repo string, outside string){
		"the whole of it is a link": func(t *testing.T, repo, outside string) {
			move(t, filepath.Join(repo, ".git"), filepath.Join(outside, "git"))
			link(t, filepath.Join(outside, "git"), filepath.Join(repo, ".git"))
		},
		"a file names another place": func(t *testing.T, repo, outside string) {
			move(t, filepath.Join(repo, ".git"), filepath.Join(outside, "git"))
			add(t, repo, files{".git": "gitdir: " + filepath.Join(outside, "git") + "\n"})
		},
		"its objects are a link": func(t *testing.T, repo, outside string) {
			move(t, filepath.Join(repo, ".git/objects"), filepath.Join(outside, "objects"))
			link(t, filepath.Join(outside, "objects"), filepath.Join(repo, ".git/objects"))
		},
		"it borrows objects": func(t *testing.T, repo, outside string) {
			move(t, filepath.Join(repo, ".git/objects"), filepath.Join(outside, "objects"))
			add(t, repo, files{".git/objects/info/alternates": filepath.Join(outside, "objects") + "\n"})
		},
		"it is a part of another": func(t *testing.T, repo, outside string) {
			move(t, filepath.Join(repo, ".git"), filepath.Join(outside, "git"))
			add(t, repo, files{".git/commondir": filepath.Join(outside, "git") + "\n", ".git/HEAD": "ref: refs/heads/main\n", ".git/objects/x": "", ".git/refs/x": ""})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo, outside := t.TempDir(), t.TempDir()
			r := newRepository(t, repo)
			r.commit("Ann", "01", files{"a.go": "package a\n"})
			has(t, report(t, repo, "."), "1 commit by 1 author")
			lead(t, repo, outside)
			r.git("log") // git itself would follow
			has(t, report(t, repo, "."), "Not known: there is no git repository here that stays inside the workspace.")
		})
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, at string) {
	t.Helper()
	if err := os.Symlink(target, at); err != nil {
		t.Fatal(err)
	}
}

func TestARepositoryAboveTheWorkspaceIsNotRead(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	newRepository(t, outer).commit("Ann", "01", files{"inner/a.go": "package a\n"})
	has(t, report(t, filepath.Join(outer, "inner"), "."), "Not known: there is no git repository here")
}

func TestAHostileRepositoryRunsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	marker := filepath.Join(t.TempDir(), "ran")
	r := newRepository(t, dir)
	r.commit("Ann", "01", files{"a.go": "package a\n"})
	r.commit("Ann", "02", files{"a.go": "package a\n\nvar X = 1\n", ".gitattributes": "* diff=evil filter=evil\n"})
	program := filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntouch "+marker+"\ncat >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, setting := range [][2]string{
		{"core.fsmonitor", program}, {"core.pager", program}, {"pager.log", program}, {"core.hooksPath", filepath.Dir(program)},
		{"diff.external", program}, {"diff.evil.textconv", program}, {"diff.evil.command", program}, {"filter.evil.clean", program},
		{"log.showSignature", "true"}, {"gpg.program", program}, {"alias.log", "!" + program}, {"core.sshCommand", program},
		{"core.worktree", "/"}, {"credential.helper", program},
	} {
		r.git("config", setting[0], setting[1])
	}
	// A signature that is there to be checked.
	signed := strings.Replace(r.git("cat-file", "commit", "HEAD"), "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n", 1)
	add(t, dir, files{".git/signed": signed + "\n"})
	commit := r.git("hash-object", "-t", "commit", "-w", ".git/signed")
	r.git("update-ref", "HEAD", commit)

	r.git("log", "--name-only")
	if _, err := os.Stat(marker); err != nil {
		t.Fatal("git itself runs nothing here: the test proves nothing")
	}
	os.Remove(marker)

	has(t, section(t, report(t, dir, "."), "Most changed files"), "| `a.go` | 2 |")
	if _, err := os.Stat(marker); err == nil {
		t.Error("the survey ran a program of the repository")
	}
}

func TestAHostileRepositoryFetchesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	marker := filepath.Join(t.TempDir(), "ran")
	r := newRepository(t, dir)
	r.commit("Ann", "01", files{"a.go": "package a\n"})
	tree := r.git("rev-parse", "HEAD^{tree}")
	for _, setting := range [][2]string{
		{"core.repositoryFormatVersion", "1"}, {"extensions.partialClone", "evil"}, {"remote.evil.promisor", "true"},
		{"remote.evil.url", "ext::sh -c touch% " + marker}, {"protocol.allow", "always"}, {"protocol.ext.allow", "always"},
	} {
		r.git("config", setting[0], setting[1])
	}
	if err := os.Remove(filepath.Join(dir, ".git/objects", tree[:2], tree[2:])); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(t.Context(), "git", "log", "--name-only")
	cmd.Dir = dir
	cmd.Run() // it fails, for the fetch does
	if _, err := os.Stat(marker); err != nil {
		t.Skip("this git does not fetch what a partial clone lacks")
	}
	os.Remove(marker)

	report(t, dir, ".")
	if _, err := os.Stat(marker); err == nil {
		t.Error("the survey fetched from the repository's remote")
	}
}

func TestASurveyNeedsNoGit(t *testing.T) {
	workspace := t.TempDir()
	newRepository(t, workspace).commit("Ann", "01", files{"a.go": "package a\n"})
	t.Setenv("PATH", t.TempDir())
	has(t, report(t, workspace, "."), "Not known: git is not installed.", "1 file, 1 line of code")
}
