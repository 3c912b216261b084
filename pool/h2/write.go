package h2

// Send begins the stream by a head, and the first of a body, as far as the peer takes
// it; end says that this is all. It returns how much of that was accepted, 0 if
// nothing of the request can have reached the peer. After an error there may be an
// answer all the same.
func (s *Stream) Send(fields []Field, body []byte, end bool) (n int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > mostOut && c.err == nil && !s.interrupted {
		s.waitForOutLocked()
	}
	switch {
	case s.interrupted:
		return 0, ErrInterrupted
	case c.err != nil:
		return 0, s.brokenLocked()
	case c.leaving || c.nextID >= lastStream:
		c.leaving = true
		return 0, &ResetError{Unprocessed: true, Text: "the peer takes no more streams"}
	}
	s.id = c.nextID
	c.nextID += 2
	s.sendWindow, s.recvWindow = c.firstWindow, streamWindow
	c.streams[s.id] = s
	last := end && len(body) == 0
	c.headLocked(s.id, fields, last)
	c.idleFrames -= 4
	s.turn, s.sealed = c.turn, last
	n, err = s.writeLocked(body, end)
	return n + 1, err
}

// Write sends more of a body, as fast as the peer takes it.
func (s *Stream) Write(p []byte) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	_, err := s.writeLocked(p, false)
	return err
}

// End ends the body, with trailers if there are any.
func (s *Stream) End(trailers []Field) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sealed {
		return nil
	}
	if err := s.mayWriteLocked(); err != nil {
		return err
	}
	s.sealed = true
	if len(trailers) > 0 {
		c.headLocked(s.id, trailers, true)
	} else {
		c.out = appendFrame(c.out, frameData, flagEnd, s.id, 0)
	}
	c.writeLocked()
	return nil
}

// mayWriteLocked returns why nothing can be sent, nil if something can.
func (s *Stream) mayWriteLocked() error {
	if s.ended && s.err == nil && !s.sealed {
		return ErrAnswered
	}
	return s.failedLocked(s.writeBy)
}

// writeLocked sends data, and returns how much of it was accepted.
func (s *Stream) writeLocked(p []byte, end bool) (n int, err error) {
	c := s.conn
	for len(p) > 0 {
		if err := s.mayWriteLocked(); err != nil {
			return n, err
		}
		k := int(min(int64(len(p)), s.sendWindow, c.sendWindow, int64(c.maxFrame)))
		switch {
		case len(c.out) > mostOut:
			s.waitForOutLocked()
			continue
		case k <= 0:
			s.waitForWindowLocked()
			continue
		}
		flags := byte(0)
		if end && k == len(p) {
			flags, s.sealed = flagEnd, true
		}
		c.idleFrames -= 2 + k/512 // windows grow by it, in steps that are small at times
		c.out = appendFrame(c.out, frameData, flags, s.id, k)
		c.out = append(c.out, p[:k]...)
		s.sendWindow -= int64(k)
		c.sendWindow -= int64(k)
		n, p = n+k, p[k:]
	}
	c.writeLocked()
	return n, nil
}

// waitForWindowLocked waits until the peer may take more.
func (s *Stream) waitForWindowLocked() {
	c := s.conn
	c.writeLocked()
	if s.sendWindow > 0 && c.sendWindow > 0 || s.mayWriteLocked() != nil {
		return
	}
	s.sending, s.listed = true, false
	s.waitLocked(s.wr, s.writeBy)
	s.sending = false
}

// waitForOutLocked waits until less is to be written.
func (s *Stream) waitForOutLocked() {
	c := s.conn
	if !c.writing {
		c.writeLocked()
		return
	}
	s.listed = false
	c.queue = append(c.queue, s)
	s.waitLocked(s.wr, s.writeBy)
}

// headLocked appends a head in as many frames as it takes.
func (c *Conn) headLocked(id uint32, fields []Field, end bool) {
	c.encoded.b = c.encoded.b[:0]
	for i := range fields {
		_ = c.enc.WriteField(fields[i]) // encoded takes everything
	}
	flags, kind := byte(0), byte(frameHeaders)
	if end {
		flags = flagEnd
	}
	for b := c.encoded.b; ; kind, flags = frameContinuation, 0 {
		k := min(len(b), c.maxFrame)
		if k == len(b) {
			flags |= flagEndHeaders
		}
		c.out = append(appendFrame(c.out, kind, flags, id, k), b[:k]...)
		if b = b[k:]; len(b) == 0 {
			return
		}
	}
}

// writeLocked writes what there is, unless somebody is at it. It lets go of the lock
// meanwhile.
func (c *Conn) writeLocked() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.writing = true
	c.writeOnceLocked()
	if len(c.out) > 0 && c.err == nil { // others have more: their part is not ours to wait for
		go c.writeOn()
		return
	}
	c.restLocked()
}

// writeLaterLocked has what there is written without waiting for it.
func (c *Conn) writeLaterLocked() {
	if c.writing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.writing = true
	go c.writeOn()
}

// writeOn writes until there is nothing more.
func (c *Conn) writeOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && c.err == nil {
		c.writeOnceLocked()
	}
	c.restLocked()
}

// restLocked ends the writing.
func (c *Conn) restLocked() {
	c.writing = false
	c.idleDone.Broadcast()
}

func (c *Conn) writeOnceLocked() {
	b := c.out
	c.out, c.spare = c.spare[:0], nil
	c.turn++
	c.mu.Unlock()
	_, err := c.cfg.Transport.Write(b)
	c.mu.Lock()
	if cap(b) <= keptBuffer {
		c.spare = b
	}
	if err != nil {
		c.failLocked(err)
	}
	for i, s := range c.queue {
		s.wake()
		c.queue[i] = nil
	}
	c.queue = c.queue[:0]
}
