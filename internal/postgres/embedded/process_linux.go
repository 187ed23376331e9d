package embedded

import (
	"os"
	"strconv"
	"syscall"
)

// endWithParent has the kernel stop the child should we die without doing so.
func endWithParent(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGINT // PostgreSQL's fast shutdown
}

// serves reports whether process pid is a server of the data directory, which
// every server makes its working directory.
func serves(pid int, data string) bool {
	cwd, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/cwd")
	if err != nil {
		return false
	}
	dir, err := os.Stat(data)
	return err == nil && os.SameFile(cwd, dir)
}
