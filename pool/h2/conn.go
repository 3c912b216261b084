// Package h2 is the client's half of HTTP/2 on one connection (RFC 9113): its
// streams, their flow control, HPACK, and the ways in which it ends. It knows no
// proxy, no pool and nothing of what HTTP/1 looks like.
//
// One goroutine reads (Conn.Run). It hands heads and data to streams and never waits
// for any of them, nor for the peer to take what it has to say. Whoever has something
// to send appends its frames to what is to be written, and writes that unless another
// is at it: so no lock is held while the peer takes its time, and the frames of many
// go in one system call. Nobody appends much more than is written.
//
// The frames are read and written here. x/net's Framer reads each in two parts and
// allocates on the way; of that module only hpack is used.
//
// # What a peer may cost
//
// A stream takes 256 KiB from the peer beyond what its reader has taken. What has
// come on a connection for readers that are slow does not count against the others:
// 1 MiB may be on its way besides, until 4 MiB wait on one connection. Heads are
// bounded by Config.MaxHeader, their number by that of streams, and frames that carry
// nothing by their number in a second. A peer that breaks a rule loses the stream, or
// where streams do not suffice the connection.
package h2

import (
	"math"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/carpoolproxy/carpool/internal/sock"
)

const (
	// streamWindow is what a peer may send on one stream ahead of its reader.
	streamWindow = 256 << 10
	// connWindow is what may be on its way on all of them.
	connWindow = 1 << 20
	// mostBuffered is how much may wait for slow readers before that counts.
	mostBuffered = 4 << 20
	// mostOut is how much waits to be written at most, but for single frames.
	mostOut = 256 << 10
	// mostReplies bounds what waits to be written while the peer does not read and
	// asks for replies.
	mostReplies = mostOut + 64<<10
	// mostIdleFrames bounds the frames in a second that carry nothing.
	mostIdleFrames = 2000
	// mostInterim bounds the 1xx heads that wait for a stream's reader.
	mostInterim = 16
	// mostContinuations bounds the frames of one head.
	mostContinuations = 64
	// mostStreams bounds the streams at a time, whatever the peer lets us have.
	mostStreams = 250
	// mostTable is the size of the table by which heads are compressed, both ways.
	mostTable = 4096
	// lastStream is the identifier at which a connection begins to end.
	lastStream = math.MaxInt32 - 1<<10
)

// Liveness, in calls of Tend: a second each.
const (
	// quietFor is for how long nothing has come, while requests wait, before the peer
	// is asked for a sign of life.
	quietFor = 14
	// answersIn is how long it has for that.
	answersIn = 5
	// freePings is how often it is asked without it having sent a head or data since,
	// and pingEvery how often from then on: servers of gRPC close connections on which
	// more than two pings come within five minutes of the one before.
	freePings = 3
	pingEvery = 5*60 + 1
)

// Events are told by a connection. They are called without a lock, on the goroutine
// of Run.
type Events interface {
	// Room says that more streams may be had than before.
	Room()
	// Leaving says that the peer takes no more streams. Those that there are go on.
	Leaving()
	// Gone says that the connection is over, and why. It is called once, last of all.
	Gone(err error)
}

// Config is what a connection is made of.
type Config struct {
	// Transport carries the bytes. It belongs to the connection until Close.
	Transport sock.Stream
	// MaxHeader bounds a head and a trailer section that is received, as RFC 9113
	// section 6.5.2 counts it; more than 0.
	MaxHeader int
	Events    Events
}

// Conn is one connection. It is safe for concurrent use.
type Conn struct {
	cfg   Config
	ready chan struct{} // closed when the peer's settings have come, or it is over
	ended chan struct{} // closed when nothing is read any more

	// Of the goroutine of Run alone.
	in     sock.Buffer
	dec    *hpack.Decoder
	block  block
	woken  []*Stream // those for which something has come
	signal signal    // what is to be told of when the lock is let go

	// mu guards what is below, and the streams. It is never held across I/O.
	mu      sync.Mutex
	err     error // why it is over; nil: it is not
	settled bool  // the peer's settings have come
	leaving bool  // the peer, or we, want no more streams on it
	streams map[uint32]*Stream
	free    []*Stream // those that are over, for others
	lent    int       // streams that are lent, begun or not
	limit   int       // how many the peer lets us have
	nextID  uint32    // of the stream that is begun next

	out      []byte    // what is to be written
	spare    []byte    // memory for it
	writing  bool      // somebody is at it
	queue    []*Stream // those that wait for there to be less
	idleDone sync.Cond
	turn     uint64 // counts what was taken from out
	enc      *hpack.Encoder
	encoded  encoded

	sendWindow  int64 // what the peer takes on all streams
	firstWindow int64 // and on a new one
	maxFrame    int   // and in one frame
	recvWindow  int64 // what it may still send
	credit      int64 // what it is to be given anew
	buffered    int64 // what has come and was not taken
	owed        int64 // of that, what counts against the window

	heard      bool // since the last Tend
	quiet      int  // for how many of them nothing has come
	waits      int  // and how many ago a ping was sent that was not answered; 0: none was
	pings      int  // since the peer has spoken
	sincePing  int
	idleFrames int // since the last Tend, less those that were asked for
	figures    Figures
}

