package survey

import (
	"path"
	"slices"
	"strings"
)

// resolver finds the directories that imports mean.
type resolver struct {
	files     map[string]bool
	dirs      map[string]bool
	modules   []manifest        // of Go, the longest path first
	crates    map[string]string // name in Rust to directory
	crateDirs map[string]bool
	npm       map[string]string   // name of a package to directory
	python    map[string]string   // dotted module to directory
	jvm       map[string][]string // package to directories
	sources   map[string]bool     // directories with code
}

func newResolver(t *tree) *resolver {
	r := &resolver{
		files: map[string]bool{}, dirs: t.dirs, crates: map[string]string{}, crateDirs: map[string]bool{}, npm: map[string]string{},
		python: map[string]string{}, jvm: map[string][]string{}, sources: map[string]bool{},
	}
	pythonRoots := []string{".", "src"}
	for _, m := range t.manifests {
		dir := path.Dir(m.path)
		switch {
		case m.kind == goModule && m.name != "":
			r.modules = append(r.modules, m)
		case m.kind == cargo && m.name != "":
			r.crates[strings.ReplaceAll(m.name, "-", "_")] = dir
			r.crateDirs[dir] = true
		case m.kind == npm && m.name != "":
			r.npm[m.name] = dir
		case m.kind == pyproject || m.kind == requirements:
			pythonRoots = append(pythonRoots, dir, path.Join(dir, "src"))
		}
	}
	slices.SortFunc(r.modules, func(a, b manifest) int { return len(b.name) - len(a.name) })
	for _, f := range t.files {
		if !f.source() {
			continue
		}
		r.files[f.path] = true
		dir := path.Dir(f.path)
		r.sources[dir] = true
		switch f.lang.name {
		case "Python":
			r.addPython(f.path, pythonRoots)
		case "Java", "Kotlin", "Scala":
			if f.pkg != "" && !slices.Contains(r.jvm[f.pkg], dir) {
				r.jvm[f.pkg] = append(r.jvm[f.pkg], dir)
			}
		}
	}
	return r
}

func (r *resolver) addPython(name string, roots []string) {
	for _, root := range roots {
		rel := name
		if root != "." {
			var ok bool
			if rel, ok = strings.CutPrefix(name, root+"/"); !ok {
				continue
			}
		}
		module := strings.TrimSuffix(strings.TrimSuffix(rel, path.Ext(rel)), "/__init__")
		r.python[strings.ReplaceAll(module, "/", ".")] = path.Dir(name)
	}
}

// resolve returns the directory that an import of f means, or the name of the
// package from elsewhere; neither for the standard library and what is unclear.
func (r *resolver) resolve(f *file, spec string) (dir, external string) {
	switch f.lang.name {
	case "Go":
		return r.golang(spec)
	case "JavaScript", "TypeScript", "Vue", "Svelte":
		return r.ecma(f, spec)
	case "Python":
		return r.pythonModule(f, spec)
	case "Rust":
		return r.rust(f, spec)
	case "Java", "Kotlin", "Scala":
		return r.java(spec)
	case "C", "C++":
		for _, base := range []string{path.Dir(f.path), ".", "include", "src"} {
			if at := path.Join(base, spec); r.files[at] {
				return path.Dir(at), ""
			}
		}
	}
	return "", ""
}

func (r *resolver) golang(spec string) (dir, external string) {
	for _, m := range r.modules {
		if rest, ok := strings.CutPrefix(spec, m.name); ok && (rest == "" || rest[0] == '/') {
			if at := path.Join(path.Dir(m.path), "."+rest); r.sources[at] {
				return at, ""
			}
			return "", ""
		}
	}
	first, rest, _ := strings.Cut(spec, "/")
	if !strings.Contains(first, ".") {
		return "", "" // the standard library
	}
	// Most hosts name a module by three elements.
	if parts := strings.SplitN(rest, "/", 3); len(parts) > 2 && first != "gopkg.in" {
		spec = path.Join(first, parts[0], parts[1])
	}
	return "", spec
}

var ecmaEndings = []string{"", ".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts", ".d.ts", ".vue", ".svelte"}

func (r *resolver) ecma(f *file, spec string) (dir, external string) {
	switch {
	case strings.HasPrefix(spec, "./"), strings.HasPrefix(spec, "../"), spec == ".", spec == "..":
		return r.ecmaFile(path.Join(path.Dir(f.path), spec)), ""
	case strings.HasPrefix(spec, "@/"), strings.HasPrefix(spec, "~/"): // an alias that most tools set up like this
		return r.ecmaFile(path.Join("src", spec[2:])), ""
	case strings.HasPrefix(spec, "node:"), strings.HasPrefix(spec, "/"), strings.Contains(spec, "://"):
		return "", ""
	}
	parts := strings.SplitN(spec, "/", 3)
	name := parts[0]
	if strings.HasPrefix(spec, "@") && len(parts) > 1 {
		name = path.Join(parts[0], parts[1])
	}
	if at, ok := r.npm[name]; ok {
		if to := r.ecmaFile(path.Join(at, strings.TrimPrefix(spec, name))); to != "" {
			return to, ""
		}
		for _, entry := range []string{"src", "lib", "."} {
			if to := path.Join(at, entry); r.sources[to] {
				return to, ""
			}
		}
		return "", ""
	}
	if nodeModules[name] {
		return "", ""
	}
	return "", name
}

