package load

import (
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/sock"
	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

type state uint8

const (
	busy   state = iota
	idle         // between exchanges, in g.idle
	ending       // the exchange is over, the other side is to close
	shut
)

// A client is one connection.
type client struct {
	fd       int
	state    state
	host     int
	step     int  // which turn it is: first those of Spec.Open
	opening  bool // no exchange is to follow Open yet
	last     bool // the answer said that the connection ends
	due      int64
	deadline int64
	out      []byte // what is to send
	sent     int
	in       []byte // what came of the beginning of an answer
	left     int    // bytes of the answer still to come; -1: its beginning is not whole
	id       [wire.IDLen]byte
}

const (
	exchangeLimit = int64(10 * time.Second)
	closeLimit    = int64(2 * time.Second)
)

// connect opens a connection. opening says that it is to stand ready, with no exchange begun.
func (g *Generator) connect(due int64, opening bool) {
	fd, err := sock.Connect(g.spec.Proxy, g.source())
	if err != nil {
		g.wrong("connect: " + err.Error())
		g.failed++
		return
	}
	c := &client{}
	if n := len(g.free); n > 0 {
		c, g.free = g.free[n-1], g.free[:n-1]
	}
	*c = client{fd: fd, opening: opening, host: g.host, due: due, deadline: g.now() + exchangeLimit, out: c.out[:0], in: c.in[:0]}
	g.host = (g.host + 1) % len(g.texts)
	for fd >= len(g.byFD) {
		g.byFD = append(g.byFD, make([]*client, 1024)...)
	}
	g.byFD[fd] = c
	g.result.Opened++
	g.open++
	g.outstanding++
	if err := g.poll.Add(fd); err != nil {
		g.fail(c, "epoll: "+err.Error())
		return
	}
	if opening && len(g.spec.Open) == 0 {
		g.rest(c)
		return
	}
	g.say(c)
}

// source spreads many connections over addresses: one has 28,000 ports. Few take the one that the kernel chooses.
func (g *Generator) source() netip.Addr {
	const each = 10000
	if g.open < each {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + g.open/each)})
}

// again begins an exchange on a connection that is idle.
func (g *Generator) again(c *client, due int64) {
	c.state, c.step, c.opening, c.due, c.deadline = busy, len(g.spec.Open), false, due, g.now()+exchangeLimit
	if len(g.spec.Open) == 0 { // else the connection leads to one host
		c.host = g.host
		g.host = (g.host + 1) % len(g.texts)
	}
	g.outstanding++
	g.say(c)
}

// say sends what the client's turn says.
func (g *Generator) say(c *client) {
	text := g.texts[c.host][c.step]
	c.out, c.sent, c.left, c.in = append(c.out[:0], text.Bytes...), 0, -1, c.in[:0]
	if text.ID >= 0 {
		g.next++
		wire.PutID(c.id[:], g.next)
		copy(c.out[text.ID:], c.id[:])
	}
	g.write(c)
}

func (g *Generator) write(c *client) {
	for c.sent < len(c.out) {
		n, e := sock.Write(c.fd, c.out[c.sent:], nil)
		switch e {
		case 0:
			c.sent += n
		case syscall.EAGAIN, syscall.ENOTCONN:
			return // an event says when there is room
		default:
			g.fail(c, "write: "+e.Error())
			return
		}
	}
}

// read takes what has come.
func (g *Generator) read(c *client, ended bool) {
	for c.state != shut {
		n, e := sock.Read(c.fd, g.buf)
		if e == syscall.EAGAIN || e == syscall.ENOTCONN {
			return
		}
		if e != 0 || n == 0 {
			g.ended(c, e)
			return
		}
		g.take(c, g.buf[:n])
		if n < len(g.buf) && !ended {
			return // what comes later is an event of its own
		}
	}
}

func (g *Generator) ended(c *client, e syscall.Errno) {
	switch {
	case c.state == ending:
		g.shut(c)
	case c.state == idle:
		g.result.Lost++
		g.shut(c)
	case e != 0:
		g.fail(c, "read: "+e.Error())
	default:
		g.fail(c, "closed before the answer was whole")
	}
}

func (g *Generator) take(c *client, b []byte) {
	for len(b) > 0 && c.state != shut {
		if c.state != busy {
			g.wrong("bytes behind an answer")
			g.shut(c)
			return
		}
		if c.left < 0 {
			if len(c.in) > 0 {
				c.in = append(c.in, b...)
				b = c.in
			}
			used, left, last, err := g.turns[c.step].begin(b, c.id[:])
			if err == nil && left < 0 {
				err = fmt.Errorf("an answer that is too short")
			}
			if err != nil {
				g.fail(c, err.Error())
				return
			}
			if used == 0 {
				if len(c.in) == 0 {
					c.in = append(c.in, b...)
				}
				return
			}
			c.left, c.last, b = left, last, b[used:]
		}
		n := min(c.left, len(b))
		c.left, b = c.left-n, b[n:]
		if c.left == 0 {
			g.turned(c)
		}
	}
}

// turned goes on after a turn.
func (g *Generator) turned(c *client) {
	c.step++
	switch {
	case c.step == len(g.spec.Open) && c.opening:
		g.rest(c)
	case c.step < len(g.turns):
		g.say(c)
	default:
		g.over(c)
	}
}

// rest lets a client wait for its next exchange.
func (g *Generator) rest(c *client) {
	g.outstanding--
	c.state = idle
	g.idle = append(g.idle, c)
}

// over counts an exchange that was right.
func (g *Generator) over(c *client) {
	now := g.now()
	g.result.Done++
	g.result.Latency.Record(now - c.due)
	g.finished = now
	switch {
	case g.spec.End == ByServer:
		c.state, c.deadline = ending, now+closeLimit
		g.outstanding--
	case g.spec.End == ByClient || c.last:
		g.outstanding--
		g.shut(c)
	default:
		g.rest(c)
	}
	if g.more(now) {
		g.begin(now)
	}
}

// begin begins an exchange, on an idle connection if there is one.
func (g *Generator) begin(due int64) {
	for len(g.idle) > 0 {
		c := g.idle[0]
		g.idle = g.idle[1:]
		if c.state == idle {
			g.again(c, due)
			return
		}
	}
	g.connect(due, false)
}

func (g *Generator) wrong(what string) { g.result.Errors[what]++ }

// fail counts an exchange that went wrong; in a closed loop another one takes its place, after a moment.
func (g *Generator) fail(c *client, what string) {
	if c.state == busy {
		g.outstanding--
	}
	g.wrong(what)
	g.shut(c)
	g.failed++
}

func (g *Generator) shut(c *client) {
	if c.state == shut {
		return
	}
	g.byFD[c.fd] = nil
	sock.Close(c.fd)
	g.open--
	if c.state != idle { // an idle one is in g.idle still
		g.done = append(g.done, c)
	}
	c.state = shut
}
