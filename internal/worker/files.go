package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// The artifacts that hold what is more than a task's history is to hold.
const (
	logFile    = "log.txt"
	outputFile = "output.txt"
)

// spilled is what the artifacts of spilled text are.
const spilled = "text/plain; charset=utf-8"

// files are what one attempt leaves behind. What it says beyond the bounds of
// events is gathered on disk, and put at the end.
type files struct {
	limit int64 // bytes of each
	put   func(ctx context.Context, name, contentType string, content io.ReadSeeker) error

	mu     sync.Mutex
	spills []*spill
}

// spill is text that is being gathered.
type spill struct {
	name string
	file *os.File
	size int64
	full bool
	err  error
}

func newFiles(limit int64, put func(ctx context.Context, name, contentType string, content io.ReadSeeker) error) *files {
	return &files{limit: limit, put: put}
}

// add appends text to an artifact that deliver is to put.
func (f *files) add(name, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.spill(name)
	if s.full || s.err != nil {
		return
	}
	if room := f.limit - s.size; int64(len(text)) > room {
		text, s.full = prefix(text, int(room)), true
	}
	_, s.err = s.file.WriteString(text)
	s.size += int64(len(text))
}

// replace is add, but of all that there is to be of the artifact.
func (f *files) replace(name, text string) {
	f.mu.Lock()
	s := f.spill(name)
	if s.err == nil {
		_, s.err = s.file.Seek(0, io.SeekStart)
		s.err = errors.Join(s.err, s.file.Truncate(0))
		s.size, s.full = 0, false
	}
	f.mu.Unlock()
	f.add(name, text)
}

// spill returns the one of that name. mu is held.
func (f *files) spill(name string) *spill {
	if i := slices.IndexFunc(f.spills, func(s *spill) bool { return s.name == name }); i >= 0 {
		return f.spills[i]
	}
	s := &spill{name: name}
	s.file, s.err = temporary()
	f.spills = append(f.spills, s)
	return s
}

// deliver puts what was gathered. lost hears what could not be put.
func (f *files) deliver(ctx context.Context, lost func(name string, err error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.spills {
		err := s.err
		if err == nil {
			err = f.put(ctx, s.name, spilled, s.file)
		}
		if err != nil && ctx.Err() == nil {
			lost(s.name, err)
		}
	}
}

// keep puts an artifact that is read to its end first, so that it can be sent
// more than once.
func (f *files) keep(ctx context.Context, name, contentType string, content io.Reader) error {
	file, err := temporary()
	if err != nil {
		return fmt.Errorf("keep artifact %s: %w", name, err)
	}
	defer remove(file)
	n, err := io.Copy(file, io.LimitReader(content, f.limit+1))
	switch {
	case err != nil:
		return fmt.Errorf("keep artifact %s: %w", name, err)
	case n > f.limit:
		return fmt.Errorf("artifact %s has more than %d bytes", name, f.limit)
	}
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	return f.put(ctx, name, contentType, file)
}

// discard removes what was gathered.
func (f *files) discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.spills {
		if s.file != nil {
			remove(s.file)
		}
	}
	f.spills = nil
}

func temporary() (*os.File, error) { return os.CreateTemp("", "coderclaw-*") }

func remove(file *os.File) {
	_ = file.Close() // what matters has been read
	_ = os.Remove(file.Name())
}
