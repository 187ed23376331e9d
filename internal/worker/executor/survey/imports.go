package survey

import (
	"bytes"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
)

// maxImports bounds what is kept of one file, maxAllImports of all together.
const (
	maxImports    = 1000
	maxAllImports = 500_000
)

// importLines find what a line imports, for each language but Go. They read
// lines, not the language: what they miss is missing in the graph.
var importLines = map[string][]*regexp.Regexp{
	"JavaScript": {ecmaImport},
	"TypeScript": {ecmaImport},
	"Vue":        {ecmaImport},
	"Svelte":     {ecmaImport},
	"Python": {
		regexp.MustCompile(`^\s*import\s+([\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+(?:\s+as\s+\w+)?)*)`),
		regexp.MustCompile(`^\s*from\s+([\w.]+)\s+import\s+\(?\s*([\w ,]*)`),
	},
	"Rust":   {regexp.MustCompile(`^\s*(?:pub(?:\([\w: ]+\))?\s+)?(?:use|extern\s+crate)\s+(?:::)?([\w:]+)`)},
	"Java":   {jvmImport},
	"Kotlin": {jvmImport},
	"Scala":  {jvmImport},
	"C":      {cInclude},
	"C++":    {cInclude},
}

var (
	ecmaImport = regexp.MustCompile(`(?:\bfrom|\bimport|\brequire\s*\(|\bimport\s*\()\s*['"]([^'"]{1,200})['"]`)
	jvmImport  = regexp.MustCompile(`^\s*import\s+(?:static\s+)?([\w.]+)`)
	cInclude   = regexp.MustCompile(`^\s*#\s*include\s+"([^"]{1,200})"`)
	jvmPackage = regexp.MustCompile(`(?m)^\s*package\s+([\w.]+)`)
)

// readImports notes what f imports, as it is written there, and the package
// that it says it belongs to.
func (f *file) readImports(content []byte) {
	f.inlineTests = hasInlineTests(f, content)
	if f.lang.name == "Go" {
		f.readGo(content)
		return
	}
	patterns := importLines[f.lang.name]
	if patterns == nil {
		return
	}
	if m := jvmPackage.FindSubmatch(content[:min(len(content), 8<<10)]); m != nil {
		f.pkg = string(m[1])
	}
	comments := commentScanner{lang: f.lang}
	for line := range bytes.Lines(content) {
		line = line[:min(len(line), longLine)]
		if comments.next(bytes.TrimSpace(line)) == 0 {
			continue
		}
		for _, p := range patterns {
			for _, m := range p.FindAllSubmatch(line, 4) {
				f.addImports(m)
			}
		}
	}
}

// addImports takes in one match of a pattern of importLines.
func (f *file) addImports(m [][]byte) {
	var found []string
	switch {
	case f.lang.name != "Python":
		found = []string{string(m[1])}
	case len(m) == 3: // from module import names, of which each may be a module
		module := string(m[1])
		if !strings.HasSuffix(module, ".") {
			found = append(found, module)
			module += "."
		}
		for name := range strings.SplitSeq(string(m[2]), ",") {
			if fields := strings.Fields(name); len(fields) > 0 {
				found = append(found, module+fields[0])
			}
		}
	default: // import module as name, module
		for name := range strings.SplitSeq(string(m[1]), ",") {
			if fields := strings.Fields(name); len(fields) > 0 {
				found = append(found, fields[0])
			}
		}
	}
	if len(f.imports)+len(found) <= maxImports {
		f.imports = append(f.imports, found...)
	}
}

func (f *file) readGo(content []byte) {
	parsed, err := parser.ParseFile(token.NewFileSet(), f.path, content, parser.ImportsOnly|parser.SkipObjectResolution)
	if parsed == nil || err != nil && parsed.Name == nil {
		return
	}
	f.pkg = parsed.Name.Name
	for _, spec := range parsed.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil && len(f.imports) < maxImports {
			f.imports = append(f.imports, name)
		}
	}
}

var (
	javaMain   = regexp.MustCompile(`public\s+static\s+void\s+main\s*\(`)
	pythonMain = regexp.MustCompile(`(?m)^if\s+__name__\s*==\s*['"]__main__['"]`)
	goMain     = regexp.MustCompile(`(?m)^func\s+main\(\)`)
	cMain      = regexp.MustCompile(`(?m)^(?:int|void)\s+main\s*\(`)
	rustMain   = regexp.MustCompile(`(?m)^(?:pub\s+)?(?:async\s+)?fn\s+main\(\)`)
)

// starts reports whether a program begins in f.
func starts(f *file, content []byte) bool {
	if f.test {
		return false
	}
	switch f.lang.name {
	case "Go":
		return f.pkg == "main" && goMain.Match(content)
	case "Java":
		return javaMain.Match(content)
	case "Python":
		return pythonMain.Match(content)
	case "C", "C++":
		return cMain.Match(content)
	case "Rust":
		return rustMain.Match(content)
	}
	return false
}
