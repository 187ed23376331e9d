package survey

import (
	"bytes"
	"path"
	"strings"
)

// language is what is needed to count lines of one.
type language struct {
	name  string
	files string // names and extensions, separated by spaces
	kind  kind
	line  []string // what begins a comment that ends with the line
	open  []string // what begins a comment that goes on, and what ends each
	close []string
}

type kind int

const (
	program kind = iota
	markup
	prose
	data
)

// rank sorts what is written to be run or shown before the rest.
func (k kind) rank() int {
	if k == program || k == markup {
		return 0
	}
	return 1
}

var (
	slashes = []string{"//"}
	hash    = []string{"#"}
	dashes  = []string{"--"}
	cOpen   = []string{"/*"}
	cClose  = []string{"*/"}
	xOpen   = []string{"<!--"}
	xClose  = []string{"-->"}
	quotes  = []string{`"""`, `'''`}
)

var languages = []language{
	{"Go", ".go", program, slashes, cOpen, cClose},
	{"TypeScript", ".ts .tsx .mts .cts", program, slashes, cOpen, cClose},
	{"JavaScript", ".js .jsx .mjs .cjs", program, slashes, cOpen, cClose},
	{"Vue", ".vue", program, slashes, []string{"/*", "<!--"}, []string{"*/", "-->"}},
	{"Svelte", ".svelte", program, slashes, []string{"/*", "<!--"}, []string{"*/", "-->"}},
	{"Python", ".py .pyi", program, hash, quotes, quotes},
	{"Rust", ".rs", program, slashes, cOpen, cClose},
	{"Java", ".java", program, slashes, cOpen, cClose},
	{"Kotlin", ".kt .kts", program, slashes, cOpen, cClose},
	{"Scala", ".scala", program, slashes, cOpen, cClose},
	{"C", ".c .h", program, slashes, cOpen, cClose},
	{"C++", ".cc .cpp .cxx .hh .hpp .hxx", program, slashes, cOpen, cClose},
	{"C#", ".cs", program, slashes, cOpen, cClose},
	{"Swift", ".swift", program, slashes, cOpen, cClose},
	{"Objective-C", ".m .mm", program, slashes, cOpen, cClose},
	{"Dart", ".dart", program, slashes, cOpen, cClose},
	{"Zig", ".zig", program, slashes, nil, nil},
	{"Ruby", ".rb Rakefile Gemfile", program, hash, []string{"=begin"}, []string{"=end"}},
	{"PHP", ".php", program, []string{"//", "#"}, cOpen, cClose},
	{"Perl", ".pl .pm", program, hash, nil, nil},
	{"Lua", ".lua", program, dashes, []string{"--[["}, []string{"]]"}},
	{"R", ".r .R", program, hash, nil, nil},
	{"Julia", ".jl", program, hash, []string{"#="}, []string{"=#"}},
	{"Elixir", ".ex .exs", program, hash, nil, nil},
	{"Erlang", ".erl .hrl", program, []string{"%"}, nil, nil},
	{"Haskell", ".hs", program, dashes, []string{"{-"}, []string{"-}"}},
	{"OCaml", ".ml .mli", program, nil, []string{"(*"}, []string{"*)"}},
	{"Clojure", ".clj .cljs .cljc", program, []string{";"}, nil, nil},
	{"Shell", ".sh .bash .zsh", program, hash, nil, nil},
	{"PowerShell", ".ps1 .psm1", program, hash, []string{"<#"}, []string{"#>"}},
	{"SQL", ".sql", program, dashes, cOpen, cClose},
	{"Assembly", ".s .S .asm", program, []string{";", "#", "//"}, cOpen, cClose},
	{"Protocol Buffers", ".proto", program, slashes, cOpen, cClose},
	{"GraphQL", ".graphql .gql", program, hash, nil, nil},
	{"Terraform", ".tf", program, []string{"#", "//"}, cOpen, cClose},
	{"Make", "Makefile makefile GNUmakefile .mk", program, hash, nil, nil},
	{"CMake", "CMakeLists.txt .cmake", program, hash, nil, nil},
	{"Docker", "Dockerfile Containerfile .dockerfile", program, hash, nil, nil},
	{"Gradle", ".gradle", program, slashes, cOpen, cClose},
	{"HTML", ".html .htm", markup, nil, xOpen, xClose},
	{"CSS", ".css", markup, nil, cOpen, cClose},
	{"Sass", ".scss .sass .less", markup, slashes, cOpen, cClose},
	{"XML", ".xml .xsd .xsl", data, nil, xOpen, xClose},
	{"Markdown", ".md .markdown .mdx", prose, nil, nil, nil},
	{"reStructuredText", ".rst", prose, nil, nil, nil},
	{"YAML", ".yaml .yml", data, hash, nil, nil},
	{"JSON", ".json .json5 .jsonc", data, nil, nil, nil},
	{"TOML", ".toml", data, hash, nil, nil},
}

var byName = func() map[string]*language {
	m := map[string]*language{}
	for i := range languages {
		for name := range strings.FieldsSeq(languages[i].files) {
			m[name] = &languages[i]
		}
	}
	return m
}()

// languageOf returns the language of a file by its name, or nil.
func languageOf(name string) *language {
	base := path.Base(name)
	if l := byName[base]; l != nil {
		return l
	}
	return byName[path.Ext(base)]
}

var interpreters = map[string]string{
	"sh": ".sh", "bash": ".sh", "dash": ".sh", "zsh": ".sh", "ksh": ".sh",
	"python": ".py", "node": ".js", "deno": ".ts", "bun": ".ts", "ruby": ".rb", "perl": ".pl", "php": ".php", "lua": ".lua",
}

// interpreterOf returns the language that a script's first line names, or nil.
func interpreterOf(content []byte) *language {
	first, _, _ := bytes.Cut(content[:min(len(content), 200)], []byte{'\n'})
	command, ok := bytes.CutPrefix(first, []byte("#!"))
	if !ok {
		return nil
	}
	for word := range strings.FieldsSeq(string(command)) {
		name := strings.TrimRight(path.Base(word), "0123456789.")
		if ext, ok := interpreters[name]; ok {
			return byName[ext]
		}
	}
	return nil
}

// generated reports whether a tool wrote the file, going by its name and by
// what such tools say at the top.
func generated(name string, content []byte) bool {
	base := path.Base(name)
	for _, end := range []string{".min.js", ".min.css", ".pb.go", "_pb2.py", "_pb2_grpc.py", ".g.dart", ".lock.json"} {
		if strings.HasSuffix(base, end) {
			return true
		}
	}
	switch base {
	case "package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "composer.lock", "Package.resolved":
		return true
	}
	top := content[:min(len(content), 2048)]
	for line := range bytes.Lines(top) {
		if bytes.Contains(line, []byte("@generated")) ||
			bytes.Contains(line, []byte("Code generated ")) && bytes.Contains(line, []byte("DO NOT EDIT")) {
			return true
		}
	}
	return false
}
