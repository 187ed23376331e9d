package survey

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
)

const (
	maxFiles    = 50_000
	maxFileSize = 2 << 20
)

// limits bound what is looked at.
type limits struct{ files, entries, depth int }

var usual = limits{files: maxFiles, entries: 4 * maxFiles, depth: 64}

// tree is a directory with what was found in it. Paths have slashes and are
// relative to it.
type tree struct {
	files []*file // by path
	dirs  map[string]bool

	imports  int
	partial  bool // there is more than was looked at
	links    int  // symbolic links, not followed
	tooLarge int
	unread   int

	manifests []manifest
	todoCount map[string]int // by word
	todos     []todo
	mains     []string // files where programs start
}

// file is a regular file and, once read, what is in it.
type file struct {
	path string
	size int64
	lang *language // nil: of no language that is known here

	code, comment, blank int // lines
	generated            bool
	binary               bool
	test                 bool
	inlineTests          bool
	pkg                  string   // what it says its package is
	imports              []string // as written
}

func (f *file) lines() int { return f.code + f.comment + f.blank }

// source reports whether somebody wrote f as a program.
func (f *file) source() bool {
	return f.lang != nil && f.lang.kind == program && !f.generated && !f.binary
}

// skipped are directories that hold what others wrote, or machines.
var skipped = map[string]bool{
	".git": true, ".hg": true, ".svn": true, ".jj": true,
	"node_modules": true, "bower_components": true, "vendor": true, "dist": true,
	".venv": true, "venv": true, "__pycache__": true, ".tox": true, ".mypy_cache": true, ".pytest_cache": true,
	".gradle": true, ".next": true, ".nuxt": true, ".terraform": true, ".cache": true, ".idea": true,
}

// built are directories that hold what a tool made, if its file lies beside.
var built = map[string][]string{
	"target": {"Cargo.toml", "pom.xml"},
	"build":  {"build.gradle", "build.gradle.kts", "package.json", "CMakeLists.txt"},
	"out":    {"package.json", "build.gradle", "build.gradle.kts"},
}

// walk lists the files under root, in the same order each time.
func walk(ctx context.Context, root *os.Root, most limits) (*tree, error) {
	t := &tree{dirs: map[string]bool{}, todoCount: map[string]int{}}
	w := walker{ctx: ctx, root: root, tree: t, most: most}
	if err := w.dir(".", 0); err != nil {
		return nil, err
	}
	slices.SortFunc(t.files, func(a, b *file) int { return cmp.Compare(a.path, b.path) })
	return t, nil
}

type walker struct {
	ctx  context.Context
	root *os.Root
	tree *tree
	most limits // entries: that may still be looked at
}

func (w *walker) dir(name string, depth int) error {
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if depth > w.most.depth || w.most.entries <= 0 {
		w.tree.partial = true
		return nil
	}
	d, err := w.root.Open(name)
	if err != nil {
		if depth == 0 {
			return err
		}
		w.tree.unread++
		return nil
	}
	// As many as may be looked at, and one to know that there are more.
	entries, err := d.ReadDir(w.most.entries + 1)
	d.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		w.tree.unread++
	}
	if len(entries) > w.most.entries {
		w.tree.partial = true
		entries = entries[:w.most.entries]
	}
	w.most.entries -= len(entries)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	w.tree.dirs[name] = true
	for _, e := range entries {
		at := path.Join(name, e.Name())
		switch {
		case e.IsDir():
			if skip(e.Name(), entries) {
				continue
			}
			if err := w.dir(at, depth+1); err != nil {
				return err
			}
		case e.Type()&fs.ModeSymlink != 0:
			w.tree.links++
		case e.Type().IsRegular():
			w.add(at)
		}
	}
	return nil
}

func skip(name string, siblings []fs.DirEntry) bool {
	if skipped[name] {
		return true
	}
	for _, tool := range built[name] {
		if slices.ContainsFunc(siblings, func(e fs.DirEntry) bool { return e.Name() == tool }) {
			return true
		}
	}
	return false
}

func (w *walker) add(name string) {
	if len(w.tree.files) >= w.most.files {
		w.tree.partial = true
		return
	}
	info, err := w.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		w.tree.unread++
		return
	}
	w.tree.files = append(w.tree.files, &file{path: name, size: info.Size()})
}

// read takes in what is in f.
func (t *tree) read(root *os.Root, f *file) {
	f.lang = languageOf(f.path)
	isManifest := manifestKind(f.path) != ""
	script := f.lang == nil && path.Ext(f.path) == "" && f.size < 64<<10
	if f.lang == nil && !isManifest && !script {
		return
	}
	if f.size > maxFileSize {
		t.tooLarge++
		return
	}
	data, err := contents(root, f.path)
	if err != nil {
		t.unread++
		return
	}
	if bytes.IndexByte(data[:min(len(data), 8000)], 0) >= 0 {
		f.binary = true
		return
	}
	if script {
		if f.lang = interpreterOf(data); f.lang == nil && !isManifest {
			return
		}
	}
	if isManifest {
		t.readManifest(f, data)
	}
	if f.lang == nil {
		return
	}
	f.generated = generated(f.path, data)
	t.countLines(f, data)
	if f.source() {
		f.test = isTest(f.path)
		f.readImports(data)
		if t.imports += len(f.imports); t.imports > maxAllImports {
			t.partial = true
			f.imports = nil
		}
		if starts(f, data) {
			t.mains = append(t.mains, f.path)
		}
	}
}

// contents reads a file that was a regular one of an acceptable size when last
// looked at, and fails if it no longer is.
func contents(root *os.Root, name string) ([]byte, error) {
	// A named pipe that took its place would not open without O_NONBLOCK.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		return nil, fs.ErrInvalid
	}
	return data, err
}
