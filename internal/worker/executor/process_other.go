//go:build !linux

package executor

import (
	"os/exec"
	"syscall"
)

// endWithParent does nothing: there is no such signal.
func endWithParent(*syscall.SysProcAttr) {}

// reap waits for the program's end, kills the rest of its group and returns
// what Wait does.
func reap(cmd *exec.Cmd, killRest func()) error {
	err := cmd.Wait()
	killRest()
	return err
}
