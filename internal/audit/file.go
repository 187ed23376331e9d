package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// checkpointFile is a file of checkpoints, each followed by an empty line. It
// is only appended to. It may be moved away at any time; the next checkpoint
// then begins a new one.
type checkpointFile struct {
	path string
	size int64 // of the newest checkpoint in it
	file *os.File
	torn bool // it ends within a checkpoint: a write was cut short
}

// append writes the checkpoint through to the disk, unless it is there.
func (f *checkpointFile) append(c Checkpoint) error {
	moved, err := f.open()
	if err != nil {
		return err
	}
	if !moved && f.size >= c.Size {
		return nil
	}
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	text := c.Note + "\n"
	if f.torn {
		text = "\n\n" + text
	}
	if _, err = f.file.WriteString(text); err == nil {
		err = f.file.Sync()
		if !info.Mode().IsRegular() {
			err = nil // a pipe or a device has nothing to sync
		}
	}
	if err != nil {
		if info.Mode().IsRegular() {
			// What was written of it is of no use.
			f.torn = f.file.Truncate(info.Size()) != nil || f.torn
		}
		return err
	}
	f.size, f.torn = c.Size, false
	return nil
}

// open opens the file that is at the path now. It reports whether that is
// another than before.
func (f *checkpointFile) open() (moved bool, err error) {
	if f.file != nil {
		at, err := os.Stat(f.path)
		is, err2 := f.file.Stat()
		if err == nil && err2 == nil && os.SameFile(at, is) {
			return false, nil
		}
		moved = true
		f.close()
	}
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		moved = true
		file, err = f.create()
	}
	if err != nil {
		return false, err
	}
	f.file, f.torn = file, torn(file)
	if moved {
		f.size = 0
	}
	return moved, nil
}

// torn reports whether a file does not end with a whole checkpoint.
func torn(file *os.File) bool {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	end := make([]byte, 2)
	_, err = file.ReadAt(end, max(0, info.Size()-2))
	return err != nil || string(end) != "\n\n"
}

// create makes the file, and its name last.
func (f *checkpointFile) create() (*os.File, error) {
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // not every file system can
		d.Close()
	}
	return file, nil
}

func (f *checkpointFile) close() {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// tailBytes is how much of the file's end is read for the newest checkpoint:
// some hundred.
const tailBytes = 64 << 10

// newest returns the largest of the last checkpoints in the file; the zero
// one if it has none. A checkpoint that the verifier's key did not sign is an
// inconsistency.
func (f *checkpointFile) newest(v note.Verifier) (newest Checkpoint, err error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return newest, nil
	}
	if err != nil {
		return newest, fmt.Errorf("read checkpoints: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return newest, fmt.Errorf("read checkpoints: %w", err)
	}
	if !info.Mode().IsRegular() {
		return newest, nil
	}
	tail := bufio.NewReader(file)
	if start := info.Size() - tailBytes; start > 0 {
		if _, err := file.Seek(start, io.SeekStart); err != nil {
			return newest, fmt.Errorf("read checkpoints: %w", err)
		}
		// From the next empty line on, to begin with a whole paragraph.
		for line := "-"; line != "\n" && err == nil; {
			line, err = tail.ReadString('\n')
		}
	}
	_, err = readCheckpoints(tail, func(signed string) error {
		c, err := OpenCheckpoint(signed, v)
		if err != nil {
			return inconsistent("a checkpoint in %s is not signed with this server's key: %v", f.path, err)
		}
		if c.Size >= newest.Size {
			newest = c
		}
		return nil
	})
	return newest, err
}

const (
	// signature begins a line with one.
	signature = "— "
	// signatureLength is that of an Ed25519 signature and the hash of its key,
	// in base64.
	signatureLength = 92
)

// readCheckpoints calls yield for every checkpoint, signed or not. It counts
// the paragraphs that belong to none, such as a write that was cut short
// leaves.
func readCheckpoints(r io.Reader, yield func(signed string) error) (damaged int, err error) {
	var text string // the paragraph before
	var paragraph strings.Builder
	end := func() error {
		p := paragraph.String()
		paragraph.Reset()
		switch {
		case p == "":
			return nil
		case !strings.HasPrefix(p, signature):
			if text != "" {
				damaged++
			}
			text = p
			return nil
		case strings.Count(text, "\n") < 3 || len(p)-strings.LastIndex(strings.TrimSuffix(p, "\n"), " ") < signatureLength+2:
			text = ""
			damaged++
			return nil
		}
		signed := text + "\n" + p
		text = ""
		return yield(signed)
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := lines.Bytes(); len(line) > 0 {
			paragraph.Write(bytes.TrimSuffix(line, []byte("\r")))
			paragraph.WriteByte('\n')
		} else if err := end(); err != nil {
			return damaged, err
		}
	}
	if err := lines.Err(); err != nil {
		return damaged, fmt.Errorf("read checkpoints: %w", err)
	}
	if err := end(); err != nil {
		return damaged, err
	}
	if text != "" {
		damaged++
	}
	return damaged, nil
}