// ecmaFile returns the directory of the module at a path that may lack its
// extension, or carry the one that it has once compiled.
func (r *resolver) ecmaFile(at string) string {
	for _, base := range []string{at, strings.TrimSuffix(at, path.Ext(at))} {
		for _, end := range ecmaEndings {
			if r.files[base+end] {
				return path.Dir(base + end)
			}
		}
	}
	if r.sources[at] {
		return at
	}
	return ""
}

// nodeModules come with Node.js.
var nodeModules = set(`assert buffer child_process cluster console crypto dgram dns events fs http http2 https module net os path
	perf_hooks process querystring readline stream string_decoder timers tls tty url util v8 vm worker_threads zlib`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

func (r *resolver) pythonModule(f *file, spec string) (dir, external string) {
	if strings.HasPrefix(spec, ".") {
		base := path.Dir(f.path)
		rest := strings.TrimPrefix(spec, ".")
		for strings.HasPrefix(rest, ".") {
			base, rest = path.Dir(base), rest[1:]
		}
		at := path.Join(base, strings.ReplaceAll(rest, ".", "/"))
		switch {
		case r.files[at+".py"]:
			return path.Dir(at), ""
		case r.files[at+"/__init__.py"]:
			return at, ""
		case r.files[path.Dir(at)+".py"]: // a name in a module
			return path.Dir(path.Dir(at)), ""
		}
		return "", ""
	}
	for module := spec; module != ""; module = module[:max(strings.LastIndexByte(module, '.'), 0)] {
		if at, ok := r.python[module]; ok {
			return at, ""
		}
	}
	top, _, _ := strings.Cut(spec, ".")
	if pythonStandard[top] || r.dirs[top] {
		return "", ""
	}
	return "", top
}

// pythonStandard are the modules of Python's library that are used most; the
// others show up as packages from elsewhere.
var pythonStandard = set(`__future__ abc argparse array ast asyncio atexit base64 bisect builtins bz2 calendar cmath codecs collections
	concurrent configparser contextlib contextvars copy csv ctypes dataclasses datetime decimal difflib dis email enum errno
	faulthandler fcntl filecmp fileinput fnmatch fractions ftplib functools gc getpass gettext glob grp gzip hashlib heapq hmac html
	http imaplib importlib inspect io ipaddress itertools json keyword linecache locale logging lzma math mimetypes mmap
	multiprocessing numbers operator os pathlib pdb pickle pkgutil platform plistlib poplib posixpath pprint profile pstats pty pwd
	queue quopri random re readline resource runpy sched secrets select selectors shelve shlex shutil signal site smtplib socket
	socketserver sqlite3 ssl stat statistics string struct subprocess symtable sys sysconfig syslog tarfile tempfile termios
	textwrap threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty types typing unicodedata
	unittest urllib uuid venv warnings wave weakref webbrowser winreg xml xmlrpc zipfile zipimport zlib zoneinfo`)

func (r *resolver) rust(f *file, spec string) (dir, external string) {
	parts := strings.Split(strings.TrimSuffix(spec, "::"), "::")
	switch parts[0] {
	case "std", "core", "alloc", "self", "super", "Self":
		return "", ""
	case "crate":
		return r.rustModule(r.crateOf(f.path), parts[1:]), ""
	}
	if at, ok := r.crates[parts[0]]; ok {
		return r.rustModule(at, parts[1:]), ""
	}
	sibling := path.Join(path.Dir(f.path), parts[0])
	if c := parts[0]; len(parts) == 1 || c != strings.ToLower(c) || r.files[sibling+".rs"] || r.files[sibling+"/mod.rs"] {
		return "", "" // a name in scope
	}
	return "", parts[0]
}

// crateOf returns the directory of the crate that a file belongs to.
func (r *resolver) crateOf(name string) string {
	dir := path.Dir(name)
	for dir != "." && !r.crateDirs[dir] {
		dir = path.Dir(dir)
	}
	return dir
}

// rustModule returns the directory of the module that a path in a crate begins
// with.
func (r *resolver) rustModule(crate string, parts []string) string {
	src := path.Join(crate, "src")
	for n := len(parts); n > 0; n-- {
		at := path.Join(src, path.Join(parts[:n]...))
		switch {
		case r.files[at+"/mod.rs"]:
			return at
		case r.files[at+".rs"]:
			return path.Dir(at)
		}
	}
	if r.sources[src] {
		return src
	}
	return ""
}

func (r *resolver) java(spec string) (dir, external string) {
	for name := spec; name != ""; name = name[:max(strings.LastIndexByte(name, '.'), 0)] {
		if dirs := r.jvm[name]; len(dirs) > 0 {
			return dirs[0], ""
		}
	}
	for _, own := range []string{"java.", "javax.", "kotlin.", "scala.", "jdk."} {
		if strings.HasPrefix(spec, own) {
			return "", ""
		}
	}
	if parts := strings.Split(spec, "."); len(parts) > 2 {
		return "", strings.Join(parts[:min(len(parts)-1, 3)], ".")
	}
	return "", spec
}
