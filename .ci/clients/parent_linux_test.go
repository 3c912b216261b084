package clients

import "syscall"

// dieWithParent has the kernel end the process when the tests are gone, even
// if they were killed themselves (go test's time limit) and cleaned up nothing.
// By SIGTERM, so that a server ends its workers, too.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
