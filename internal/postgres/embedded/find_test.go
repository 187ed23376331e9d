package embedded

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChooseTakesTheFirstThatWillDo(t *testing.T) {
	t.Parallel()
	v13, v15, v17 := installed(t, "13.9"), installed(t, "15.18 (Debian 15.18-0+deb12u1)"), installed(t, "17rc1")
	for _, tc := range []struct {
		dirs   []string
		major  int // of the data, 0 if there is none yet
		want   string
		reason string // of an error
	}{
		{dirs: []string{v15, v17}, want: v15},
		{dirs: []string{v13, v17}, want: v17},
		{dirs: []string{v15, v17}, major: 17, want: v17},
		{dirs: []string{v13, v15}, major: 13, want: v13},
		{dirs: []string{v13}, reason: "PostgreSQL 14 or later is needed, found is 13 in " + v13},
		{dirs: []string{v15, v17}, major: 16, reason: "the data directory is of PostgreSQL 16, but installed is 15 in " + v15 + ", 17 in " + v17},
		{reason: "PostgreSQL is not installed (initdb and postgres not found)"},
		{major: 16, reason: "the data directory is of PostgreSQL 16, which is not installed"},
	} {
		got, err := choose(t.Context(), tc.dirs, "", tc.major)
		if got.BinDir != tc.want {
			t.Errorf("choose(%v, data of %d) = %q; want %q", tc.dirs, tc.major, got.BinDir, tc.want)
		}
		if (err == nil) != (tc.reason == "") || err != nil && (!strings.HasPrefix(err.Error(), tc.reason) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("choose(%v, data of %d): %v; want one line beginning %q", tc.dirs, tc.major, err, tc.reason)
		}
	}
}

func TestLinkOnThePathLeadsToBothPrograms(t *testing.T) {
	dir, path := installed(t, "15.18"), t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "postgres"), filepath.Join(path, "postgres")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path)
	if got := places(t.Context(), ""); !slices.Contains(got, dir) {
		t.Errorf("found %v; want %s, where the link on the PATH leads", got, dir)
	}
}

func TestDirectoryThatWasAskedForIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	dir := installed(t, "16.1")
	if got, err := Find(t.Context(), dir); err != nil || got != (Installation{dir, 16}) {
		t.Errorf("Find = %v, %v; want 16 in %s", got, err, dir)
	}
	empty := t.TempDir()
	if _, err := Find(t.Context(), empty); err == nil || !strings.HasPrefix(err.Error(), empty+" does not hold") {
		t.Errorf("Find in an empty directory: %v", err)
	}
}

// installed returns a directory with programs that call themselves PostgreSQL
// of that version.
func installed(t *testing.T, version string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"initdb", "postgres"} {
		script := "#!/bin/sh\necho '" + program + " (PostgreSQL) " + version + "'\n"
		// By a child: a program that this process has written to is busy for as
		// long as any child forked meanwhile has not come to its own exec.
		cmd := exec.Command("sh", "-c", `cat >"$0" && chmod +x "$0"`, filepath.Join(dir, program))
		cmd.Stdin = strings.NewReader(script)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
