package clawctl

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// private says why a file is not the user's alone. On Windows that is settled by
// the access list of the user's profile, which the mode does not show.
func private(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("is not a regular file")
	}
	return nil
}

// tryLock takes the lock of a file unless another open file has it.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}
