//go:build linux && race

package sock

import "syscall"

// The race detector learns from ordinary system calls what raw ones would hide.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err == nil {
			return n, 0
		}
		if errno := err.(syscall.Errno); errno != syscall.EINTR {
			return 0, errno
		}
	}
}

func sysWrite(fd uintptr, a, b []byte) (int, syscall.Errno) {
	if len(a) == 0 {
		a, b = b, nil
	}
	n, err := syscall.Write(int(fd), a)
	for err == syscall.EINTR {
		n, err = syscall.Write(int(fd), a)
	}
	if err != nil {
		return 0, err.(syscall.Errno)
	}
	if n < len(a) || len(b) == 0 {
		return n, 0
	}
	// A failure here is seen again, and reported, by the next call.
	if k, err := syscall.Write(int(fd), b); err == nil {
		n += k
	}
	return n, 0
}

func sysAccept(fd uintptr) (int, syscall.Errno) {
	n, _, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	if err != nil {
		return -1, err.(syscall.Errno)
	}
	return n, 0
}

func sysClose(fd int) error { return syscall.Close(fd) }
