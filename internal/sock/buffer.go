package sock

import "sync"

// BufferSize is the capacity of a pooled buffer: 64 KiB of body and the head
// in front of it move in one read and one write.
const BufferSize = 72 << 10

// memory is what the pool holds: a pointer to an array costs no allocation on
// its way into a sync.Pool, a slice would.
type memory [BufferSize]byte

var pool = sync.Pool{New: func() any { return new(memory) }}

// Buffer is a window of unread bytes over memory that is borrowed from a pool
// only while there is something in it. The zero value is an empty buffer that
// holds no memory. A Buffer belongs to one goroutine at a time.
type Buffer struct {
	mem  *memory // the borrowed memory, nil when data is nil or grown
	data []byte
	r, w int
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
	*b = Buffer{}
}

// Grow makes room for at least one more byte, in memory of its own when the
// pooled size is used up, and reports false if that would take the unread
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
		b.mem = pool.Get().(*memory)
		b.data = b.mem[:]
	case b.w == len(b.data) && b.r > 0:
		b.w = copy(b.data, b.data[b.r:b.w])
		b.r = 0
	}
	return b.data[b.w:]
}

// idle gives the memory back if nothing is in it: a connection that waits
// holds no buffer.
func (b *Buffer) idle() {
	if b.r == b.w {
		b.Release()
	}
}
