package sock

import (
	"os"
	"syscall"
)

// Watcher notices what happens on connections that nobody reads. It costs one
// descriptor and one goroutine for all of them.
//
// It is an epoll descriptor of its own, parked in Go's netpoller. Asked for
// hang-ups only (Add), it is not woken by answers that arrive.
type Watcher struct {
	file *os.File
	fd   int
	wake func(id uint64)
	done chan struct{}
}

// CanWatch says whether Watcher works here; where it does not, hang-ups are
// found by Conn.Pending.
const CanWatch = true

// NewWatcher starts a Watcher that calls wake, from its own goroutine, with the
// id of a connection on which something has happened. A call for an id can come
// late, after its connection was closed.
func NewWatcher(wake func(id uint64)) (*Watcher, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or NewFile would not park on it
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "watcher"), fd: fd, wake: wake, done: make(chan struct{})}
	raw, err := w.file.SyscallConn()
	if err != nil {
		_ = w.file.Close()
		return nil, err
	}
	go w.run(raw)
	return w, nil
}

// Add watches c, until it is closed, for its peer to close or reset it.
func (w *Watcher) Add(c *Conn, id uint64) error {
	const hangUp = syscall.EPOLLRDHUP | 1<<31 // EPOLLET
	return os.NewSyscallError("epoll_ctl", w.control(syscall.EPOLL_CTL_ADD, hangUp, c, id))
}

// Arm watches c for the next time that there is something to read, the end
// included, and then no longer. Bytes that are there already count.
func (w *Watcher) Arm(c *Conn, id uint64) error {
	const readable = syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT
	err := w.control(syscall.EPOLL_CTL_MOD, readable, c, id)
	if err == syscall.ENOENT { // the first time
		err = w.control(syscall.EPOLL_CTL_ADD, readable, c, id)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (w *Watcher) control(op int, events uint32, c *Conn, id uint64) error {
	e := syscall.EpollEvent{Events: events, Fd: int32(id), Pad: int32(id >> 32)}
	return syscall.EpollCtl(w.fd, op, c.fd, &e)
}

// Close ends the watch and waits for its goroutine.
func (w *Watcher) Close() error {
	err := w.file.Close()
	<-w.done
	return err
}

func (w *Watcher) run(raw syscall.RawConn) {
	defer close(w.done)
	var events [64]syscall.EpollEvent
	n := 0
	wait := func(fd uintptr) bool {
		n, _ = syscall.EpollWait(int(fd), events[:], 0)
		return n > 0
	}
	for raw.Read(wait) == nil {
		for _, e := range events[:n] {
			w.wake(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
	}
}
