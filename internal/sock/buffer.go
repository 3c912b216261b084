package sock

import (
	"sync"
	"sync/atomic"
)

// BufferSize is the capacity of a pooled buffer: 64 KiB of body and the head
// in front of it move in one read and one write.
const BufferSize = 72 << 10

// smallSize is the capacity of a buffer when memory is short.
const smallSize = 4 << 10

// memory is what the pool holds: a pointer to an array costs no allocation on
// its way into a sync.Pool, a slice would.
type (
	memory      [BufferSize]byte
	smallMemory [smallSize]byte
)

var (
	pool = sync.Pool{New: func() any {
		if may := ration.Load(); may != nil && !(*may)() {
			return (*memory)(nil)
		}
		return new(memory)
	}}
	small  = sync.Pool{New: func() any { return new(smallMemory) }}
	ration atomic.Pointer[func() bool]
)

// Ration sets what is asked before a buffer is allocated, when none that was
// given back can be had. While it says no, buffers are small: what is under way
// goes on, with more system calls. It is for the whole process, as memory is;
// nil, and so from the start, is always yes.
func Ration(may func() bool) {
	if may == nil {
		ration.Store(nil)
	} else {
		ration.Store(&may)
	}
}

// Buffer is a window of unread bytes over memory that is borrowed from a pool
// only while there is something in it. The zero value is an empty buffer that
// holds no memory. A Buffer belongs to one goroutine at a time.
type Buffer struct {
	mem   *memory      // the borrowed memory, nil when data is nil, small or grown
	small *smallMemory // the same of the other size
	data  []byte
	r, w  int
}

// Bytes returns the unread bytes. They are valid until the next call that
// changes the buffer.
func (b *Buffer) Bytes() []byte { return b.data[b.r:b.w] }

// Len returns the number of unread bytes.
func (b *Buffer) Len() int { return b.w - b.r }

// Free returns how many bytes can be added without growing.
func (b *Buffer) Free() int {
	if b.data == nil {
		return BufferSize
	}
	return len(b.data) - b.Len()
}

// Consume drops the first n unread bytes, and the memory with the last of them.
func (b *Buffer) Consume(n int) {
	b.r += n
	if b.r > b.w {
		panic("bug: sock: consumed more than the buffer holds")
	}
	if b.r == b.w {
		b.Release()
	}
}

// Cut removes the bytes [from, to) of the unread ones; what is behind them
// moves down.
func (b *Buffer) Cut(from, to int) {
	if from == to {
		return
	}
	n := copy(b.data[b.r+from:], b.data[b.r+to:b.w])
	b.w = b.r + from + n
}

// Release drops all bytes and gives the memory back.
func (b *Buffer) Release() {
	if b.mem != nil {
		pool.Put(b.mem)
	}
	if b.small != nil {
		small.Put(b.small)
	}
	*b = Buffer{}
}

// Grow makes room for at least one more byte, in memory of its own when that of
// the pool is used up, and reports false if that would take the unread
// bytes beyond limit.
func (b *Buffer) Grow(limit int) bool {
	if b.Free() > 0 {
		return true
	}
	if b.Len() >= limit {
		return false
	}
	data := make([]byte, min(2*len(b.data), limit+BufferSize))
	n := copy(data, b.Bytes())
	b.Release()
	b.data, b.w = data, n
	return true
}

// space returns where the next bytes go, borrowing memory first if there is
// none. It is empty when the buffer is full.
func (b *Buffer) space() []byte {
	switch {
	case b.data == nil:
		b.borrow()
	case b.w == len(b.data) && b.r > 0:
		b.w = copy(b.data, b.data[b.r:b.w])
		b.r = 0
	}
	return b.data[b.w:]
}

func (b *Buffer) borrow() {
	if b.mem = pool.Get().(*memory); b.mem != nil {
		b.data = b.mem[:]
		return
	}
	b.small = small.Get().(*smallMemory)
	b.data = b.small[:]
}

// idle gives the memory back if nothing is in it: a connection that waits
// holds no buffer.
func (b *Buffer) idle() {
	if b.r == b.w {
		b.Release()
	}
}
