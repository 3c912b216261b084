package main

import (
	"errors"
	"io"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/proxy"
)

// logFlush is how long a log line may stay in memory.
const logFlush = time.Second

// newLogger returns a logger that writes to w, and what flushes it at the end.
func newLogger(cfg config.Config, w io.Writer) (*zap.Logger, func()) {
	ec := zap.NewProductionEncoderConfig()
	ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	ec.EncodeDuration = zapcore.SecondsDurationEncoder
	encoder := zapcore.NewJSONEncoder(ec)
	if cfg.LogFormat == config.LogConsole {
		encoder = zapcore.NewConsoleEncoder(ec)
	}
	if cfg.AccessLog != config.AccessAll { // a few lines: no need to hold them back
		return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), cfg.LogLevel)), func() {}
	}
	buffered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(w), FlushInterval: logFlush}
	log := zap.New(zapcore.NewCore(encoder, buffered, cfg.LogLevel))
	return log, func() {
		// Terminals and pipes cannot be synced, and need not be.
		if err := buffered.Stop(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTTY) {
			log.Warn("flushing the log", zap.Error(err))
		}
	}
}

// accessLog returns what writes a line for each exchange that is to have one.
func accessLog(cfg config.Config, log *zap.Logger) func(*proxy.Record) {
	if cfg.AccessLog == config.AccessOff {
		return nil
	}
	return func(r *proxy.Record) {
		level := zapcore.InfoLevel
		if r.Error != "" && r.Status != statusClientGone || r.Status >= 500 {
			level = zapcore.WarnLevel
		}
		line := log.Check(level, "request")
		if line == nil {
			return
		}
		fields := []zap.Field{
			zap.String("method", r.Method), zap.String("origin", r.Origin), zap.String("path", r.Path),
			zap.Int("status", r.Status), zap.Duration("duration", r.Duration),
			zap.Int64("sent", r.Sent), zap.Int64("received", r.Received),
		}
		if r.Retried {
			fields = append(fields, zap.Bool("retried", true))
		}
		if r.Error != "" {
			fields = append(fields, zap.String("error", r.Error), zap.String("detail", r.Detail))
		}
		line.Write(fields...)
	}
}

// statusClientGone is what proxy.Record says of a client that left early.
const statusClientGone = 499
