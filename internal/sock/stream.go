// Package sock is the socket of both halves of carpool: a net.Conn that can
// also read without holding a buffer while it waits.
//
// On Linux it talks to the kernel by raw, non-blocking system calls, because
// the ordinary ones tell the Go scheduler about every call; at a sidecar's load
// that wakes the runtime's monitor thread, which then costs more than the
// proxying. See conn_linux.go. Everywhere else it is a plain net.Conn.
package sock

import (
	"net"
	"time"
)

// Stream is a connection that carries bytes in both directions: a Conn, or
// TLS over one. One goroutine may read while another writes.
type Stream interface {
	net.Conn

	// Fill waits for bytes and adds what one read gives to b. b holds no memory
	// while the call waits, unless there were bytes in it before. The error is
	// io.EOF at the end of the stream, and ErrFull if b has no room, which is the
	// caller's to see to (see Buffer.Grow); b is unchanged when there is one.
	Fill(b *Buffer) error

	// Writev writes a, then b, in one system call where that is possible. It
	// returns how many bytes were accepted, all of them if err is nil.
	Writev(a, b []byte) (int, error)

	// CloseWrite ends this side of the stream, so that the peer reads EOF.
	CloseWrite() error

	// CloseRead ends the other side: nothing more is wanted.
	CloseRead() error
}

// Keep-alive of accepted connections: a silent one is probed after a minute, and
// given up after another in which no probe was answered.
const (
	probeAfter = time.Minute
	probeEvery = 15 * time.Second
	probes     = 4
)

// Layer is a connection layered over another, TLS, for instance.
type Layer interface {
	net.Conn
	// ReadMore reads what is there already, without waiting, and returns 0 if there is
	// nothing, or an error, which the next Read returns.
	ReadMore(p []byte) int
}

// Over returns a Stream that reads and writes through a layer.
func Over(l Layer) Stream { return &layered{Layer: l} }

type layered struct {
	Layer
	first [1]byte
}

// Fill implements Stream. A layer cannot say when bytes are there, so what waits is
// the first of them, outside of the buffer. A layer gives one record at a time; those
// that have come leave together.
func (l *layered) Fill(b *Buffer) error {
	switch {
	case b.Free() == 0:
		return ErrFull
	case b.Len() == 0:
		b.Release()
	}
	if n, err := l.Read(l.first[:]); n == 0 {
		return err
	}
	n := copy(b.space(), l.first[:])
	for n > 0 {
		b.w += n
		n = 0
		if p := b.space(); len(p) > 0 {
			n = l.ReadMore(p)
		}
	}
	return nil
}

// Writev implements Stream.
func (l *layered) Writev(a, b []byte) (int, error) { return writeBoth(l.Layer, a, b) }

// CloseWrite implements Stream: for TLS it sends close_notify.
func (l *layered) CloseWrite() error {
	if c, ok := l.Layer.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return l.Close()
}

// CloseRead implements Stream. There is no such thing in a layer.
func (l *layered) CloseRead() error { return nil }

// writeBoth is Writev for connections that can only Write: short messages are
// joined so that they leave in one packet.
func writeBoth(c net.Conn, a, b []byte) (int, error) {
	if len(b) == 0 {
		return c.Write(a)
	}
	if len(a) > 0 && len(a)+len(b) <= BufferSize {
		if m := pool.Get().(*memory); m != nil {
			defer pool.Put(m)
			n := copy(m[:], a)
			n += copy(m[n:], b)
			return c.Write(m[:n])
		}
	}
	n, err := c.Write(a)
	if err != nil {
		return n, err
	}
	k, err := c.Write(b)
	return n + k, err
}
