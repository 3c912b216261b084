// Package logs is carpool's log: whoever logs never waits, even if the log is not read. Lines go into a queue of
// bounded size that one goroutine writes out. A flood of one kind is cut to a few lines a second and a count for each
// origin. What got lost either way is counted.
package logs

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

const (
	// holdBack is how long a line may stay in memory where every request has one: many are written at once then.
	holdBack = time.Second
	// lastWait is how long Close waits for somebody to read.
	lastWait = time.Second
)

// Messages of lines of which there may be many.
const (
	// Request is of a line about one request.
	Request = "request"
	// Reported is of a line about what a rule would have refused.
	Reported = "let through by CARPOOL_POLICY=report"
)

// Log is where log lines go. It is safe for concurrent use.
type Log struct {
	*zap.Logger
	queue *queue
	flood *flood
}

// New returns a Log in the form and of the level that the settings ask for. It writes to w until Close.
func New(cfg config.Config, w io.Writer) *Log {
	ec := zap.NewProductionEncoderConfig()
	ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	ec.EncodeDuration = zapcore.SecondsDurationEncoder
	encoder := zapcore.NewJSONEncoder(ec)
	if cfg.LogFormat == config.LogConsole {
		encoder = zapcore.NewConsoleEncoder(ec)
	}
	all := cfg.AccessLog.All()
	delay := time.Duration(0)
	if all {
		delay = holdBack
	}
	l := &Log{queue: newQueue(w, delay)}
	core := zapcore.NewCore(encoder, l.queue, cfg.LogLevel)
	uncut := zap.New(core)
	l.flood = &flood{report: func(s pile, n uint64) {
		uncut.Warn("more lines like this were left out", zap.String("of", s.message), zap.String("error", s.err),
			zap.String("origin", s.origin), zap.Uint64("count", n))
	}}
	go l.queue.run(func(lost uint64) {
		uncut.Warn("log lines were lost: what is written to stderr was not read in time", zap.Uint64("count", lost))
	})
	// Whoever asks for a line for each request gets it.
	l.Logger = zap.New(&cutting{core, l.flood, func(e zapcore.Entry) bool { return all && e.Message == Request }})
	return l
}

// Close writes out what is there, and gives up after a moment if it is not read. It is called once. What is logged
// afterwards is dropped.
func (l *Log) Close() {
	l.flood.close()
	l.queue.close(lastWait)
}

// Dropped returns how many lines were not written: unread because none reads them, flood because there were many of the
// kind.
func (l *Log) Dropped() (unread, flood uint64) { return l.queue.dropped.Load(), l.flood.cut.Load() }
