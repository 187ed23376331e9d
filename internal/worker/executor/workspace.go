package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/coderclaw/runtime/api"
)

// workspace is the absolute path of the directory tree that tasks may name
// places in.
type workspace string

// locate returns path, which is relative to the workspace or absolute and
// inside it, as a relative path. It returns a *Failure unless that is a
// directory of the workspace; symbolic links may not lead out of it.
func (w workspace) locate(path string) (string, error) {
	rel, err := w.relative(path)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(string(w))
	if err != nil {
		return "", fmt.Errorf("open workspace: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(rel)
	switch {
	case err == nil && info.IsDir():
		return rel, nil
	case err == nil, errors.Is(err, syscall.ENOTDIR):
		return "", &Failure{Message: fmt.Sprintf("%q is not a directory", path)}
	case errors.Is(err, fs.ErrNotExist):
		return "", &Failure{Message: fmt.Sprintf("the workspace has no directory %q", path)}
	case errors.Is(err, fs.ErrPermission):
		return "", &Failure{Message: fmt.Sprintf("the worker may not read the directory %q", path)}
	}
	return "", &Failure{Message: fmt.Sprintf("the directory %q leads out of the workspace", path)}
}

func (w workspace) relative(path string) (string, error) {
	rel, ok := w.inside(path)
	if !ok {
		return "", &Failure{Message: fmt.Sprintf("the directory %q is outside the workspace", path)}
	}
	return rel, nil
}

// inside returns a path that is relative to the workspace or absolute and
// inside it as a relative path. It does not look at symbolic links.
func (w workspace) inside(path string) (rel string, ok bool) {
	rel = filepath.Clean(path)
	if filepath.IsAbs(rel) {
		var err error
		if rel, err = filepath.Rel(string(w), rel); err != nil {
			return "", false
		}
	}
	return rel, filepath.IsLocal(rel) && !strings.ContainsRune(rel, 0)
}

// pathOf returns the place that the task names in metadata.path, or ".".
func pathOf(t api.Task) (string, error) {
	var metadata struct {
		Path string `json:"path"`
	}
	if t.Metadata != nil {
		if err := json.Unmarshal(t.Metadata, &metadata); err != nil {
			return "", &Failure{Message: "metadata.path must be a string"}
		}
	}
	if metadata.Path == "" {
		return ".", nil
	}
	return metadata.Path, nil
}
