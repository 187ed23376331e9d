// Package survey reads a repository and describes it in a Markdown report:
// what it is written in, how its parts depend on each other, what changes most,
// what it needs, what is untested, and what would be worth doing about it.
//
// It measures and runs nothing of what it reads. It stays inside one directory
// tree, follows no symbolic link, and bounds what it reads and what it writes.
// The same tree gives the same report.
package survey

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// Request says what to survey.
type Request struct {
	// Workspace is the absolute path of the tree that is never left.
	Workspace string
	// Path is the directory to survey, relative to Workspace.
	Path string
	// Description and Input are what was asked; the report repeats them.
	Description, Input string
	// Preface is a paragraph for the beginning of the report, or empty.
	Preface string
	// Progress, if not nil, is told how far the survey is, in percent.
	Progress func(percent int, message string)
}

// Run returns the report. It returns ctx's error soon after ctx ends, and
// otherwise an error only if the directory cannot be read at all.
func Run(ctx context.Context, r Request) (string, error) {
	if r.Progress == nil {
		r.Progress = func(int, string) {}
	}
	workspace, err := os.OpenRoot(r.Workspace)
	if err != nil {
		return "", fmt.Errorf("open workspace: %w", err)
	}
	defer workspace.Close()
	root, err := workspace.OpenRoot(r.Path)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", r.Path, err)
	}
	defer root.Close()

	r.Progress(0, "looking for files")
	t, err := walk(ctx, root, usual)
	if err != nil {
		return "", err
	}
	if err := t.scan(ctx, root, r.Progress); err != nil {
		return "", err
	}
	r.Progress(85, "reading the history")
	h := readHistory(ctx, workspace, r.Workspace, r.Path)
	r.Progress(95, "drawing conclusions")
	g, err := newGraph(ctx, t)
	if err != nil {
		return "", err
	}
	f := findings{tree: t, history: h, graph: g, tests: newTests(t)}
	text := f.report(title(r), r)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	r.Progress(100, "report written")
	return text, nil
}

// title returns the name of the surveyed directory.
func title(r Request) string {
	if name := path.Base(filepath.ToSlash(r.Path)); name != "." {
		return name
	}
	return filepath.Base(r.Workspace)
}

// findings is all that is known of a tree.
type findings struct {
	tree    *tree
	history history
	graph   *graph
	tests   tests
}

// scan reads the files of the tree, one after the other.
func (t *tree) scan(ctx context.Context, root *os.Root, progress func(int, string)) error {
	shown := -1
	for i, f := range t.files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if percent := 5 + 80*i/len(t.files); percent != shown {
			shown = percent
			progress(percent, fmt.Sprintf("scanned %d of %d files", i, len(t.files)))
		}
		t.read(root, f)
	}
	progress(85, fmt.Sprintf("scanned %d files", len(t.files)))
	return nil
}
