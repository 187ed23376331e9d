package survey

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestATreeThatIsTooLargeIsWalkedInPart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 30 {
		at := filepath.Join(dir, fmt.Sprintf("d%02d", i/10))
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("%02d.go", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, c := range map[string]struct {
		most    limits
		files   int
		partial bool
	}{
		"as large as it may be":     {limits{files: 30, entries: 33, depth: 1}, 30, false},
		"one file too many":         {limits{files: 29, entries: 33, depth: 1}, 29, true},
		"one entry too many":        {limits{files: 30, entries: 32, depth: 1}, 29, true},
		"one level too deep":        {limits{files: 30, entries: 33, depth: 0}, 0, true},
		"no room for a whole level": {limits{files: 30, entries: 2, depth: 1}, 0, true},
	} {
		tree, err := walk(t.Context(), root, c.most)
		if err != nil {
			t.Fatal(err)
		}
		if len(tree.files) != c.files || tree.partial != c.partial {
			t.Errorf("%s: %d files, partial %v; want %d, %v", name, len(tree.files), tree.partial, c.files, c.partial)
		}
	}
}

// A file can be replaced between the walk and the reading of it.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "grown"), make([]byte, maxFileSize+1), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"pipe", "link", "grown", ".", "gone"} {
		if data, err := contents(root, name); err == nil {
			t.Errorf("%s: read %d bytes", name, len(data))
		}
	}
}
