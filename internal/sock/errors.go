package sock

import (
	"errors"
	"syscall"
)

// ErrFull is returned by Stream.Fill for a buffer without room. A read into no
// room looks like the end of the stream, or like a read that gave nothing.
var ErrFull = errors.New("sock: the buffer is full")

// ErrNoSplice is returned by Splice when it cannot go on although both connections can:
// whoever gets it copies.
var ErrNoSplice = errors.New("sock: not spliced")

// Exhausted reports whether err is a lack of descriptors or of memory for
// sockets, which passes when others are closed.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// TimedOut reports whether err, of an established connection, is the kernel's
// own verdict that the peer gives no sign of life (TCP_USER_TIMEOUT,
// keep-alive), not a deadline set here. Where routers or ARP said meanwhile
// that the peer cannot be reached, the verdict carries their words.
func TimedOut(err error) bool {
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
