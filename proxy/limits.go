package proxy

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// limits is what wires have in common: how long the parts of an exchange may take, and
// how it is cut off. The zero value has no lease.
type limits struct {
	cfg     *Config
	reins   *reins
	lease   *pool.Lease // nil after settle
	stopped atomic.Bool // by stopBody
}

// sends gives a part of the request's body its time.
func (m *limits) sends() error {
	idle := m.cfg.BodyIdleTimeout
	if idle <= 0 {
		return nil
	}
	if err := m.lease.SetWriteDeadline(time.Now().Add(idle)); err != nil {
		return err
	}
	if m.stopped.Load() { // by a deadline that may just have been overwritten
		return os.ErrDeadlineExceeded
	}
	return nil
}

// sent notes what came of that. An upstream that takes too long over a part gets no
// chance to answer either.
func (m *limits) sent(err error) error {
	if m.cfg.BodyIdleTimeout > 0 && errors.Is(err, os.ErrDeadlineExceeded) && !m.stopped.Load() {
		m.interrupt()
	}
	return err
}

func (m *limits) stopBody() {
	m.stopped.Store(true)
	_ = m.lease.SetWriteDeadline(time.Unix(1, 0))
}

func (m *limits) resume() {
	m.stopped.Store(false)
	_ = m.lease.SetWriteDeadline(time.Time{})
}

// awaitHead gives the head of the answer its time.
func (m *limits) awaitHead() error {
	if t := m.cfg.ResponseHeaderTimeout; t > 0 {
		return m.reins.awaitHead(m.lease, t)
	}
	return nil
}

// headCame ends that.
func (m *limits) headCame() error {
	if m.cfg.ResponseHeaderTimeout > 0 {
		return m.reins.headCame(m.lease)
	}
	return nil
}

// awaitPart gives the next part of the answer's body its time.
func (m *limits) awaitPart() error {
	if t := m.cfg.BodyIdleTimeout; t > 0 {
		if err := m.lease.SetReadDeadline(time.Now().Add(t)); err != nil {
			return err
		}
		if m.reins.isGone() { // a cut that came before stays in force
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}

func (m *limits) firstByte() time.Duration { return m.lease.FirstByte() }

func (m *limits) interrupt() { m.lease.Interrupt() }
