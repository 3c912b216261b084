package proxy

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
)

// splice relays bytes between a client and a lease, until both have ended. The
// bytes that have come already are first.
//
// It is what an exchange, and with it the session, has become. Nothing of the session
// runs any more but its two directions, and they only while there is something to do:
// one that waits for long sleeps, and costs neither a stack nor a buffer (see
// roster.doze). The one that ends last ends the session.
type splice struct {
	s       *session
	roster  *roster // the session's, which it may outlive in the hands of a sweeper
	lease   *pool.Lease
	in      sock.Buffer // what the upstream has sent already
	flow    flow
	up      way
	down    way
	open    atomic.Int32 // directions that have not ended
	heard   bool         // the direction from the upstream has begun already
	counted *atomic.Int64

	// What is told of it in the end.
	origin *pool.Origin
	record *Record // nil if nobody is to be told
	status int
	start  time.Duration
}

// way is one direction of a splice. It belongs to its goroutine.
type way struct {
	t        *splice
	src, dst sock.Stream
	in       *sock.Buffer // what has come from src
	relayed  int64
	bulk     int   // large pieces that came in a row
	err      error // what it has ended with; nil: the end of src was passed on

	drowsy bool   // it is to fall asleep, or is asleep; guarded by reins.mu
	id     uint64 // while it sleeps; guarded by roster.mu
}

// newSplice makes one of a session's client and the connection that x has.
func (s *session) newSplice(x *exchange) *splice {
	lease, in := x.wire.raw()
	lease.SetPatient(true)
	t := &splice{
		s: s, roster: &s.p.roster, lease: lease, in: *in, counted: &s.p.inFlight,
		origin: x.origin, status: x.status, start: x.start,
	}
	*in = sock.Buffer{}
	if x.connect {
		t.counted = &s.p.tunnels
	}
	t.up = way{t: t, src: s.client.stream, dst: lease, in: &s.client.in}
	t.down = way{t: t, src: lease, dst: s.client.stream, in: &t.in}
	t.flow.ways = [...]*way{&t.up, &t.down}
	t.open.Store(int32(len(t.flow.ways)))
	return t
}

// become makes the session a splice, which begins as soon as what has led to it is
// over (see session.end): it outlives the exchange.
func (s *session) become(t *splice, x *exchange) step {
	if s.p.tells(x.status, noError) {
		t.record = x.record(Record{Status: x.status, Error: noError.String()})
	}
	s.ticket.Leave() // it borrows no more
	s.ticket = pool.Ticket{}
	s.tunnel = t
	return closing
}

// begin begins to relay.
func (t *splice) begin() {
	t.s.reins.beginFlow(&t.flow, t.s.p.now())
	if !t.heard {
		go t.down.run()
	}
	go t.up.run()
}

// run relays until the direction ends, or falls asleep.
func (w *way) run() {
	if w.err == nil {
		w.t.s.reins.wakeUp(w)
		w.err = w.relay()
	}
	w.rest()
}

// rest is the last thing that a direction's goroutine does.
func (w *way) rest() {
	t := w.t
	if errors.Is(w.err, os.ErrDeadlineExceeded) && t.roster.doze(w) {
		return
	}
	t.flow.end()
	if w.err != nil {
		t.cut()
	}
	if t.open.Add(-1) == 0 {
		t.finish()
	}
}

// relay copies what comes, beginning with what has come, and passes the end on. No
// buffer is held while nothing comes.
func (w *way) relay() (err error) {
	defer catch(&err)
	for {
		if w.in.Len() > 0 {
			n, err := w.dst.Write(w.in.Bytes())
			w.t.flow.pass()
			w.relayed += int64(n)
			w.in.Release()
			if err != nil {
				return err
			}
		}
		switch err := w.fill(); err {
		case nil:
		case io.EOF:
			return w.dst.CloseWrite()
		default:
			return err
		}
	}
}

// fill waits for bytes. Where they come in bulk the kernel moves them on, and those
// that follow, without a copy.
func (w *way) fill() error {
	if w.bulk >= bulkAfter {
		w.bulk = 0
		if src, dst := w.ends(); src != nil {
			n, err := sock.Splice(dst, src, w.t.flow.pass)
			w.relayed += n
			if err != nil && err != sock.ErrNoSplice {
				return err
			}
		}
	}
	err := w.src.Fill(w.in)
	if w.in.Len() < sock.BufferSize/2 {
		w.bulk = 0
	} else {
		w.bulk++
	}
	return err
}

// bulkAfter is how many large pieces in a row are bulk.
const bulkAfter = 4

// ends returns the sockets of both ends, nil if there is more to do than to move bytes.
func (w *way) ends() (src, dst *sock.Conn) {
	up := w.t.lease.Plain()
	client, ok := w.t.s.client.stream.(*sock.Conn)
	switch {
	case up == nil || !ok:
		return nil, nil
	case w == &w.t.up:
		return client, up
	}
	return up, client
}

// arm has the watcher wake the direction when there is something to read for it.
func (w *way) arm(by *sock.Watcher) error {
	if w == &w.t.up {
		return by.Arm(&w.t.s.client.conn, w.id)
	}
	return w.t.lease.Arm(by, w.id)
}

// cut ends both directions.
func (t *splice) cut() {
	t.s.reins.cutFlow()
	t.flow.rouse()
}

// finish ends the splice, and the session. A failure of either side, such as a reset,
// has to look like one on both.
func (t *splice) finish() {
	s := t.s
	defer s.end()
	defer t.counted.Add(-1)
	detail := s.reins.endFlow()
	rethrow(errors.Join(t.up.err, t.down.err))
	gone, dead := s.reins.letGo()
	connect := t.counted == &s.p.tunnels
	f := facts{got: complete, connect: connect, switched: !connect, gone: gone, dead: dead}
	reason := f.judge().reason
	if connect && t.up.relayed+t.down.relayed > 0 {
		t.origin.SetOpaque(true)
	}
	broken := t.up.err != nil || t.down.err != nil
	if broken {
		t.lease.Abort(reason)
	} else {
		t.lease.Discard(reason)
	}
	s.client.abort = broken
	countAnswer(t.origin, t.status)
	if r := t.record; r != nil {
		r.Sent += t.up.relayed
		r.Received += t.down.relayed
		r.Duration, r.Detail = s.p.now()-t.start, detail
		r.Phases.end(r.Duration)
		s.p.cfg.Log(r)
	}
}
