package sock

import (
	"syscall"
)

// Ordinary system calls: for long transfers (see credit), and for the race
// detector, which learns from them what a raw call would hide.

func plainRead(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, err := syscall.Read(fd, p)
		if err == nil {
			return n, 0
		}
		if errno := err.(syscall.Errno); errno != syscall.EINTR {
			return 0, errno
		}
	}
}

func plainWrite(fd int, a, b []byte) (int, syscall.Errno) {
	if len(a) == 0 {
		a, b = b, nil
	}
	n, err := syscall.Write(fd, a)
	for err == syscall.EINTR {
		n, err = syscall.Write(fd, a)
	}
	if err != nil {
		return 0, err.(syscall.Errno)
	}
	if n < len(a) || len(b) == 0 {
		return n, 0
	}
	// A failure here is seen again, and reported, by the next call.
	if k, err := syscall.Write(fd, b); err == nil {
		n += k
	}
	return n, 0
}
