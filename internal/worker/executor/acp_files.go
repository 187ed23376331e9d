package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/coder/acp-go-sdk"
)

// maxFile is the largest file that is read or written for an agent, in bytes.
const maxFile = 4 << 20

// files are those of the workspace, as an agent reads and writes them through
// us: regular ones, to which no path or symbolic link leads out of the
// workspace.
type files struct {
	workspace workspace
	root      *os.Root
}

// locate returns an absolute path of the agent's as one relative to the root.
func (f files) locate(path string) (string, error) {
	rel, ok := f.workspace.inside(path)
	if !ok {
		// Programs like to name their directory without its symbolic links.
		if real, err := filepath.EvalSymlinks(string(f.workspace)); err == nil {
			rel, ok = workspace(real).inside(path)
		}
	}
	if !ok {
		return "", &Failure{Message: fmt.Sprintf("%q is outside the workspace", shortened(path, maxComplaint))}
	}
	return rel, nil
}

// open opens a regular file. It never waits, as it would for the other end of a
// named pipe.
func (f files) open(path string, flags int) (*os.File, error) {
	rel, err := f.locate(path)
	if err != nil {
		return nil, err
	}
	file, err := f.root.OpenFile(rel, flags|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, refusedFile(path, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &Failure{Message: fmt.Sprintf("%q is no regular file", shortened(path, maxComplaint))}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// refusedFile says why a path cannot be used.
func refusedFile(path string, err error) error {
	path = shortened(path, maxComplaint)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &acp.RequestError{Code: codeNotFound, Message: fmt.Sprintf("there is no %q", path)}
	case errors.Is(err, fs.ErrPermission):
		return &Failure{Message: fmt.Sprintf("the worker may not do that with %q", path)}
	}
	for reason, ok := errors.AsType[*fs.PathError](err); ok; reason, ok = errors.AsType[*fs.PathError](err) {
		err = reason.Err // what it adds are paths and calls of ours
	}
	return &Failure{Message: fmt.Sprintf("%q cannot be used: %v", path, err)}
}

// codeNotFound is the protocol's error code of what is not there.
const codeNotFound = -32002

// read returns a file's text, or that of some of its lines.
func (f files) read(_ context.Context, q acp.ReadTextFileRequest) (acp.ReadTextFileResponse, error) {
	var none acp.ReadTextFileResponse
	file, err := f.open(q.Path, os.O_RDONLY)
	if err != nil {
		return none, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return none, refusedFile(q.Path, err)
	}
	if len(content) > maxFile {
		return none, &Failure{Message: fmt.Sprintf("%q has more than %d bytes", shortened(q.Path, maxComplaint), maxFile)}
	}
	if !utf8.Valid(content) {
		return none, &Failure{Message: fmt.Sprintf("%q is not UTF-8 text", shortened(q.Path, maxComplaint))}
	}
	return acp.ReadTextFileResponse{Content: linesOf(string(content), q.Line, q.Limit)}, nil
}

// linesOf returns limit lines of text from the first-th on; nil: all.
func linesOf(text string, first, limit *int) string {
	if first != nil {
		for n := 1; n < *first && text != ""; n++ {
			_, text, _ = strings.Cut(text, "\n")
		}
	}
	if limit == nil {
		return text
	}
	rest := text
	for range *limit {
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			return text
		}
		rest = rest[end+1:]
	}
	return text[:len(text)-len(rest)]
}

// write replaces a file's text, and makes it and its directories if need be.
func (f files) write(_ context.Context, q acp.WriteTextFileRequest) (acp.WriteTextFileResponse, error) {
	var none acp.WriteTextFileResponse
	if len(q.Content) > maxFile {
		return none, &Failure{Message: fmt.Sprintf("a text of more than %d bytes is not written", maxFile)}
	}
	rel, err := f.locate(q.Path)
	if err != nil {
		return none, err
	}
	if err := f.root.MkdirAll(filepath.Dir(rel), 0o755); err != nil {
		return none, refusedFile(q.Path, err)
	}
	// It is emptied only when it is known to be a regular file.
	file, err := f.open(q.Path, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return none, err
	}
	err = file.Truncate(0)
	if err == nil {
		_, err = file.WriteString(q.Content)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return none, refusedFile(q.Path, err)
	}
	return none, nil
}
