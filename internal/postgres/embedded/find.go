package embedded

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldest is the first PostgreSQL that will do.
const oldest = 14

// Installation is an installed PostgreSQL.
type Installation struct {
	BinDir string // holds initdb and postgres
	Major  int
}

// globs are where distributions keep PostgreSQL off the PATH.
var globs = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // PostgreSQL's own packages for Fedora, RHEL
	"/usr/lib/postgresql*/bin",  // openSUSE
	"/usr/libexec/postgresql*",  // Alpine
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// Find returns the PostgreSQL in binDir or, if that is empty, the first of
// those on the PATH, at pg_config --bindir and in the system's usual places,
// newest first. It must be version 14 or later; the error says how to get one.
func Find(ctx context.Context, binDir string) (Installation, error) {
	return choose(ctx, places(ctx, binDir), binDir, 0)
}

// find is Find for a cluster of the given major version, 0 if it is still to
// be made, and installs PostgreSQL where it is missing and opts allow.
func find(ctx context.Context, opts Options, major int) (Installation, error) {
	found, err := choose(ctx, places(ctx, opts.BinDir), opts.BinDir, major)
	if err == nil || !opts.Install || opts.BinDir != "" || major != 0 {
		return found, err
	}
	manager, ok := packageManager()
	if !ok || os.Geteuid() != 0 {
		return found, err
	}
	if err := manager.install(ctx, opts.Log); err != nil {
		return Installation{}, err
	}
	return choose(ctx, places(ctx, ""), "", 0)
}

// choose takes from dirs, best first, the PostgreSQL of the major version, or
// any that will do if that is 0.
func choose(ctx context.Context, dirs []string, binDir string, major int) (Installation, error) {
	var tooOld, others []string
	for _, dir := range dirs {
		version, err := versionAt(ctx, dir)
		switch {
		case err != nil:
		case major == 0 && version >= oldest, major != 0 && version == major:
			return Installation{BinDir: dir, Major: version}, nil
		case version < oldest:
			tooOld = append(tooOld, fmt.Sprintf("%d in %s", version, dir))
		default:
			others = append(others, fmt.Sprintf("%d in %s", version, dir))
		}
	}
	switch {
	case len(others) > 0:
		return Installation{}, fmt.Errorf("the data directory is of PostgreSQL %d, but installed is %s: install PostgreSQL %d, or move the data with pg_upgrade",
			major, strings.Join(others, ", "), major)
	case binDir != "":
		return Installation{}, fmt.Errorf("%s does not hold the programs initdb and postgres of PostgreSQL %d or later", binDir, max(oldest, major))
	case len(tooOld) > 0:
		return Installation{}, fmt.Errorf("PostgreSQL %d or later is needed, found is %s; to get one: %s",
			oldest, strings.Join(tooOld, ", "), installCommand())
	case major != 0:
		return Installation{}, fmt.Errorf("the data directory is of PostgreSQL %d, which is not installed (initdb and postgres not found); to get it: %s",
			major, installCommand())
	}
	return Installation{}, fmt.Errorf("PostgreSQL is not installed (initdb and postgres not found); to get it: %s", installCommand())
}

// places lists the directories that hold both programs, best first.
func places(ctx context.Context, binDir string) []string {
	if binDir != "" {
		return withPrograms([]string{binDir})
	}
	var dirs []string
	for _, program := range []string{"postgres", "initdb"} {
		if path, err := exec.LookPath(program); err == nil {
			// A link on the PATH: the other program stands where it leads.
			if real, err := filepath.EvalSymlinks(path); err == nil {
				dirs = append(dirs, filepath.Dir(real))
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, glob := range globs {
		matches, _ := filepath.Glob(glob)
		slices.SortFunc(matches, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
		dirs = append(dirs, matches...)
	}
	return withPrograms(dirs)
}

func withPrograms(dirs []string) []string {
	var complete []string
	for _, dir := range dirs {
		_, err1 := exec.LookPath(filepath.Join(dir, "initdb"))
		_, err2 := exec.LookPath(filepath.Join(dir, "postgres"))
		if err1 == nil && err2 == nil && !slices.Contains(complete, dir) {
			complete = append(complete, dir)
		}
	}
	return complete
}

var (
	firstNumber = regexp.MustCompile(`\d+`)
	versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)
)

// number returns the version in a path's name, 0 if it has none.
func number(path string) int {
	n, _ := strconv.Atoi(firstNumber.FindString(path))
	return n
}

// versionAt asks the server in dir for its major version.
func versionAt(ctx context.Context, dir string) (int, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	match := versionText.FindSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("%s/postgres is not PostgreSQL", dir)
	}
	return strconv.Atoi(string(match[1]))
}
