package sock

// Add puts as much of p into the buffer as one read could have.
func (b *Buffer) Add(p []byte) int {
	n := copy(b.space(), p)
	b.w += n
	return n
}

// HoldsMemory reports whether the buffer has memory, borrowed or its own.
func (b *Buffer) HoldsMemory() bool { return b.data != nil }

// Idle does what happens before a wait.
func (b *Buffer) Idle() { b.idle() }
