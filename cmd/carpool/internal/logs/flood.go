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
	// most is how many piles there are in a period before origins are counted together: clients choose them.
	most = 20
)

// kind is what lines are alike in: the message and, if it is a string, the field "error". Both are of the program's own
// making and so few.
type kind struct{ message, err string }

// pile is a kind and, if there is one, the field "origin". It is what lines that are left out are counted by.
type pile struct {
	kind
	origin string
}

// others stands for the origins beyond most.
const others = "other"

// flood counts lines by kind. The zero value, with report set, is ready. It is safe for concurrent use.
type flood struct {
	report func(s pile, left uint64) // told of what was left out, once a period; called with mu held
	cut    atomic.Uint64             // all that were left out

	mu     sync.Mutex // guards what follows; held while reporting too, which waits for nothing
	begun  time.Time  // of the period
	passed map[kind]int
	left   map[pile]uint64
	timer  *time.Timer // ends the period; nil while nothing is left out
}

// admits reports whether a line of this pile is to be written, and counts it if not.
func (f *flood) admits(s pile) bool {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer == nil && (f.passed == nil || now.Sub(f.begun) >= period) {
		f.begun, f.passed, f.left = now, map[kind]int{}, map[pile]uint64{}
	}
	if f.passed[s.kind] < few {
		f.passed[s.kind]++
		return true
	}
	f.cut.Add(1)
	if _, known := f.left[s]; !known && len(f.left) >= most && s.origin != "" {
		s.origin = others
	}
	f.left[s]++
	if f.timer == nil {
		f.timer = time.AfterFunc(period-now.Sub(f.begun), f.turn)
	}
	return false
}

// turn ends the period and reports what was left out in it.
func (f *flood) turn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s, n := range f.left {
		f.report(s, n)
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
	if !c.exempt(e) && !c.flood.admits(pileOf(e, fields)) {
		return nil
	}
	return c.Core.Write(e, fields)
}

func pileOf(e zapcore.Entry, fields []zapcore.Field) pile {
	s := pile{kind: kind{message: e.Message}}
	for i := range fields {
		switch f := &fields[i]; {
		case f.Type != zapcore.StringType:
		case f.Key == "error":
			s.err = f.String
		case f.Key == "origin":
			s.origin = f.String
		}
	}
	return s
}
