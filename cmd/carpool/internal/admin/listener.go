package admin

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// DefaultConnections is how many connections the listener has at a time where there are files enough.
	DefaultConnections = 32
	// sendBuffer and receiveBuffer bound what the kernel holds for a connection. Its own idea of that is megabytes, and
	// they count as the container's memory.
	sendBuffer    = 64 << 10
	receiveBuffer = 16 << 10
)

// bounded is a listener with a bound on the connections that are open at a time. Who comes is always taken: the
// connection on which nothing has happened for longest has to go for it. The kubelet, which connects, asks and leaves, so
// gets its answer whoever else is there and does not read.
type bounded struct {
	net.Listener
	most int
	// room, if not nil, closes something elsewhere when the process has no descriptor left, and reports whether it did.
	room func() bool

	mu   sync.Mutex // guards open and the conns' events; never held across I/O
	open map[*conn]struct{}
	last uint64 // event
}

// conn is a connection of a bounded listener.
type conn struct {
	*net.TCPConn
	from  *bounded
	event uint64 // when something happened on it, on a clock that counts events
}

func newBounded(l net.Listener, most int, room func() bool) *bounded {
	return &bounded{Listener: l, most: most, room: room, open: map[*conn]struct{}{}}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if exhausted(err) && (b.evict(1) || b.room != nil && b.room()) { // one, and then see: the server waits before it asks again
		c, err = b.Listener.Accept()
	}
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	_ = tcp.SetWriteBuffer(sendBuffer) // without it the bound is the kernel's
	_ = tcp.SetReadBuffer(receiveBuffer)
	a := &conn{TCPConn: tcp, from: b}
	b.mu.Lock()
	b.open[a] = struct{}{}
	b.touchLocked(a)
	b.mu.Unlock()
	b.evict(b.most + 1)
	return a, nil
}

// exhausted reports whether the process has no descriptor left. Of other shortages closing one's own cures none.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE)
}

// happened notes that something has happened on a connection: http.Server's ConnState.
func (b *bounded) happened(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touchLocked(c.(*conn))
}

func (b *bounded) touchLocked(c *conn) {
	b.last++
	c.event = b.last
}

// evict closes the connection on which nothing has happened for longest, if atLeast or more are open.
func (b *bounded) evict(atLeast int) bool {
	b.mu.Lock()
	var oldest *conn
	if len(b.open) >= atLeast {
		for c := range b.open {
			if oldest == nil || c.event < oldest.event {
				oldest = c
			}
		}
	}
	b.mu.Unlock()
	if oldest == nil {
		return false
	}
	_ = oldest.SetLinger(0) // what it has not read until now it need not have
	_ = oldest.Close()
	return true
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.from.mu.Lock()
	delete(c.from.open, c)
	c.from.mu.Unlock()
	return c.TCPConn.Close()
}

// pace spaces what is costly to answer, so that whoever asks in a loop takes a bounded share of the processor and not
// that of the app's requests. It is safe for concurrent use.
type pace struct {
	every time.Duration

	mu   sync.Mutex // guards next
	next time.Time
}

// wait waits for the caller's turn: no longer than every for each who came before and waits.
func (p *pace) wait(done <-chan struct{}) {
	p.mu.Lock()
	now := time.Now()
	turn := p.next
	if turn.Before(now) {
		turn = now
	}
	p.next = turn.Add(p.every)
	p.mu.Unlock()
	if turn == now {
		return
	}
	timer := time.NewTimer(turn.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
