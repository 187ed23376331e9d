package survey

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// How much each part of the report shows.
const (
	maxLanguages    = 25
	maxPackages     = 60
	maxNamed        = 12 // names in one cell
	maxLargest      = 15
	maxChanged      = 20
	maxDependencies = 40 // of one manifest
	maxManifests    = 30
	maxUntested     = 20
	maxDiagram      = 18 // boxes
	maxEntryPoints  = 20
)

// report writes down what was found.
func (f *findings) report(title string, r Request) string {
	var d document
	d.WriteString("# Survey of " + plain(title, 100) + "\n\n")
	if r.Preface != "" {
		d.paragraph("%s", r.Preface)
	}
	if r.Description != "" || r.Input != "" {
		d.paragraph("Asked:")
		d.quote(strings.TrimSpace(r.Description), 2000)
		if input := strings.TrimSpace(r.Input); input != "" && input != strings.TrimSpace(r.Description) {
			d.quote(input, 2000)
		}
	}
	f.summary(&d)
	f.observations(&d)
	f.languages(&d)
	f.structure(&d)
	f.largest(&d)
	f.mostChanged(&d)
	f.dependencies(&d)
	f.testing(&d)
	f.remarks(&d)
	f.limits(&d)
	return strings.ReplaceAll(d.String(), "\n\n\n", "\n\n")
}

type languageSum struct {
	name                 string
	kind                 kind
	files                int
	code, comment, blank int
}

// sums adds up the lines by language, most code first; prose and data follow.
func (t *tree) sums() (all []languageSum, total languageSum) {
	by := map[string]*languageSum{}
	for _, f := range t.files {
		if f.lang == nil || f.generated || f.binary || f.lines() == 0 {
			continue
		}
		s := by[f.lang.name]
		if s == nil {
			s = &languageSum{name: f.lang.name, kind: f.lang.kind}
			by[f.lang.name] = s
		}
		for _, s := range []*languageSum{s, &total} {
			s.files++
			s.code += f.code
			s.comment += f.comment
			s.blank += f.blank
		}
	}
	for _, s := range by {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b languageSum) int {
		return cmp.Or(cmp.Compare(a.kind.rank(), b.kind.rank()), cmp.Compare(b.code, a.code), cmp.Compare(a.name, b.name))
	})
	return all, total
}

func (f *findings) summary(d *document) {
	d.heading("In short")
	all, _ := f.tree.sums()
	code := 0
	var main []string
	for _, s := range all {
		if s.kind == program {
			code += s.code
		}
	}
	for _, s := range all {
		if s.kind == program && len(main) < 3 && 100*s.code >= 5*code {
			main = append(main, fmt.Sprintf("%s %.0f %%", s.name, 100*float64(s.code)/float64(code)))
		}
	}
	line := count(len(f.tree.files), "file", "files")
	if code > 0 {
		line += fmt.Sprintf(", %s of code (%s) in %s", count(code, "line", "lines"), strings.Join(main, ", "),
			count(len(f.graph.nodes), "directory", "directories"))
	}
	d.item("%s.", line)
	if n := f.graph.edges(); n > 0 {
		d.item("%s between directories, %s.", count(n, "import", "imports"), count(len(f.graph.cycles), "cycle", "cycles"))
	}
	sources, tested, tests := 0, 0, 0
	for _, c := range f.tests.byLanguage {
		sources, tested, tests = sources+c.sources, tested+c.tested, tests+c.tests
	}
	if sources > 0 {
		d.item("%s of source files have tests beside them (%s).", percent(tested, sources), count(tests, "test file", "test files"))
	}
	direct := map[string]bool{}
	for _, m := range f.tree.manifests {
		for _, dep := range m.deps {
			if dep.use == "" {
				direct[m.kind+" "+dep.name] = true
			}
		}
	}
	if len(f.tree.manifests) > 0 {
		d.item("%s declared in %s.", count(len(direct), "direct dependency", "direct dependencies"), count(len(f.tree.manifests), "manifest", "manifests"))
	}
	if h := f.history; h.missing == "" && h.commits > 0 {
		d.item("%s by %s, the last on %s.", atLeast(h.partial, count(h.commits, "commit", "commits")),
			count(len(h.authors), "author", "authors"), h.last.Format("2 January 2006"))
	}
	todos := 0
	for _, n := range f.tree.todoCount {
		todos += n
	}
	if todos > 0 {
		d.item("%s that something remains to be done.", count(todos, "remark", "remarks"))
	}
}

func atLeast(partial bool, s string) string {
	if partial {
		return "at least " + s
	}
	return s
}

func (f *findings) languages(d *document) {
	d.heading("Languages")
	all, total := f.tree.sums()
	if len(all) == 0 {
		d.paragraph("No file is in a language that is known here.")
		return
	}
	var rows [][]string
	for _, s := range all[:min(len(all), maxLanguages)] {
		rows = append(rows, []string{s.name, number(s.files), number(s.code), percent(s.code, total.code), number(s.comment), number(s.blank)})
	}
	rows = append(rows, []string{"**all**", number(total.files), number(total.code), "", number(total.comment), number(total.blank)})
	d.table([]string{"language", "files:", "code:", "share:", "comment:", "blank:"}, rows)
	generated := 0
	for _, file := range f.tree.files {
		if file.generated {
			generated++
		}
	}
	if generated > 0 {
		d.paragraph("Not counted, because a tool wrote them: %s.", count(generated, "file", "files"))
	}
}

