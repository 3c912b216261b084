package soak_test

import (
	"net"
	"syscall"
	"unsafe"
)

// delivered reports whether the peer's system has acknowledged all that was
// written to c.
func delivered(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var unsent int32
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&unsent)))
	})
	return err == nil && errno == 0 && unsent == 0
}
