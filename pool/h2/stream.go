package h2

import (
	"os"
	"time"
)

// Room is how many bytes in front of the data that Body returns are the caller's,
// to put something there.
const Room = 16

// Stream is one request and its answer. While it is lent, one goroutine may use
// Send, Head and Body, and another Write and End. Interrupt and the deadlines may be
// set from any.
type Stream struct {
	// Set once.
	conn   *Conn
	rd, wr chan struct{} // something has changed, for who reads and who writes; each holds one

	state
}

// state is what a stream has of one request. The connection's mutex guards it.
type state struct {
	id          uint32 // 0: nothing was sent
	turn        uint64 // of the connection's writes, the one that its head was in
	err         error  // why it is over
	interrupted bool
	readBy      time.Time
	writeBy     time.Time
	listed      bool // it is about to be woken

	heads  []head // those from first to count were not taken
	first  int
	count  int
	final  bool    // the last of them is a final one
	trail  []Field // trailers
	recv   []byte  // what has come and was not taken, behind Room
	lent   []byte  // what was taken
	taken  int     // how much that is
	ended  bool    // no more comes
	sealed bool    // no more is sent

	recvWindow, credit int64
	sendWindow         int64
	sending            bool // it waits for a window
}

// head is a head that has come.
type head struct {
	status int
	fields []Field
	end    bool
}

// streamLocked returns a stream that is new, or as good as that.
func (c *Conn) streamLocked() *Stream {
	if n := len(c.free); n > 0 {
		s := c.free[n-1]
		c.free = c.free[:n-1]
		return s
	}
	s := &Stream{conn: c, rd: make(chan struct{}, 1), wr: make(chan struct{}, 1)}
	s.recv = make([]byte, Room, 4<<10)
	return s
}

// mostFree is how many streams that are over a connection keeps for others.
const mostFree = 16

// keptBuffer is how much memory for data a stream keeps when it is over.
const keptBuffer = 64 << 10

// over reports whether nothing that comes matters any more.
func (s *Stream) over() bool { return s.err != nil || s.ended }

// take takes a head, or trailers. What is wrong with it is returned.
func (s *Stream) take(b *block) (wrong string) {
	switch {
	case b.wrong != "":
		return b.wrong
	case s.final && (!b.end || b.status != 0):
		return "a second head has come"
	case s.final:
		s.trail, s.ended = append(s.trail[:0], b.fields...), true
		return ""
	case b.status == 0 || b.status == 101:
		return "a head has no status that it may have"
	case b.status < 200 && (b.end || s.count-s.first >= mostInterim):
		return "a 1xx is no answer, and many of them are none either"
	}
	if s.first == s.count {
		s.first, s.count = 0, 0
	}
	if s.count == len(s.heads) {
		s.heads = append(s.heads, head{})
	}
	h := &s.heads[s.count]
	s.count++
	h.status, h.end, h.fields = b.status, b.end, append(h.fields[:0], b.fields...)
	s.final, s.ended = b.status >= 200, b.end
	return ""
}

// receive takes data.
func (s *Stream) receive(p []byte) { s.recv = append(s.recv, p...) }

// wakeLocked wakes whoever waits on the stream.
func (s *Stream) wakeLocked() { s.wake() }

func (s *Stream) wake() {
	select {
	case s.rd <- struct{}{}:
	default:
	}
	select {
	case s.wr <- struct{}{}:
	default:
	}
}

