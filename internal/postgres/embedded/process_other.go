//go:build !linux

package embedded

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// endWithParent does nothing: without such a signal the server outlives a
// supervisor that is killed, until the next start finds it.
func endWithParent(*syscall.SysProcAttr) {}

// serves reports whether process pid is a server of the data directory.
func serves(pid int, data string) bool {
	command, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(command), "-D "+data+" ")
}
