package survey

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Where something becomes worth a remark.
const (
	longFile      = 1000 // lines
	busyFile      = 400  // lines, of a file that changes often
	busyShare     = 0.10 // of all commits
	fewCommits    = 20   // too few to say what changes often
	muchUntested  = 100  // lines of code
	manyImporters = 8
	manyImports   = 12
	largeBlob     = 5 << 20 // bytes
	manyRemarks   = 25
	shown         = 5 // of each sort
)

// observations writes what would be worth acting on, gravest first.
func (f *findings) observations(d *document) {
	d.heading("Worth acting on")
	var all []string
	for _, find := range []func() []string{
		f.cycles, f.untestedCore, f.longFiles, f.busyFiles, f.untestedDirectories, f.hubs, f.blobs, f.leftToDo, f.missing,
	} {
		found := find()
		if more := len(found) - shown; more > 0 {
			found = found[:shown]
			found[shown-1] += fmt.Sprintf(" (And %d more like these.)", more)
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		d.paragraph("Nothing stands out.")
		return
	}
	for i, text := range all {
		fmt.Fprintf(d, "%d. %s\n", i+1, text)
	}
}

func (f *findings) cycles() []string {
	var found []string
	for _, c := range f.graph.cycles {
		var way []string
		for _, dir := range f.graph.shortestCycle(c) {
			way = append(way, code(dir))
		}
		if len(way) > maxNamed {
			way = append(way[:maxNamed], "…")
		}
		found = append(found, fmt.Sprintf("**Import cycle**: %s depend on each other (%s), so that none can be understood, tested or moved alone. Move what they share into a directory of its own, or turn one import round with an interface.",
			named(c), strings.Join(way, " → ")))
	}
	return found
}

// untestedCore finds directories that many others rely on and that have no tests.
func (f *findings) untestedCore() []string {
	var nodes []*node
	for _, u := range f.tests.untested {
		if n := f.graph.nodes[u.dir]; n != nil && len(n.imported) >= 3 && u.code >= 30 {
			nodes = append(nodes, n)
		}
	}
	slices.SortStableFunc(nodes, func(a, b *node) int { return cmp.Compare(len(b.imported), len(a.imported)) })
	var found []string
	for _, n := range nodes {
		found = append(found, fmt.Sprintf("**Untested foundation**: %s is imported by %d directories and has no test beside it (%s of code). A mistake here shows up everywhere: test it first.",
			code(n.dir), len(n.imported), count(n.code, "line", "lines")))
	}
	return found
}

func (f *findings) longFiles() []string {
	files := slices.DeleteFunc(slices.Clone(f.tree.files), func(file *file) bool {
		return !file.source() || file.test || file.lines() <= longFile
	})
	slices.SortStableFunc(files, func(a, b *file) int { return cmp.Compare(b.lines(), a.lines()) })
	var found []string
	for _, file := range files {
		found = append(found, fmt.Sprintf("**Long file**: %s has %s. Split it by subject.", code(file.path), count(file.lines(), "line", "lines")))
	}
	return found
}

// busyFiles finds files that are long and change all the time.
func (f *findings) busyFiles() []string {
	if f.history.commits < fewCommits {
		return nil
	}
	var found []string
	for _, file := range f.changed() {
		c := f.history.changes[file.path]
		if !file.source() || file.lines() < busyFile || float64(c.commits) < busyShare*float64(f.history.commits) {
			continue
		}
		found = append(found, fmt.Sprintf("**Everybody's file**: %s changed in %d of %d commits and has %s. What changes for different reasons belongs in different files.",
			code(file.path), c.commits, f.history.commits, count(file.lines(), "line", "lines")))
	}
	return found
}

func (f *findings) untestedDirectories() []string {
	var found []string
	for _, u := range f.tests.untested {
		if n := f.graph.nodes[u.dir]; u.code < muchUntested || n != nil && len(n.imported) >= 3 && u.code >= 30 {
			continue
		}
		found = append(found, fmt.Sprintf("**No tests**: %s has %s of code and no test beside it.", code(u.dir), count(u.code, "line", "lines")))
	}
	return found
}

// hubs finds directories that know, or are known by, a large part of the others.
func (f *findings) hubs() []string {
	var found []string
	for _, n := range f.graph.sorted() {
		if in := len(n.imported); in >= manyImporters && 3*in >= len(f.graph.nodes) {
			found = append(found, fmt.Sprintf("**Hub**: %s is imported by %d of %d directories. Keep it small and stable; each change there touches them all.", code(n.dir), in, len(f.graph.nodes)))
		}
		if out := len(n.imports); out >= manyImports && !f.starts(n.dir) && len(n.imported) > 1 {
			found = append(found, fmt.Sprintf("**Knows too much**: %s imports %d other directories and is imported itself. Only the place that puts the program together should know so many.", code(n.dir), out))
		}
	}
	return found
}

func (f *findings) starts(dir string) bool {
	return slices.ContainsFunc(f.tree.mains, func(name string) bool { return path.Dir(name) == dir })
}

func (f *findings) blobs() []string {
	files := slices.DeleteFunc(slices.Clone(f.tree.files), func(file *file) bool { return file.size < largeBlob })
	slices.SortStableFunc(files, func(a, b *file) int { return cmp.Compare(b.size, a.size) })
	var found []string
	for _, file := range files {
		found = append(found, fmt.Sprintf("**Large file**: %s has %s. Should it be in the repository?", code(file.path), size(file.size)))
	}
	return found
}

func (f *findings) leftToDo() []string {
	total := 0
	for _, n := range f.tree.todoCount {
		total += n
	}
	if fix := f.tree.todoCount["FIXME"]; fix > 0 {
		return []string{fmt.Sprintf("**Known faults**: %s in the code. Settle or file them; they are listed below.", count(fix, "FIXME", "FIXMEs"))}
	}
	if total >= manyRemarks {
		return []string{fmt.Sprintf("**Much left to do**: %s in the code say so. Remarks without an owner grow old; they are listed below.", count(total, "remark", "remarks"))}
	}
	return nil
}

// missing finds what a repository usually has.
func (f *findings) missing() []string {
	if len(f.graph.nodes) == 0 {
		return nil
	}
	top := map[string]bool{}
	workflows := false
	locks := map[string]bool{}
	for _, file := range f.tree.files {
		dir, base := path.Split(file.path)
		if dir == "" {
			stem, _, _ := strings.Cut(base, ".")
			top[strings.ToUpper(stem)] = true
		}
		locks[path.Clean(dir)+" "+base] = true
		workflows = workflows || strings.HasPrefix(dir, ".github/workflows/") || dir == ".ci/" || dir == ".circleci/" || dir == ".buildkite/" ||
			dir == "" && (base == ".gitlab-ci.yml" || base == "Jenkinsfile" || base == ".travis.yml" || base == "azure-pipelines.yml" || base == ".drone.yml")
	}
	var found []string
	if !top["README"] {
		found = append(found, "**No README** at the top: say what this is, and how to build and run it.")
	}
	if !workflows {
		found = append(found, "**No continuous integration** was recognised: run build and tests on every change.")
	}
	for _, m := range f.tree.manifests {
		if wanted := lockFiles[m.kind]; len(m.deps) > 0 && wanted != nil && !locked(locks, path.Dir(m.path), wanted) {
			found = append(found, fmt.Sprintf("**Versions not pinned**: %s has dependencies, and no lock file (%s) lies beside or above it.", code(m.path), strings.Join(wanted, ", ")))
		}
	}
	return found
}

// lockFiles pin what the manifests of a kind leave open.
var lockFiles = map[string][]string{
	npm:      {"package-lock.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb", "npm-shrinkwrap.json"},
	cargo:    {"Cargo.lock"},
	goModule: {"go.sum"},
	composer: {"composer.lock"},
	gemfile:  {"Gemfile.lock"},
}

func locked(files map[string]bool, dir string, wanted []string) bool {
	for ; ; dir = path.Dir(dir) {
		for _, name := range wanted {
			if files[dir+" "+name] {
				return true
			}
		}
		if dir == "." {
			return false
		}
	}
}
