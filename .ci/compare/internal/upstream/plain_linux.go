// Package upstream answers requests: over plain TCP from one thread with prebuilt answers, and over TLS, as HTTP/1.1 and
// HTTP/2. Each answer carries its request's id.
package upstream

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"github.com/carpoolproxy/carpool/ci/compare/internal/sock"
	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// Counts is what an upstream has seen; GET /counts returns it.
type Counts struct {
	Accepted int64 `json:"accepted"` // connections
	Requests int64 `json:"requests"` // and messages, without those for Counts
	Second   int64 `json:"second"`   // those of Requests that came as HTTP/2
}

// longest is the most bytes that follow the beginning of an answer.
const longest = 4 << 20

var filler = []byte(strings.Repeat("the quick brown fox jumps over the lazy dog 0123456789 abcdefgh\n", longest/64))

// A plain upstream is one event loop.
type plain struct {
	poll   *sock.Poll
	conns  []*conn // by descriptor
	free   []*conn
	buf    []byte
	counts Counts
}

type conn struct {
	fd    int
	head  []byte     // what came of a head that is not whole
	asked wire.Asked // what is read at present, if skip is more than 0
	id    [wire.IDLen]byte
	skip  int    // bytes of its body still to come
	out   []byte // of the answer that is on its way
	more  []byte // what follows out
	last  bool   // the answer ends the connection
}

// Plain serves at the address until the process ends; ready is called once connections are taken.
func Plain(at netip.AddrPort, ready func()) error {
	listener, err := sock.Listen(at, 65535)
	if err != nil {
		return fmt.Errorf("listen %v: %w", at, err)
	}
	u := &plain{buf: make([]byte, 256<<10)}
	if u.poll, err = sock.NewPoll(); err != nil {
		return err
	}
	if err := u.poll.Add(listener); err != nil {
		return err
	}
	ready()
	for {
		events, err := u.poll.Wait(-1)
		if err != nil {
			return err
		}
		for _, event := range events {
			if int(event.Fd) == listener {
				u.accept(listener)
			} else if c := u.conns[event.Fd]; c != nil {
				u.turn(c, event.Events)
			}
		}
	}
}

func (u *plain) accept(listener int) {
	for {
		fd, e := sock.Accept(listener)
		if e == syscall.ECONNABORTED || e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return // there is none, or no descriptor for one
		}
		c := &conn{}
		if n := len(u.free); n > 0 {
			c, u.free = u.free[n-1], u.free[:n-1]
		}
		*c = conn{fd: fd, head: c.head[:0], out: c.out[:0]}
		for fd >= len(u.conns) {
			u.conns = append(u.conns, make([]*conn, 1024)...)
		}
		u.conns[fd] = c
		u.counts.Accepted++
		if u.poll.Add(fd) != nil {
			u.shut(c)
			continue
		}
		u.turn(c, sock.In)
	}
}

func (u *plain) shut(c *conn) {
	u.conns[c.fd] = nil
	sock.Close(c.fd)
	c.fd = -1
	u.free = append(u.free, c)
}

func (u *plain) turn(c *conn, events uint32) {
	if len(c.out)+len(c.more) > 0 && !u.send(c) {
		return
	}
	for {
		n, e := sock.Read(c.fd, u.buf)
		if e == syscall.EAGAIN {
			return
		}
		if e != 0 || n == 0 {
			u.shut(c)
			return
		}
		if !u.take(c, u.buf[:n]) {
			return
		}
		if n < len(u.buf) && events&sock.Ended == 0 {
			return // what comes later is an event of its own
		}
	}
}

// take reads what was asked and answers it; false means that the connection has ended, or that its answer waits for
// room.
func (u *plain) take(c *conn, b []byte) bool {
	for len(b) > 0 {
		if c.skip == 0 {
			if len(c.head) > 0 {
				c.head = append(c.head, b...)
				b = c.head
			}
			a, whole, err := wire.Read(b)
			if err != nil {
				u.shut(c)
				return false
			}
			if !whole {
				if len(c.head) == 0 {
					c.head = append(c.head, b...)
				}
				return true
			}
			c.asked, c.skip = a, a.Body
			c.asked.ID = append(c.id[:0], a.ID[:min(len(a.ID), len(c.id))]...)
			b, c.head = b[a.Head:], c.head[:0]
		}
		n := min(c.skip, len(b))
		c.skip, b = c.skip-n, b[n:]
		if c.skip == 0 && !u.answer(c) {
			return false
		}
	}
	return true
}

func (u *plain) answer(c *conn) bool {
	if c.asked.Kind == wire.Counts {
		body, _ := json.Marshal(u.counts) // of integers: it cannot fail
		c.out = fmt.Appendf(c.out[:0], "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return u.send(c)
	}
	if c.asked.Kind != wire.Tunnel {
		u.counts.Requests++
	}
	var follow int
	c.out, follow = wire.AppendAnswer(c.out[:0], c.asked)
	c.more, c.last = filler[:min(follow, longest)], c.asked.Last
	return u.send(c)
}

// send writes what is left of an answer; false means that the connection has ended, or that there is no room.
func (u *plain) send(c *conn) bool {
	for len(c.out)+len(c.more) > 0 {
		first, second := c.out, c.more
		if len(first) == 0 {
			first, second = c.more, nil
		}
		n, e := sock.Write(c.fd, first, second)
		if e == syscall.EAGAIN {
			return false
		}
		if e != 0 {
			u.shut(c)
			return false
		}
		of := min(n, len(c.out))
		c.out, c.more = c.out[of:], c.more[n-of:]
	}
	if c.last {
		u.shut(c)
		return false
	}
	return true
}
