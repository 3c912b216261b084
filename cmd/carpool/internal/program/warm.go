package program

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/hot"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/outbound"
	"github.com/carpoolproxy/carpool/pool"
)

// warmWait is how long carpool is not ready for want of warm connections. An
// upstream that is away must not keep the pod from starting.
const warmWait = 5 * time.Second

// warmUp makes carpool ready, after there are connections to upstreams or there
// was time enough for it. Those of which only a file says that they may be used are
// none to wait for.
func (s *sidecar) warmUp(ctx context.Context) {
	s.warm(ctx)
	s.admin.Ready()
	if s.cfg.CacheDir != "" {
		s.hot = hot.Keep(s.cfg.CacheDir, primed{s.pool, s.hop.proxy()}, s.log.Logger)
	}
}

// warm opens the connections that WARM asks for and waits for them, not for long.
func (s *sidecar) warm(ctx context.Context) {
	var list []pool.Warmth
	for _, w := range s.cfg.Warm {
		warmth := pool.Warmth{Key: pool.Key(w.Origin), Conns: w.Conns}
		s.warnOfLimits(warmth)
		warmth.Key = s.hop.proxy().Route(outbound.Originate(s.cfg).Key(warmth.Key))
		list = append(list, warmth)
	}
	ctx, cancel := context.WithTimeout(ctx, warmWait)
	defer cancel()
	s.pool.Warm(ctx, list, func(k pool.Key, err error) {
		if err != nil {
			s.log.Warn("cannot keep connections open to an upstream that CARPOOL_WARM names: carpool goes on trying",
				zap.String("origin", k.String()), zap.Error(err))
			return
		}
		s.log.Info("connections are kept open again", zap.String("origin", k.String()))
	})
}

// warnOfLimits says so if another setting leaves less than WARM asks for.
func (s *sidecar) warnOfLimits(w pool.Warmth) {
	limit := func(name string, most int) {
		if most < w.Conns {
			s.log.Warn("CARPOOL_WARM asks for more connections than another setting leaves", zap.String("origin", w.String()),
				zap.Int("asks", w.Conns), zap.String("setting", "CARPOOL_"+name), zap.Int("leaves", most))
		}
	}
	limit("MAX_IDLE_PER_HOST", s.cfg.MaxIdlePerHost)
	if s.cfg.MaxConnsPerHost > 0 {
		limit("MAX_CONNS_PER_HOST", s.cfg.MaxConnsPerHost)
	}
	if s.noReuse(w.Key) {
		limit("NO_REUSE_HOSTS", 0)
	}
}
