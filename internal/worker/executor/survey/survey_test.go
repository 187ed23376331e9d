package survey_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/coderclaw/runtime/internal/worker/executor/survey"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files are those of a tree, by path.
type files map[string]string

// write puts the files into a new directory.
func write(t *testing.T, fs files) string {
	t.Helper()
	dir := t.TempDir()
	add(t, dir, fs)
	return dir
}

func add(t *testing.T, dir string, fs files) {
	t.Helper()
	for name, content := range fs {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// report surveys the directory at path in the workspace.
func report(t *testing.T, workspace, path string) string {
	t.Helper()
	text, err := survey.Run(t.Context(), survey.Request{Workspace: workspace, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// section returns the part of the report below a heading.
func section(t *testing.T, report, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(report, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the report has no section %q:\n%s", heading, report)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// cells returns the rows of the tables in a text, without their heads.
func cells(text string) [][]string {
	var rows [][]string
	for line := range strings.Lines(text) {
		if inner, ok := strings.CutPrefix(strings.TrimSpace(line), "| "); ok {
			rows = append(rows, strings.Split(strings.TrimSuffix(inner, " |"), " | "))
		}
	}
	return rows[min(len(rows), 2):]
}

func row(t *testing.T, text, first string) []string {
	t.Helper()
	rows := cells(text)
	i := slices.IndexFunc(rows, func(r []string) bool { return r[0] == first })
	if i < 0 {
		t.Fatalf("there is no row %s in\n%s", first, text)
	}
	return rows[i]
}

func has(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in\n%s", w, text)
		}
	}
}

func hasNot(t *testing.T, text string, unwanted ...string) {
	t.Helper()
	for _, u := range unwanted {
		if strings.Contains(text, u) {
			t.Errorf("%q is in\n%s", u, text)
		}
	}
}

func TestSurveyOfThisRepositoryTellsItsShape(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	text := report(t, root, ".")
	has(t, text, "# Survey of ", "Go module `github.com/coderclaw/runtime`")
	shape := section(t, text, "What imports what")
	has(t, row(t, shape, "`internal/worker`")[5], "`api`", "`internal/worker/executor`")
	has(t, row(t, shape, "`internal/worker/executor`")[5], "`internal/worker/executor/survey`")
	if r := row(t, shape, "`api`"); r[3] != "0" || r[5] != "" {
		t.Errorf("api is on layer %s and imports %q, want layer 0 and nothing", r[3], r[5])
	}
	if r := row(t, section(t, text, "Languages"), "Go"); len(r[2]) < 5 {
		t.Errorf("%s lines of Go", r[2])
	}
	if len(text) > 100<<10 {
		t.Errorf("the report has %d bytes", len(text))
	}
}

func TestLinesAreCountedAsWhatTheyAre(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, content       string
		language            string
		code, comment, gaps int
	}{
		"Go":                            {"a.go", "// Package a.\npackage a\n\n/* one\n\ntwo */\nvar X = \"/*\" // not a comment line\n", "Go", 2, 3, 2},
		"Python with a docstring":       {"a.py", "\"\"\"One.\n\nTwo.\n\"\"\"\nimport os  # why\n\n# end\n", "Python", 1, 4, 2},
		"HTML":                          {"a.html", "<!-- one\ntwo -->\n<p>three</p>\n", "HTML", 1, 2, 0},
		"a script without an extension": {"run", "#!/usr/bin/env bash\n# why\necho hi\n", "Shell", 1, 2, 0},
		"a name of its own":             {"Dockerfile", "FROM scratch\n\n# end\n", "Docker", 1, 1, 1},
		"a last line without an end":    {"a.js", "let a\nlet b", "JavaScript", 2, 0, 0},
		"line ends of Windows":          {"a.ts", "let a\r\n\r\n// b\r\n", "TypeScript", 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := row(t, section(t, report(t, write(t, files{c.file: c.content}), "."), "Languages"), c.language)
			got := strings.Join([]string{r[2], r[4], r[5]}, " ")
			if want := fmt.Sprint(c.code, c.comment, c.gaps); got != want {
				t.Errorf("code, comment and blank lines are %s, want %s", got, want)
			}
		})
	}
}

func TestWhatOthersOrToolsWroteIsLeftOut(t *testing.T) {
	t.Parallel()
	const line = "package x\n"
	text := report(t, write(t, files{
		"main.go":               line,
		"vendor/v/v.go":         line,
		"node_modules/m/m.js":   "let m\n",
		".git/hooks/h.py":       "x = 1\n",
		"dist/app.js":           "let d\n",
		"web/target/keep.go":    line, // not what a tool of Rust or Maven made
		"rust/Cargo.toml":       "[package]\nname = \"r\"\n",
		"rust/target/gone.rs":   "fn x() {}\n",
		"gen.go":                "// Code generated by protoc. DO NOT EDIT.\n" + line,
		"app.min.js":            "let m\n",
		"binary.go":             "package x\x00\x01",
		"package-lock.json":     "{\n}\n",
		"sub/testdata/keep2.go": line,
	}), ".")
	languages := section(t, text, "Languages")
	if r := row(t, languages, "Go"); r[1] != "3" {
		t.Errorf("%s Go files, want main.go, web/target/keep.go and sub/testdata/keep2.go", r[1])
	}
	hasNot(t, languages, "JavaScript", "Rust", "Python", "JSON")
	has(t, languages, "because a tool wrote them: 3 files")
}

func TestTheQuestionAndThePrefaceAreRepeatedAsText(t *testing.T) {
	t.Parallel()
	text, err := survey.Run(t.Context(), survey.Request{
		Workspace: write(t, files{"a.go": "package a\n"}), Path: ".",
		Description: "Analyze project architecture", Input: "# Not a heading\n<script>", Preface: "No model is configured.",
	})
	if err != nil {
		t.Fatal(err)
	}
	has(t, text, "\nNo model is configured.\n", "\n> Analyze project architecture\n", "\n> \\# Not a heading\n> \\<script\\>\n")
}

func TestTheSameTreeGivesTheSameReport(t *testing.T) {
	t.Parallel()
	tree := files{"go.mod": "module m\n", "package.json": `{"name":"p","dependencies":{"b":"1","a":"2"}}`}
	for i := range 40 {
		tree[fmt.Sprintf("d%d/f.go", i)] = fmt.Sprintf("package d\nimport _ \"m/d%d\"\nimport _ \"example.com/x/y%d\"\n// TODO: %d\n", (i+1)%40, i%7, i)
	}
	root := write(t, tree)
	first := report(t, root, ".")
	for range 5 {
		if report(t, root, ".") != first {
			t.Fatal("two reports differ")
		}
	}
}

func TestProgressGoesFromNothingToAllAndNeverBack(t *testing.T) {
	t.Parallel()
	tree := files{}
	for i := range 500 {
		tree[fmt.Sprintf("%03d.go", i)] = "package a\n"
	}
	var said []string
	last := 0
	_, err := survey.Run(t.Context(), survey.Request{Workspace: write(t, tree), Path: ".", Progress: func(percent int, message string) {
		if percent < last || percent > 100 {
			t.Errorf("%d %% after %d %%", percent, last)
		}
		last = percent
		said = append(said, message)
	}})
	if err != nil || last != 100 {
		t.Errorf("ended at %d %% with %v", last, err)
	}
	if len(said) < 50 || !slices.Contains(said, "scanned 250 of 500 files") {
		t.Errorf("said %q", said)
	}
}

func TestASurveyThatIsCancelledStops(t *testing.T) {
	t.Parallel()
	tree := files{}
	for i := range 500 {
		tree[fmt.Sprintf("%03d.go", i)] = "package a\n"
	}
	root := write(t, tree)
	for _, at := range []string{"looking for files", "scanned 250 of 500 files", "reading the history", "drawing conclusions"} {
		ctx, cancel := context.WithCancel(t.Context())
		var after []string
		_, err := survey.Run(ctx, survey.Request{Workspace: root, Path: ".", Progress: func(_ int, message string) {
			if ctx.Err() != nil {
				after = append(after, message)
			}
			if message == at {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) || len(after) > 1 {
			t.Errorf("cancelled while %q: %v, and then said %q", at, err, after)
		}
	}
}

func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	if _, err := survey.Run(t.Context(), survey.Request{Workspace: t.TempDir(), Path: "nowhere"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run returned %v", err)
	}
}

func TestAnEmptyDirectoryHasAReport(t *testing.T) {
	t.Parallel()
	has(t, report(t, t.TempDir(), "."), "0 files.", "Nothing stands out.")
}

func TestNothingLeadsOutOfTheDirectory(t *testing.T) {
	t.Parallel()
	workspace := write(t, files{"secret/secret.go": "package secret\n// TODO: secret\n", "repo/a.go": "package a\n"})
	for link, target := range map[string]string{
		"dir": "../secret", "file.go": "../secret/secret.go", "loop": ".", "outside": "/etc", "go.mod": "/etc/passwd",
	} {
		if err := os.Symlink(target, filepath.Join(workspace, "repo", link)); err != nil {
			t.Fatal(err)
		}
	}
	text := report(t, workspace, "repo")
	hasNot(t, text, "secret", "root:")
	has(t, text, "5 symbolic links were not followed", "1 file, 1 line of code")
}

func TestSpecialAndHugeFilesDoNoHarm(t *testing.T) {
	t.Parallel()
	root := write(t, files{"a.go": "package a\n", "long.js": "let x = \"" + strings.Repeat("y", 1<<20) + "\"\n", "big.go": strings.Repeat("package a\n", 300_000)})
	if err := syscall.Mkfifo(filepath.Join(root, "pipe.go"), 0o644); err != nil {
		t.Fatal(err)
	}
	huge, err := os.Create(filepath.Join(root, "huge.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := huge.Truncate(1 << 40); err != nil { // sparse
		t.Fatal(err)
	}
	huge.Close()
	deep := filepath.Join(append([]string{root}, slices.Repeat([]string{"d"}, 100)...)...)
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	text := report(t, root, ".")
	has(t, text, "1 file is larger than 2.0 MiB and unread", "**Large file**: `huge.bin` has 1048576.0 MiB", "larger than a survey can be")
	if r := row(t, section(t, text, "Languages"), "Go"); r[1] != "1" {
		t.Errorf("%s Go files were read", r[1])
	}
}

func TestNamesAndRemarksCannotLookLikeTheReport(t *testing.T) {
	t.Parallel()
	root := write(t, files{
		"a\n## Forged\n.go":       "package a\n",
		"b`](javascript:x).go":    "package a\n// TODO: ](http://evil) `x` <img src=x> | y\nimport _ \"m/f\"\n",
		"c|d.go":                  "package a\n",
		"e\u202egnp.go":           "package a\nimport _ \"m/f\\\"]; click n0 x/f\"\n",
		"f\"]; click n0 x/f/f.go": "package f\n",
		"go.mod":                  "module m\nrequire <b>x</b> v1.0.0|y\n",
		"\xff\xfe.go":             "package a\n",
	})
	text := report(t, root, ".")
	hasNot(t, text, "\n## Forged", "\u202e", "\xff", " ](http://evil)", " <img", "[\"f\"]")
	has(t, text, "`` b`](javascript:x).go ``", "`c\\|d.go`", `TODO \]\(http://evil\) \`+"`x\\` \\<img src=x\\> \\| y\n", "[\"f\uFFFD]\uFFFD click n0 x/f\"]\n")
	for _, r := range cells(section(t, text, "Largest files")) {
		if n := len(r); n != 4 {
			t.Errorf("a row has %d cells: %q", n, r)
		}
	}
}
