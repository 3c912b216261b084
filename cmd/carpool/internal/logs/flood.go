package logs

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap/zapcore"
)

const (
	// few lines of a kind pass in a period.
	few    = 5
	period = time.Second
)

// kind is what lines are alike in: the message and, if it is a string, the field "error". Both are of the program's own
// making and so few.
type kind struct{ message, err string }

// flood counts lines by kind. The zero value, with report set, is ready. It is safe for concurrent use.
type flood struct {
	report func(k kind, left uint64) // told of what was left out, once a period; called with mu held
	cut    atomic.Uint64             // all that were left out

	mu     sync.Mutex // guards what follows; held while reporting too, which waits for nothing
	begun  time.Time  // of the period
	passed map[kind]int
	left   map[kind]uint64
	timer  *time.Timer // ends the period; nil while nothing is left out
}

// admits reports whether a line of this kind is to be written, and counts it if not.
func (f *flood) admits(k kind) bool {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer == nil && (f.passed == nil || now.Sub(f.begun) >= period) {
		f.begun, f.passed, f.left = now, map[kind]int{}, map[kind]uint64{}
	}
	if f.passed[k] < few {
		f.passed[k]++
		return true
	}
	f.cut.Add(1)
	f.left[k]++
	if f.timer == nil {
		f.timer = time.AfterFunc(period-now.Sub(f.begun), f.turn)
	}
	return false
}

// turn ends the period and reports what was left out in it.
func (f *flood) turn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, n := range f.left {
		f.report(k, n)
	}
	f.timer, f.passed, f.left = nil, nil, nil
}

// close reports what has been left out and was not reported yet.
func (f *flood) close() {
	f.mu.Lock()
	pending := f.timer != nil && f.timer.Stop()
	f.mu.Unlock()
	if pending {
		f.turn()
	}
}

// cutting is a Core without the floods.
type cutting struct {
	zapcore.Core
	flood  *flood
	exempt func(zapcore.Entry) bool
}

// With implements zapcore.Core.
func (c *cutting) With(fields []zapcore.Field) zapcore.Core {
	return &cutting{c.Core.With(fields), c.flood, c.exempt}
}

// Check implements zapcore.Core.
func (c *cutting) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c *cutting) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if !c.exempt(e) {
		k := kind{message: e.Message}
		for i := range fields {
			if f := &fields[i]; f.Key == "error" && f.Type == zapcore.StringType {
				k.err = f.String
			}
		}
		if !c.flood.admits(k) {
			return nil
		}
	}
	return c.Core.Write(e, fields)
}
