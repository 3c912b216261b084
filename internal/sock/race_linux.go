//go:build linux && race

package sock

import "syscall"

func sysRead(fd uintptr, p []byte, _ bool) (int, syscall.Errno) { return plainRead(int(fd), p) }

func sysWrite(fd uintptr, a, b []byte, _ bool) (int, syscall.Errno) { return plainWrite(int(fd), a, b) }

func sysAccept(fd uintptr) (int, syscall.Errno) {
	n, _, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	if err != nil {
		return -1, err.(syscall.Errno)
	}
	return n, 0
}

func sysClose(fd int) error { return syscall.Close(fd) }
