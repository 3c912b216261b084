package program

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/outbound"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// credentialsEvery is how often the file with the credentials is looked at. The
// kubelet takes a minute to bring a changed Secret.
const credentialsEvery = 5 * time.Second

// nextHop is the proxy that NEXT_PROXY names, and what keeps its credentials as they
// are in their file. A nil one is none.
type nextHop struct {
	*proxy.Hop
	port uint16

	cfg     config.Config
	log     *zap.Logger
	stop    context.CancelFunc
	stopped chan struct{}

	// The rest is the goroutine's.
	userinfo string
	failing  bool // and a line says so
}

// startNextHop returns the next hop, nil if there is none. It has read its credentials.
// seen is told of the origins of requests that are relayed.
func startNextHop(cfg config.Config, userinfo string, seen func(pool.Key), log *zap.Logger) *nextHop {
	hop := outbound.Hop(cfg, userinfo, seen)
	if hop == nil {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &nextHop{
		Hop: hop, port: cfg.NextProxy.Port,
		cfg: cfg, log: log, stop: stop, stopped: make(chan struct{}), userinfo: userinfo,
	}
	go h.follow(ctx)
	return h
}

// follow reads the file again and again. That it has changed shows in what it says and
// in nothing else: the kubelet puts another one in its place by a link to its folder.
func (h *nextHop) follow(ctx context.Context) {
	defer close(h.stopped)
	if h.cfg.NextProxyAuthFile == "" {
		return
	}
	tick := time.NewTicker(credentialsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.refresh()
		case <-ctx.Done():
			return
		}
	}
}

// refresh takes over what the file says. What cannot be used leaves the credentials as
// they are.
func (h *nextHop) refresh() {
	userinfo, err := outbound.Credentials(h.cfg)
	switch {
	case err != nil && !h.failing:
		h.log.Warn("the credentials for the next hop cannot be read again: those from before are used on", zap.Error(err))
	case err == nil && userinfo != h.userinfo:
		h.SetCredentials(userinfo)
		h.log.Info("the next hop gets other credentials from now on (CARPOOL_NEXT_PROXY_AUTH_FILE)")
	case err == nil && h.failing:
		h.log.Info("the credentials for the next hop can be read again")
	}
	if h.failing = err != nil; !h.failing {
		h.userinfo = userinfo
	}
}

func (h *nextHop) close() {
	if h != nil {
		h.stop()
		<-h.stopped
	}
}

func (h *nextHop) proxy() *proxy.Hop {
	if h == nil {
		return nil
	}
	return h.Hop
}

// bypassPorts are the ports on which connections are looked for that go past carpool:
// an app that calls the next hop itself does that.
func (h *nextHop) bypassPorts(ports []uint16) []uint16 {
	if h == nil || len(ports) == 0 {
		return ports
	}
	return append(slices.Clip(ports), h.port)
}

// warnOfProxies says so if proxies are named in vain: carpool does not go by the
// variables that it serves.
func warnOfProxies(cfg config.Config, environ []string, log *zap.Logger) {
	if cfg.NextProxy.Host == "" && cfg.NextProxyAuthFile != "" {
		log.Warn("CARPOOL_NEXT_PROXY_AUTH_FILE has no effect without CARPOOL_NEXT_PROXY")
	}
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if cfg.NextProxy.Host == "" && isSet(environ, name) {
			log.Warn("carpool goes out directly, not through the proxy of its own environment: CARPOOL_NEXT_PROXY names one for it",
				zap.String("variable", name))
			return
		}
	}
}

// primed is the pool as what is remembered of it over a restart sees it: origins are
// where requests go to, whatever their way.
type primed struct {
	*pool.Pool
	hop *proxy.Hop
}

// Hottest is pool.Pool's.
func (p primed) Hottest(most int) []pool.Warmth {
	hot := p.Pool.Hottest(most)
	for i := range hot {
		hot[i].Way = pool.Directly
	}
	return hot
}

// Prime is pool.Pool's.
func (p primed) Prime(ctx context.Context, list []pool.Warmth) {
	for i := range list {
		list[i].Key = p.hop.Route(list[i].Key)
	}
	p.Pool.Prime(ctx, list)
}
