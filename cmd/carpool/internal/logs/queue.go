package logs

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// queueSize is how many bytes of lines may wait. As many may be in the middle of being written.
const queueSize = 256 << 10

// queue hands whole lines to a writer that may be slow, or stand still. Write never waits for it: a line that finds no
// room is dropped. It is safe for concurrent use.
type queue struct {
	to      io.Writer
	delay   time.Duration // how long the first line may wait for others
	begun   chan struct{} // holds one: there is a line
	half    chan struct{} // holds one: there are so many that they should not wait
	closing chan struct{} // closed by close, which is called once
	done    chan struct{} // closed when run has ended
	dropped atomic.Uint64

	mu     sync.Mutex // guards what follows; never held while writing
	lines  []byte
	lost   uint64 // dropped since that was last reported
	closed bool   // run has ended
}

func newQueue(to io.Writer, delay time.Duration) *queue {
	return &queue{
		to: to, delay: delay,
		begun: make(chan struct{}, 1), half: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
}

// Write takes one line, which it does not keep. It implements io.Writer and always succeeds.
func (q *queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.lines)+len(line) > queueSize {
		q.lost++
		q.dropped.Add(1)
		return len(line), nil
	}
	before := len(q.lines)
	q.lines = append(q.lines, line...)
	if before == 0 {
		signal(q.begun)
	}
	if before < queueSize/2 && len(q.lines) >= queueSize/2 {
		signal(q.half)
	}
	return len(line), nil
}

// Sync implements zapcore.WriteSyncer. There is nothing to wait for.
func (q *queue) Sync() error { return nil }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it is known already
	}
}

// run writes lines until close. It tells report how many were lost as soon as lines can be written again.
func (q *queue) run(report func(lost uint64)) {
	defer close(q.done)
	var spare []byte
	for q.await() {
		spare = q.flush(spare, report)
	}
	for range 2 { // the second time what the first has reported
		spare = q.flush(spare, report)
	}
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}

// await waits until there is something worth writing, and reports false when the queue is to be closed.
func (q *queue) await() bool {
	select {
	case <-q.begun:
	case <-q.closing:
		return false
	}
	if q.delay == 0 {
		return true
	}
	timer := time.NewTimer(q.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-q.half:
	case <-q.closing:
	}
	return true
}

// flush writes what is there, and returns the memory it was in. spare is for what comes meanwhile.
func (q *queue) flush(spare []byte, report func(lost uint64)) []byte {
	q.mu.Lock()
	lines := q.lines
	q.lines = spare[:0]
	q.mu.Unlock()
	if len(lines) == 0 {
		return lines
	}
	n, err := q.to.Write(lines)
	q.mu.Lock()
	if err != nil {
		rest := uint64(bytes.Count(lines[min(n, len(lines)):], []byte{'\n'}))
		q.lost += rest
		q.dropped.Add(rest)
	}
	lost := q.lost
	if err == nil {
		q.lost = 0
	}
	q.mu.Unlock()
	if err == nil && lost > 0 {
		report(lost)
	}
	return lines
}

// close makes run write what is there and end, and waits for that, no longer than wait.
func (q *queue) close(wait time.Duration) {
	close(q.closing)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
	}
}
