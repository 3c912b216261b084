package sock

import (
	"os"
	"syscall"
)

// Watcher notices when peers hang up on connections that nobody reads. It
// costs one descriptor and one goroutine for all of them.
//
// It is an epoll descriptor of its own, parked in Go's netpoller, that is
// asked for hang-ups only: answers that arrive do not wake it.
type Watcher struct {
	file *os.File
	fd   int
	gone func(id uint64)
	done chan struct{}
}

// CanWatch says whether Watcher works here; where it does not, hang-ups are
// found by Conn.Pending.
const CanWatch = true

// NewWatcher starts a Watcher that calls gone, from its own goroutine, with
// the id of a connection whose peer has closed or reset it.
func NewWatcher(gone func(id uint64)) (*Watcher, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or NewFile would not park on it
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "watcher"), fd: fd, gone: gone, done: make(chan struct{})}
	raw, err := w.file.SyscallConn()
	if err != nil {
		_ = w.file.Close()
		return nil, err
	}
	go w.run(raw)
	return w, nil
}

// Add watches c until it is closed. An event for id can still come shortly
// after.
func (w *Watcher) Add(c *Conn, id uint64) error {
	const rdhupEdge = syscall.EPOLLRDHUP | 1<<31 // EPOLLET
	e := syscall.EpollEvent{Events: rdhupEdge, Fd: int32(id), Pad: int32(id >> 32)}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(w.fd, syscall.EPOLL_CTL_ADD, c.fd, &e))
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
			w.gone(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
	}
}
