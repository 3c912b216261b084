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
		for ph, d := range r.Phases {
			if d > 0 {
				fields = append(fields, zap.Duration(proxy.Phase(ph).String(), d))
			}
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

// reportLog returns what writes a line for what a rule would have refused
// (CARPOOL_POLICY=report).
func reportLog(log *zap.Logger) func(proxy.Reported) {
	return func(r proxy.Reported) {
		if line := log.Check(zapcore.WarnLevel, logs.Reported); line != nil {
			line.Write(zap.String("origin", logs.Text(r.Target)), zap.String("error", r.Rule), zap.String("detail", r.Detail))
		}
	}
}
