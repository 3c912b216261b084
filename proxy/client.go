package proxy

import (
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// client is the connection that a session serves, as HTTP is spoken on it. It
// belongs to the session's goroutine, but for what an upload reads.
type client struct {
	cfg    *Config
	conn   sock.Conn   // the accepted connection
	stream sock.Stream // conn, or a layer over it
	in     sock.Buffer // what has come and was not used yet

	// unheard says that the client was told that it has a tunnel, and that nothing was
	// heard of it since: what comes need not be HTTP.
	unheard bool

	linger bool // read on for a while before the connection is closed
	abort  bool // close it so that the answer is seen to be broken
}

// begin makes c ready for the connection that is accepted next.
func (c *client) begin(cfg *Config) { c.cfg, c.stream = cfg, &c.conn }

// end forgets the connection, which is closed.
func (c *client) end() {
	c.in.Release()
	c.cfg, c.stream, c.unheard, c.linger, c.abort = nil, nil, false, false, false
}

// skipEmptyLines drops empty lines in front of a request (RFC 9112 section
// 2.2). They do not begin one: some clients end a body with one.
func (c *client) skipEmptyLines() {
	if c.unheard {
		return
	}
	for b := c.in.Bytes(); len(b) >= 2 && b[0] == '\r' && b[1] == '\n'; b = c.in.Bytes() {
		c.in.Consume(2)
	}
}

// readHead reads until the head of a request is there, and returns its length. Its
// first byte has come.
func (c *client) readHead(r *http1.Request) (int, error) {
	timed := false
	for {
		n, err := r.Parse(c.in.Bytes(), c.cfg.MaxHeaderBytes)
		if err == nil {
			if timed {
				err = c.stream.SetReadDeadline(time.Time{})
			}
			return n, err
		}
		if err != http1.ErrIncomplete {
			return 0, err
		}
		if t := c.cfg.ClientHeaderTimeout; t > 0 && !timed {
			timed = true
			if err := c.stream.SetReadDeadline(time.Now().Add(t)); err != nil {
				return 0, err
			}
		}
		if !c.in.Grow(2 * c.cfg.MaxHeaderBytes) { // the parser's own limit comes first
			return 0, &problemHeadSize
		}
		if err := c.stream.Fill(&c.in); err != nil {
			return 0, err
		}
	}
}

// send writes a part of an answer that was relayed.
func (c *client) send(head, body []byte) error {
	if len(head)+len(body) == 0 {
		return nil
	}
	if t := c.cfg.BodyIdleTimeout; t > 0 {
		if err := c.stream.SetWriteDeadline(time.Now().Add(t)); err != nil {
			return err
		}
	}
	_, err := c.stream.Writev(head, body)
	return err
}

// sent lifts the limit that send has set.
func (c *client) sent() {
	if c.cfg.BodyIdleTimeout > 0 {
		_ = c.stream.SetWriteDeadline(time.Time{})
	}
}

// Bounds on reading what a client still sends after the last answer (RFC 9112
// section 9.6): closing with bytes unread resets the connection, and the
// client might never see the answer.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// lingerOn ends the connection for writing and reads what still comes, if that is
// due.
func (c *client) lingerOn() {
	if !c.linger || c.stream.CloseWrite() != nil || c.stream.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	for n := 0; n < lingerBytes; {
		c.in.Release()
		if c.stream.Fill(&c.in) != nil {
			return
		}
		n += c.in.Len()
	}
}