// Figures count what has happened on a connection.
type Figures struct {
	Pings, GoAways, Resets uint64
}

// Add adds g to f.
func (f *Figures) Add(g Figures) {
	f.Pings += g.Pings
	f.GoAways += g.GoAways
	f.Resets += g.Resets
}

// encoded is the writer of the HPACK encoder.
type encoded struct{ b []byte }

func (e *encoded) Write(p []byte) (int, error) {
	e.b = append(e.b, p...)
	return len(p), nil
}

// signal is what Events are to be told.
type signal struct{ room, leaving bool }

// New begins a connection: the first bytes are written when Run is called.
func New(cfg Config) *Conn {
	c := &Conn{
		cfg: cfg, ready: make(chan struct{}), ended: make(chan struct{}),
		streams: map[uint32]*Stream{}, limit: mostStreams, nextID: 1,
		sendWindow: firstWindow, firstWindow: firstWindow, maxFrame: minFrame, recvWindow: connWindow,
	}
	c.idleDone.L = &c.mu
	c.enc = hpack.NewEncoder(&c.encoded)
	c.enc.SetMaxDynamicTableSizeLimit(mostTable)
	c.dec = hpack.NewDecoder(mostTable, c.block.field)
	c.dec.SetMaxStringLength(c.mostBlock())
	c.block.most = cfg.MaxHeader
	b := append(c.out, preface...)
	b = appendFrame(b, frameSettings, 0, 0, 4*6)
	b = appendSetting(b, settingEnablePush, 0)
	b = appendSetting(b, settingInitialWindow, streamWindow)
	b = appendSetting(b, settingMaxHeaderList, uint32(cfg.MaxHeader))
	b = appendSetting(b, settingMaxStreams, 0) // of the peer's own, which are pushes
	c.out = appendWindowUpdate(b, 0, connWindow-firstWindow)
	return c
}

// mostBlock bounds a head as it is compressed. Beyond it the connection ends, for
// what is not decoded cannot be left out.
func (c *Conn) mostBlock() int { return 2*c.cfg.MaxHeader + minFrame }

// Ready is closed when the peer has said what it takes, or the connection is over.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

// Err returns why the connection is over, nil if it is not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Figures returns what has happened.
func (c *Conn) Figures() Figures {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.figures
}

// Limit returns how many streams there may be at a time: 0 if no more are to be had,
// or while it is in doubt whether the peer is there.
func (c *Conn) Limit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limitLocked()
}

func (c *Conn) limitLocked() int {
	if c.err != nil || c.leaving || !c.settled || c.waits > 1 {
		return 0
	}
	return c.limit
}

// Open lends a stream, or returns nil if none is to be had. It has to be given back
// by Stream.Close. Nothing is sent.
func (c *Conn) Open() *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lent >= c.limitLocked() {
		return nil
	}
	if c.lent == 0 {
		c.quiet, c.heard = 0, true
	}
	c.lent++
	return c.streamLocked()
}

// Lent returns how many streams are lent.
func (c *Conn) Lent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lent
}

// Tend looks after the connection. It is called about once a second, and does not
// wait.
func (c *Conn) Tend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idleFrames = min(c.idleFrames, 0)
	c.sincePing++
	if c.heard || c.lent == 0 || c.err != nil {
		c.heard, c.quiet, c.waits = false, 0, 0
		return
	}
	c.quiet++
	switch {
	case c.waits > answersIn:
		c.failLocked(ErrSilent)
	case c.waits > 0:
		c.waits++
	case c.quiet >= quietFor && (c.pings < freePings || c.sincePing >= pingEvery):
		c.pings, c.sincePing, c.waits = c.pings+1, 0, 1
		c.figures.Pings++
		c.out = appendFrame(c.out, framePing, 0, 0, 8)
		c.out = append(c.out, "carpool\n"...)
		c.writeLaterLocked()
	}
}

// End begins what Close does, and does not wait.
func (c *Conn) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(ErrClosed)
}

// Close ends the connection, and with it what is under way, and waits until nobody
// uses the transport, which it leaves open.
func (c *Conn) Close() {
	c.mu.Lock()
	c.failLocked(ErrClosed)
	c.mu.Unlock()
	<-c.ended
	c.mu.Lock()
	for c.writing {
		c.idleDone.Wait()
	}
	c.mu.Unlock()
}

// failLocked ends the connection.
func (c *Conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	for _, s := range c.streams {
		s.wakeLocked()
	}
	_ = c.cfg.Transport.SetDeadline(time.Unix(1, 0))
}