func (f *findings) largest(d *document) {
	d.heading("Largest files")
	files := slices.DeleteFunc(slices.Clone(f.tree.files), func(f *file) bool { return !f.source() })
	slices.SortStableFunc(files, func(a, b *file) int { return cmp.Compare(b.lines(), a.lines()) })
	var rows [][]string
	for _, file := range files[:min(len(files), maxLargest)] {
		rows = append(rows, []string{code(file.path), number(file.lines()), number(file.code), file.lang.name})
	}
	if rows == nil {
		d.paragraph("There is no source file.")
		return
	}
	d.table([]string{"file", "lines:", "code:", "language"}, rows)
}

func (f *findings) mostChanged(d *document) {
	d.heading("Most changed files")
	h := f.history
	if h.missing != "" || h.commits == 0 {
		d.paragraph("Not known: %s.", cmp.Or(h.missing, "no commit has changed anything here"))
		return
	}
	d.paragraph("%s without merges, %s to %s.", atLeast(h.partial, count(h.commits, "commit", "commits")),
		h.first.Format("2 January 2006"), h.last.Format("2 January 2006"))
	var rows [][]string
	for _, file := range f.changed() {
		if len(rows) == maxChanged {
			break
		}
		c := h.changes[file.path]
		rows = append(rows, []string{code(file.path), number(c.commits), number(len(c.authors)), number(file.lines()), c.last.Format("2006-01-02")})
	}
	if rows != nil {
		d.table([]string{"file", "commits:", "authors:", "lines:", "last"}, rows)
	}
}

// changed returns the files that are still there and that somebody wrote, most
// changed first.
func (f *findings) changed() []*file {
	files := slices.DeleteFunc(slices.Clone(f.tree.files), func(file *file) bool {
		return f.history.changes[file.path] == nil || file.lang == nil || file.generated || file.lang.kind == data
	})
	slices.SortStableFunc(files, func(a, b *file) int {
		return cmp.Compare(f.history.changes[b.path].commits, f.history.changes[a.path].commits)
	})
	return files
}

func (f *findings) testing(d *document) {
	d.heading("Tests beside code")
	if len(f.tests.byLanguage) == 0 {
		d.paragraph("There is no source file in a language whose tests are recognised here.")
		return
	}
	var rows [][]string
	for _, c := range f.tests.byLanguage {
		rows = append(rows, []string{c.language, number(c.sources), number(c.tested), percent(c.tested, c.sources),
			number(c.tests), fmt.Sprintf("%.2f", float64(c.testCode)/float64(max(c.code, 1)))})
	}
	d.table([]string{"language", "source files:", "with tests:", "share:", "test files:", "test lines per line of code:"}, rows)
	if len(f.tests.untested) > 0 {
		d.paragraph("Directories without tests, most code first:")
		for _, u := range f.tests.untested[:min(len(f.tests.untested), maxUntested)] {
			d.item("%s, %s of code", code(u.dir), count(u.code, "line", "lines"))
		}
		if more := len(f.tests.untested) - maxUntested; more > 0 {
			d.item("%d more", more)
		}
	}
}

func (f *findings) remarks(d *document) {
	d.heading("Left to do, as the code says")
	if len(f.tree.todos) == 0 {
		d.paragraph("Nothing.")
		return
	}
	var sums []string
	total := 0
	for _, word := range slices.Sorted(maps.Keys(f.tree.todoCount)) {
		sums = append(sums, fmt.Sprintf("%s %d", word, f.tree.todoCount[word]))
		total += f.tree.todoCount[word]
	}
	d.paragraph("%s.", strings.Join(sums, ", "))
	for _, t := range f.tree.todos {
		d.item("%s %s %s", code(fmt.Sprintf("%s:%d", t.path, t.line)), t.word, plain(t.text, 160))
	}
	if more := total - len(f.tree.todos); more > 0 {
		d.item("%d more", more)
	}
}

// limits says what the survey did not see.
func (f *findings) limits(d *document) {
	var notes []string
	t := f.tree
	if t.partial {
		notes = append(notes, fmt.Sprintf("the tree is larger than a survey can be, and parts of it are missing here: the limits are %s files, %s entries of directories and %d levels",
			number(usual.files), number(usual.entries), usual.depth))
	}
	if t.tooLarge > 0 {
		notes = append(notes, count(t.tooLarge, "file is", "files are")+" larger than "+size(maxFileSize)+" and unread")
	}
	if t.links > 0 {
		notes = append(notes, count(t.links, "symbolic link was", "symbolic links were")+" not followed")
	}
	if t.unread > 0 {
		notes = append(notes, count(t.unread, "file or directory", "files or directories")+" could not be read")
	}
	d.heading("How this was made")
	d.paragraph("By reading files: Go imports with Go's own parser, those of other languages line by line, tests by the names of their files. " +
		"Directories of others' code and of build results were left out.")
	for _, n := range notes {
		d.item("%s", n)
	}
}