// waitLocked waits until something has changed, or until a time that is set
// otherwise meanwhile. It lets go of the lock.
func (s *Stream) waitLocked(changed <-chan struct{}, by time.Time) {
	c := s.conn
	c.mu.Unlock()
	defer c.mu.Lock()
	if by.IsZero() {
		<-changed
		return
	}
	t := time.NewTimer(time.Until(by))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

// failedLocked returns why nothing more can be had, or sent, now.
func (s *Stream) failedLocked(by time.Time) error {
	switch {
	case s.interrupted:
		return ErrInterrupted
	case s.err != nil:
		return s.err
	case s.conn.err != nil:
		return s.brokenLocked()
	case !by.IsZero() && !time.Now().Before(by):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// brokenLocked says what the end of the connection means for the stream. What was
// never written was never processed.
func (s *Stream) brokenLocked() error {
	c := s.conn
	if s.id == 0 || s.turn == c.turn {
		return &ResetError{Code: NoError, Unprocessed: true, Text: c.err.Error()}
	}
	return c.err
}

// Head waits for the next head of the answer: 1xx, and then a final one. end says
// that nothing follows. It is valid until the next call.
func (s *Stream) Head() (status int, fields []Field, end bool, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if s.interrupted {
			return 0, nil, false, ErrInterrupted
		}
		if s.first < s.count {
			h := &s.heads[s.first]
			s.first++
			return h.status, h.fields, h.end, nil
		}
		if err := s.failedLocked(s.readBy); err != nil {
			return 0, nil, false, err
		}
		s.listed = false
		s.waitLocked(s.rd, s.readBy)
	}
}

// Body returns the data that have come since the last call, behind Room bytes that
// are the caller's, and whether they are the last. A call says that
// what was returned before is done with. If wait is false it does not wait for
// any. There may be an error with data.
func (s *Stream) Body(wait bool) (b []byte, end bool, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.doneLocked()
	for {
		n := len(s.recv) - Room
		switch {
		case s.interrupted:
			return nil, false, ErrInterrupted
		case n > 0 || s.ended:
			return s.lendLocked(n), s.ended, nil
		}
		if err := s.failedLocked(s.readBy); err != nil {
			return nil, false, err
		}
		if !wait {
			return nil, false, nil
		}
		s.listed = false
		s.waitLocked(s.rd, s.readBy)
	}
}

// lendLocked gives out what has come.
func (s *Stream) lendLocked(n int) []byte {
	b := s.recv
	if s.lent = s.lent[:cap(s.lent)]; len(s.lent) < Room {
		s.lent = make([]byte, Room, 4<<10)
	}
	s.recv, s.lent, s.taken = s.lent[:Room], b, n
	return b
}

// doneLocked gives the peer the windows of what was taken anew.
func (s *Stream) doneLocked() {
	c, n := s.conn, int64(s.taken)
	if n == 0 {
		return
	}
	s.taken = 0
	c.consumedLocked(n)
	if s.credit += n; s.credit >= streamWindow/2 && !s.ended && s.err == nil && c.err == nil {
		s.recvWindow += s.credit
		c.out = appendWindowUpdate(c.out, s.id, s.credit)
		s.credit = 0
	}
	c.giveBackLocked()
	c.writeLocked()
}

// consumedLocked notes that data were taken, or will never be.
func (c *Conn) consumedLocked(n int64) {
	c.buffered -= n
	m := min(n, c.owed)
	c.owed -= m
	c.credit += m
}

// Trailers returns the trailers, when the last of the data was returned. They are
// valid until Close.
func (s *Stream) Trailers() []Field {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.trail
}

// Interrupt makes everything under way, and what follows, fail.
func (s *Stream) Interrupt() {
	s.conn.mu.Lock()
	s.interrupted = true
	s.conn.mu.Unlock()
	s.wake()
}

// SetReadDeadline bounds the waits of Head and Body; the zero time lifts the bound.
func (s *Stream) SetReadDeadline(t time.Time) {
	s.conn.mu.Lock()
	s.readBy = t
	s.conn.mu.Unlock()
	s.wake()
}

// SetWriteDeadline bounds the waits of Send, Write and End.
func (s *Stream) SetWriteDeadline(t time.Time) {
	s.conn.mu.Lock()
	s.writeBy = t
	s.conn.mu.Unlock()
	s.wake()
}

// Attach gives the stream memory for data, of an earlier Detach.
func (s *Stream) Attach(b []byte) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.lent = b
}

// Detach returns the memory of what Body has returned last, which is the caller's
// from then on, after Close too; nil if there is none, or much.
func (s *Stream) Detach() []byte {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	b := s.lent
	s.lent = nil
	if cap(b) > keptBuffer {
		return nil
	}
	return b
}

// Close gives the stream back. If one of its sides has not ended the peer is told
// that nothing more is wanted. It reports whether both had.
func (s *Stream) Close() (whole bool) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	whole = s.ended && s.sealed && !s.interrupted
	if s.id != 0 {
		delete(c.streams, s.id)
		if !(s.ended && s.sealed) && s.err == nil && c.err == nil {
			c.out = appendReset(c.out, s.id, Cancel)
			c.figures.Resets++
		}
	}
	c.consumedLocked(int64(s.taken + len(s.recv) - Room))
	c.giveBackLocked()
	c.lent--
	c.writeLocked()
	s.recycle()
	return whole
}

// recycle makes s ready for another request.
func (s *Stream) recycle() {
	recv, heads := s.recv[:Room], s.heads // what is lent may be read on
	if cap(recv) > keptBuffer {
		recv = make([]byte, Room, 4<<10)
	}
	if len(heads) > 2 {
		heads = nil
	}
	for i := range heads {
		clear(heads[i].fields)
	}
	clear(s.trail)
	s.state = state{recv: recv, heads: heads, trail: s.trail[:0]}
	for _, ch := range [...]chan struct{}{s.rd, s.wr} {
		select {
		case <-ch:
		default:
		}
	}
	if c := s.conn; len(c.free) < mostFree {
		c.free = append(c.free, s)
	}
}
