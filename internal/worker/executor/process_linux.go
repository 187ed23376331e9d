package executor

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent has the kernel kill the program should the worker die without
// doing so.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// reap waits for the program's end, kills the rest of its group and returns
// what Wait does. Until the program has been waited for no other process group
// gets its number.
func reap(cmd *exec.Cmd, killRest func()) error {
	for unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	killRest()
	return cmd.Wait()
}
