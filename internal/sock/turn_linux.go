package sock

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// Raw system calls keep the runtime's monitor asleep, and the monitor is who
// preempts a goroutine that never parks and who polls the network while run
// queues are never empty. So each direction of a connection has credit for so
// many calls and bytes since either of them last parked; when it is used up, the
// goroutine lets all others have their turn. Either, because a connection that
// carries one short exchange after the other parks only in its reads.
const (
	creditCalls = 64
	creditBytes = 256 << 10
)

type credit struct {
	calls, bytes int    // used
	parks        uint32 // since so many
}

// spent reports whether the credit is used up.
func (k *credit) spent(parks uint32) bool {
	if k.parks != parks {
		*k = credit{parks: parks}
	}
	return k.calls >= creditCalls || k.bytes >= creditBytes
}

func (k *credit) use(n int) {
	k.calls++
	k.bytes += n
}

// turnstile makes a goroutine wait until the runtime has asked the kernel which
// sockets are ready, so that those who wait for them run. runtime.Gosched does
// not: it goes on with the same goroutine when no other is ready already. An
// ordinary system call would, by waking the monitor, but then costs wake-ups of
// threads for each buffer of a long transfer.
type turnstile struct {
	raw syscall.RawConn // of an eventfd

	mu   sync.Mutex // held by who is in it, parked most of that time
	rung bool
	pass func(uintptr) bool
}

// theTurnstile is the process's, or nil where there can be none. It is there from
// the beginning, so that it is not short of a descriptor when it is needed.
var theTurnstile = newTurnstile()

func newTurnstile() *turnstile {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil
	}
	raw, err := os.NewFile(fd, "turnstile").SyscallConn()
	if err != nil {
		return nil
	}
	t := &turnstile{raw: raw}
	t.pass = t.ringAndPass
	return t
}

// takeTurn lets other goroutines run whose sockets are ready by now.
func takeTurn() {
	t := theTurnstile
	if t == nil {
		runtime.Gosched()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rung = false
	_ = t.raw.Read(t.pass) // cannot fail: nobody closes it
}

// ringAndPass is the netpoller's callback. The first time it makes the eventfd
// readable and asks to be called again when that has been seen.
func (t *turnstile) ringAndPass(fd uintptr) bool {
	n := uint64(1)
	call := uintptr(syscall.SYS_READ)
	if !t.rung {
		call = syscall.SYS_WRITE
	}
	_, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(&n)), unsafe.Sizeof(n))
	passed := t.rung || errno != 0
	t.rung = true
	return passed
}
