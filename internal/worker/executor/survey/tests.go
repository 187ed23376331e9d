package survey

import (
	"bytes"
	"cmp"
	"path"
	"slices"
	"strings"
)

// tests is what is known of a tree's tests.
type tests struct {
	byLanguage []coverage // most code first
	untested   []untested // most code first
	testedDirs map[string]bool
}

// coverage is how much of what is written in a language has tests beside it.
type coverage struct {
	language        string
	sources, tested int // files
	tests           int // files
	code, testCode  int // lines
}

// untested is a directory with code of which nothing has a test beside it.
type untested struct {
	dir  string
	code int // lines
}

// isTest reports whether a file is a test, going by its name.
func isTest(name string) bool {
	_, ok := tested(name)
	if ok {
		return true
	}
	for dir := range strings.SplitSeq(path.Dir(name), "/") {
		switch dir {
		case "test", "tests", "__tests__", "spec", "testdata", "e2e":
			return true
		}
	}
	return false
}

// tested returns the name without extension of the file that a test is named
// after.
func tested(name string) (stem string, ok bool) {
	base := path.Base(name)
	stem = strings.TrimSuffix(base, path.Ext(base))
	for _, end := range []string{"_test", ".test", ".spec", "_spec", "-test", "Test", "Tests", "Spec"} {
		if s, ok := strings.CutSuffix(stem, end); ok && s != "" {
			return s, true
		}
	}
	if s, ok := strings.CutPrefix(stem, "test_"); ok {
		return s, true
	}
	return stem, base == "conftest.py"
}

// hasInlineTests reports whether a source file holds its tests itself.
func hasInlineTests(f *file, content []byte) bool {
	return f.lang.name == "Rust" && bytes.Contains(content, []byte("#[cfg(test)]")) ||
		f.lang.name == "Zig" && bytes.Contains(content, []byte("\ntest \""))
}

// newTests matches tests with what they test: in Go a whole directory, elsewhere
// the file that the test is named after, wherever it lies.
func newTests(t *tree) tests {
	goDirs, stems := map[string]bool{}, map[string]bool{}
	for _, f := range t.files {
		if f.test && f.source() {
			stem, _ := tested(f.path)
			stems[f.lang.name+" "+stem] = true
			if f.lang.name == "Go" {
				goDirs[path.Dir(f.path)] = true
			}
		}
	}
	languages := map[string]*coverage{}
	bare := map[string]int{}
	ts := tests{testedDirs: map[string]bool{}}
	for _, f := range t.files {
		if !f.source() || !testable[f.lang.name] {
			continue
		}
		c := languages[f.lang.name]
		if c == nil {
			c = &coverage{language: f.lang.name}
			languages[f.lang.name] = c
		}
		if f.test {
			c.tests++
			c.testCode += f.code
			continue
		}
		c.sources++
		c.code += f.code
		dir := path.Dir(f.path)
		stem := strings.TrimSuffix(path.Base(f.path), path.Ext(f.path))
		if f.inlineTests || f.lang.name == "Go" && goDirs[dir] || f.lang.name != "Go" && stems[f.lang.name+" "+stem] {
			c.tested++
			ts.testedDirs[dir] = true
		}
		bare[dir] += f.code
	}
	for _, c := range languages {
		ts.byLanguage = append(ts.byLanguage, *c)
	}
	slices.SortFunc(ts.byLanguage, func(a, b coverage) int {
		return cmp.Or(cmp.Compare(b.code, a.code), cmp.Compare(a.language, b.language))
	})
	for dir, code := range bare {
		if !ts.testedDirs[dir] && code > 0 {
			ts.untested = append(ts.untested, untested{dir, code})
		}
	}
	slices.SortFunc(ts.untested, func(a, b untested) int {
		return cmp.Or(cmp.Compare(b.code, a.code), cmp.Compare(a.dir, b.dir))
	})
	return ts
}

// testable are the languages whose tests are found by their names.
var testable = map[string]bool{
	"Go": true, "TypeScript": true, "JavaScript": true, "Vue": true, "Svelte": true, "Python": true, "Rust": true,
	"Java": true, "Kotlin": true, "Scala": true, "C": true, "C++": true, "C#": true, "Swift": true, "Dart": true,
	"Ruby": true, "PHP": true, "Elixir": true,
}
