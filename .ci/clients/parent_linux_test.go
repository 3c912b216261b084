package clients

import "syscall"

// dieWithParent has the kernel kill the process when the tests are gone, even
// if they were killed themselves (go test's time limit) and cleaned up nothing.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
