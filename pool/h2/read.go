package h2

import (
	"encoding/binary"
	"time"
)

// Run reads until the connection is over. It is called once, on a goroutine of its
// own. A panic in it ends the connection, and is the caller's to contain.
func (c *Conn) Run() {
	defer c.over()
	c.mu.Lock()
	c.writeLaterLocked()
	c.mu.Unlock()
	for {
		if err := c.step(); err != nil {
			c.mu.Lock()
			c.failLocked(err)
			c.mu.Unlock()
			return
		}
	}
}

// over ends what Run has done, a panic included.
func (c *Conn) over() {
	c.mu.Lock()
	c.failLocked(connError(codeInternal, "the reader has ended"))
	err := c.err
	c.in.Release()
	settled := c.settled
	c.farewellLocked()
	c.mu.Unlock()
	if !settled {
		close(c.ready)
	}
	close(c.ended)
	c.cfg.Events.Gone(err)
}

// farewell is how long a peer has to take what it is told at the end.
const farewell = 50 * time.Millisecond

// farewellLocked tells the peer why the connection ends, if there is a reason and
// nothing is in the way.
func (c *Conn) farewellLocked() {
	code := NoError
	if broken, is := c.err.(*Error); is {
		code = broken.Code
	} else if c.err != ErrClosed {
		return
	}
	if c.writing || len(c.out) > 0 {
		return
	}
	c.out = appendGoAway(c.out, code)
	_ = c.cfg.Transport.SetWriteDeadline(time.Now().Add(farewell))
	c.writeLocked()
	_ = c.cfg.Transport.SetDeadline(time.Unix(1, 0))
}

// step handles what is there, tells of it, and reads on.
func (c *Conn) step() error {
	err := c.handle()
	c.tell()
	if err != nil {
		return err
	}
	if !c.in.Grow(2 * minFrame) {
		return connError(codeFrameSize, "a frame is too long")
	}
	if err := c.cfg.Transport.Fill(&c.in); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil { // it was made to fail
			return c.err
		}
		return err
	}
	return nil
}

// handle handles the frames that have come in whole.
func (c *Conn) handle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.handleLocked(); err != nil {
		return err
	}
	c.giveBackLocked()
	c.writeLaterLocked()
	return c.err
}

// tell wakes those for which something has come.
func (c *Conn) tell() {
	for i, s := range c.woken {
		s.wake()
		c.woken[i] = nil
	}
	c.woken = c.woken[:0]
	told := c.signal
	c.signal = signal{}
	if told.leaving {
		c.cfg.Events.Leaving()
	}
	if told.room {
		c.cfg.Events.Room()
	}
}

func (c *Conn) handleLocked() error {
	for c.in.Len() > 0 {
		f, n, err := parseFrame(c.in.Bytes())
		if err != nil || n == 0 {
			return err
		}
		c.heard = true
		if err := c.frameLocked(&f); err != nil {
			return err
		}
		c.in.Consume(n)
	}
	return nil
}

func (c *Conn) frameLocked(f *frame) error {
	if !c.settled && f.kind != frameSettings {
		return connError(codeProtocol, "the peer does not begin with its settings")
	}
	if c.block.open && (f.kind != frameContinuation || f.id != c.block.id) {
		return connError(codeProtocol, "a head is interrupted")
	}
	switch f.kind {
	case frameData:
		return c.dataLocked(f)
	case frameHeaders:
		return c.headersLocked(f)
	case frameContinuation:
		return c.continuationLocked(f)
	}
	if c.idleFrames++; c.idleFrames > mostIdleFrames {
		return connError(codeCalm, "too many frames carry nothing")
	}
	switch f.kind {
	case frameReset:
		return c.resetLocked(f)
	case frameSettings:
		return c.settingsLocked(f)
	case framePush:
		return connError(codeProtocol, "the peer pushes, which was not allowed")
	case framePing:
		return c.pingLocked(f)
	case frameGoAway:
		return c.goAwayLocked(f)
	case frameWindowUpdate:
		return c.windowLocked(f)
	}
	return nil // RFC 9113 section 5.5
}

// streamOfLocked returns the stream of a frame, nil if it is over.
func (c *Conn) streamOfLocked(f *frame) (*Stream, error) {
	if f.id == 0 || f.id&1 == 0 || f.id >= c.nextID {
		return nil, connError(codeProtocol, "a frame is for a stream that was not begun")
	}
	return c.streams[f.id], nil
}

func (c *Conn) dataLocked(f *frame) error {
	s, err := c.streamOfLocked(f)
	if err != nil {
		return err
	}
	whole := int64(len(f.payload))
	if err := f.unpad(); err != nil {
		return err
	}
	if c.recvWindow -= whole; c.recvWindow < 0 {
		return connError(codeFlow, "the peer sends more than the connection's window")
	}
	if len(f.payload) == 0 && !f.has(flagEnd) {
		if c.idleFrames++; c.idleFrames > mostIdleFrames {
			return connError(codeCalm, "too many frames carry nothing")
		}
	}
	c.speakLocked()
	if s == nil || s.over() {
		c.credit += whole
		return nil
	}
	if s.recvWindow -= whole; s.recvWindow < 0 {
		return connError(codeFlow, "the peer sends more than a stream's window")
	}
	if !s.final {
		c.credit += whole
		return c.breakLocked(s, codeProtocol, "data come before a head")
	}
	n := int64(len(f.payload))
	padding := whole - n
	c.credit += padding
	s.credit += padding
	if n > 0 {
		c.idleFrames--
	}
	if c.buffered += n; c.buffered <= mostBuffered {
		c.credit += n
	} else {
		c.owed += n
	}
	s.receive(f.payload)
	s.ended = f.has(flagEnd)
	c.wakeLaterLocked(s)
	return nil
}

