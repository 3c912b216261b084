package program

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/proxy"
)

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
		line := log.Check(level, logs.Request)
		if line == nil {
			return
		}
		fields := []zap.Field{
			zap.String("method", logs.Text(r.Method)), zap.String("origin", logs.Text(r.Origin)), zap.String("path", logs.Path(r.Path)),
			zap.Int("status", r.Status), zap.Duration("duration", r.Duration),
			zap.Int64("sent", r.Sent), zap.Int64("received", r.Received),
		}
		if r.Retried {
			fields = append(fields, zap.Bool("retried", true))
		}
		if r.Error != "" {
			fields = append(fields, zap.String("error", r.Error), zap.String("detail", logs.Text(r.Detail)))
		}
		line.Write(fields...)
	}
}

// statusClientGone is what proxy.Record says of a client that left early.
const statusClientGone = 499