// speakLocked notes that the peer has sent a head or data.
func (c *Conn) speakLocked() { c.pings = 0 }

// breakLocked ends a stream of which the peer broke a rule.
func (c *Conn) breakLocked(s *Stream, code Code, text string) error {
	s.err = &ResetError{Code: code, Text: text}
	c.out = appendReset(c.out, s.id, code)
	c.figures.Resets++
	c.wakeLaterLocked(s)
	return nil
}

func (c *Conn) wakeLaterLocked(s *Stream) {
	if !s.listed {
		s.listed = true
		c.woken = append(c.woken, s)
	}
}

func (c *Conn) resetLocked(f *frame) error {
	s, err := c.streamOfLocked(f)
	if err != nil {
		return err
	}
	if len(f.payload) != 4 {
		return connError(codeFrameSize, "a reset has the wrong length")
	}
	if s == nil || s.err != nil {
		return nil
	}
	c.figures.Resets++
	code := Code(binary.BigEndian.Uint32(f.payload))
	s.err = &ResetError{Code: code, Remote: true, Unprocessed: code == codeRefused || code == http11Required}
	c.wakeLaterLocked(s)
	return nil
}

func (c *Conn) settingsLocked(f *frame) error {
	p := f.payload
	switch {
	case f.id != 0:
		return connError(codeProtocol, "settings are for a stream")
	case f.has(flagAck):
		if len(p) != 0 || !c.settled {
			return connError(codeFrameSize, "an acknowledgement of settings is odd")
		}
		return nil
	case len(p)%6 != 0:
		return connError(codeFrameSize, "settings have the wrong length")
	}
	for ; len(p) > 0; p = p[6:] {
		if err := c.settingLocked(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.signal.room = true
	if !c.settled {
		c.settled = true
		close(c.ready)
	}
	return c.replyLocked(frameSettings, nil)
}

func (c *Conn) settingLocked(id uint16, v uint32) error {
	switch id {
	case settingTableSize:
		c.enc.SetMaxDynamicTableSize(min(v, mostTable))
	case settingMaxStreams:
		c.limit = int(min(v, mostStreams))
	case settingInitialWindow:
		if v > maxWindow {
			return connError(codeFlow, "the first window is too large")
		}
		more := int64(v) - c.firstWindow
		c.firstWindow = int64(v)
		for _, s := range c.streams {
			if s.sendWindow += more; s.sendWindow > maxWindow {
				return connError(codeFlow, "a window is too large")
			}
			c.wakeLaterLocked(s)
		}
	case settingMaxFrame:
		if v < minFrame || v >= 1<<24 {
			return connError(codeProtocol, "the largest frame is out of range")
		}
		c.maxFrame = int(min(v, maxFrame))
	}
	return nil
}

// replyLocked acknowledges a frame.
func (c *Conn) replyLocked(kind byte, payload []byte) error {
	if len(c.out) > mostReplies {
		return connError(codeCalm, "the peer asks for replies and does not read")
	}
	c.out = append(appendFrame(c.out, kind, flagAck, 0, len(payload)), payload...)
	return nil
}

func (c *Conn) pingLocked(f *frame) error {
	switch {
	case f.id != 0:
		return connError(codeProtocol, "a ping is for a stream")
	case len(f.payload) != 8:
		return connError(codeFrameSize, "a ping has the wrong length")
	case f.has(flagAck):
		if c.waits > 0 {
			c.waits = 0
			c.signal.room = true // which was in doubt
		}
		return nil
	}
	return c.replyLocked(framePing, f.payload)
}

func (c *Conn) goAwayLocked(f *frame) error {
	switch {
	case f.id != 0:
		return connError(codeProtocol, "a farewell is for a stream")
	case len(f.payload) < 8:
		return connError(codeFrameSize, "a farewell is too short")
	}
	last := binary.BigEndian.Uint32(f.payload) &^ (1 << 31)
	code := Code(binary.BigEndian.Uint32(f.payload[4:]))
	c.figures.GoAways++
	for _, s := range c.streams {
		if s.id > last && s.err == nil {
			s.err = &ResetError{Code: code, Remote: true, Unprocessed: true}
			c.wakeLaterLocked(s)
		}
	}
	if !c.leaving {
		c.leaving, c.signal.leaving = true, true
	}
	return nil
}

func (c *Conn) windowLocked(f *frame) error {
	if len(f.payload) != 4 {
		return connError(codeFrameSize, "a window update has the wrong length")
	}
	n := int64(binary.BigEndian.Uint32(f.payload) &^ (1 << 31))
	if f.id == 0 {
		if n == 0 {
			return connError(codeProtocol, "a window grows by nothing")
		}
		if c.sendWindow += n; c.sendWindow > maxWindow {
			return connError(codeFlow, "the connection's window is too large")
		}
		for _, s := range c.streams {
			if s.sending {
				c.wakeLaterLocked(s)
			}
		}
		return nil
	}
	s, err := c.streamOfLocked(f)
	if s == nil || s.err != nil {
		return err
	}
	switch {
	case n == 0:
		return c.breakLocked(s, codeProtocol, "a window grows by nothing")
	case s.sendWindow+n > maxWindow:
		return c.breakLocked(s, codeFlow, "a stream's window is too large")
	}
	s.sendWindow += n
	c.wakeLaterLocked(s)
	return nil
}

// giveBackLocked gives the peer the connection's window anew.
func (c *Conn) giveBackLocked() {
	if c.credit >= connWindow/2 && c.err == nil {
		c.recvWindow += c.credit
		c.out = appendWindowUpdate(c.out, 0, c.credit)
		c.credit = 0
	}
}
