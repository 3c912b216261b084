package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/hot"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/outbound"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/seen"
	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/pool/names"
	"github.com/carpoolproxy/carpool/proxy"
)

// sidecar is all of a running carpool.
type sidecar struct {
	cfg      config.Config
	log      *logs.Log
	pool     *pool.Pool
	proxy    *proxy.Proxy
	admin    *admin.Server
	listener *sock.Listener
	local    []localPort // of LOCAL_PORTS
	memory   *memory.Guard
	hot      *hot.Memory
	certs    *certs.Keeper
	noReuse  func(pool.Key) bool // NO_REUSE_HOSTS
	hop      *nextHop            // nil without NEXT_PROXY
}

// serve runs carpool with the settings of an environment until ctx ends, and
// then drains it. The error is a settingsError if the settings are to blame.
func serve(ctx context.Context, environ []string, stderr io.Writer) error {
	cfg, unknown, err := config.Load(environ)
	if err != nil {
		warn(stderr, unknown)
		return settingsError{err}
	}
	oneThread(environ)
	log := logs.New(cfg, stderr)
	defer log.Close()
	for _, u := range unknown {
		log.Warn(u.Warning())
	}
	warnOfProxies(cfg, environ, log.Logger)
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	s, err := start(ctx, cfg, log, !isSet(environ, "GOMEMLIMIT"), quit)
	if errors.Is(err, errStopped) {
		log.Info(err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	s.warmUp(ctx)
	log.Info("serving", zap.String("version", version()), zap.String("listen", s.listener.Addr().String()),
		zap.String("admin", s.admin.Addr().String()))
	select {
	case <-ctx.Done():
	case err := <-s.admin.Failed():
		return fmt.Errorf("admin listener: %w", err)
	}
	s.drain()
	return nil
}

// oneThread lets one thread at a time run Go code, unless GOMAXPROCS says
// otherwise: a proxy that waits for the network most of the time spends less
// on one than on waking others, and one carries tens of thousands of requests
// a second.
func oneThread(environ []string) {
	if !isSet(environ, "GOMAXPROCS") {
		runtime.GOMAXPROCS(1)
	}
}

// start brings everything up, or nothing. carpool serves then, and does not say yet
// that it is ready. start sets the memory limit of the garbage collector if it may.
// quit makes serve drain.
func start(ctx context.Context, cfg config.Config, log *logs.Log, setGoLimit bool, quit func()) (_ *sidecar, err error) {
	s := &sidecar{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.certs, err = outbound.Files(cfg)
	userinfo, unread := outbound.Credentials(cfg)
	if err := errors.Join(err, writePreload(cfg.PreloadDir), unread); err != nil {
		return nil, settingsError{err}
	}
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	guard := memory.NewGuard(memory.Config{
		Source: memory.Find("/"), SetGoLimit: setGoLimit, Relieve: s.relieve, Began: s.shedding, Ended: s.shed,
	})
	own := s.listensOn()
	out := egress(cfg, own, log.Logger)
	s.warnOfPorts(out)
	var hosts seen.Origins
	s.hop = startNextHop(cfg, userinfo, hosts.Note, log.Logger)
	upstreams, clients, admins := budget()
	if s.pool, err = pool.New(s.poolConfig(out, upstreams, hosts.Note)); err != nil {
		return nil, err
	}
	if s.proxy, err = proxy.New(s.proxyConfig(out, guard, clients)); err != nil {
		return nil, err
	}
	s.certs.Watch(log.Logger, func(c certs.Set) { s.pool.SetTLS(c.Roots, c.Certificate) })
	s.memory = guard
	s.memory.Start()
	sock.Ration(guard.AdmitBuffer)
	s.admin.Serve(admin.Sources{
		Pool: s.pool, Proxy: s.proxy, Bypass: bypass.New(s.hop.bypassPorts(cfg.BypassPorts), s.pool.Ended), Memory: guard, Certs: s.certs,
		Log: log, Errors: log.Logger, Seen: &hosts, MaxConns: admins, Room: s.pool.EvictIdle, Route: s.hop.proxy().Route, ProxyPort: own[0].Port(), Quit: quit,
	})
	go func() { _ = s.proxy.Serve(s.listener, proxy.Lane{}) }() // ends with proxy.Close
	s.serveLocal()
	return s, nil
}

func (s *sidecar) proxyConfig(out *proxy.Egress, guard *memory.Guard, clients int) proxy.Config {
	c := outbound.Proxy(s.cfg, s.pool, out, s.hop.proxy())
	c.MaxClients, c.Admit, c.Fault = clients, guard.AdmitRequest, s.fault
	c.Log, c.LogAll, c.ServerTiming = accessLog(s.cfg, s.log.Logger), s.cfg.AccessLog.All(), s.cfg.AccessLog == config.AccessDebug
	return c
}

// poolConfig is what the pool is held to. seen is told of origins.
func (s *sidecar) poolConfig(out *proxy.Egress, upstreams int, seen func(pool.Key)) pool.Config {
	c := outbound.Pool(s.cfg, out, s.hop.proxy(), s.certs.Set())
	s.warnOfCertificate()
	s.noReuse = c.NoReuse
	c.NoReuse = func(k pool.Key) bool { // asked for each new origin
		if k.Way != pool.ToHop { // whose origins the proxy tells of
			k.Way = pool.Directly
			seen(k)
		}
		return s.noReuse(k)
	}
	c.MaxConns, c.DNSNote, c.Fault = upstreams, s.stale, s.fault
	return c
}

// fault logs what should not happen.
func (s *sidecar) fault(what string, err error) {
	s.log.Error(what, zap.String("error", logs.Text(err.Error())))
}

// egress returns what decides where requests may go, for these listeners of
// carpool's own, of which the first is the proxy's.
func egress(cfg config.Config, own []netip.AddrPort, log *zap.Logger) *proxy.Egress {
	rules := outbound.Rules(cfg)
	if idle := rules.Idle(); len(idle) > 0 {
		log.Warn("CARPOOL_ALLOW_CIDRS opens nothing here, and limits nothing either: CARPOOL_ALLOW_HOSTS does",
			zap.String("ranges", config.CIDRs(idle).String()))
	}
	return outbound.Egress(cfg, own, reportLog(log))
}

func (s *sidecar) close() {
	if s.hot != nil {
		s.hot.Close()
	}
	if s.certs != nil {
		s.certs.Close()
	}
	if s.proxy != nil {
		_ = s.proxy.Close()
	}
	s.hop.close()
	if s.memory != nil { // no request asks it any more
		sock.Ration(nil)
		s.memory.Close()
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.closeLocal()
	if s.pool != nil {
		_ = s.pool.Close()
	}
	if s.admin != nil {
		_ = s.admin.Close()
	}
}

// relieve closes connections that have been idle for that time or longer.
func (s *sidecar) relieve(idle time.Duration) {
	s.pool.CloseIdle(idle)
	s.proxy.CloseIdle(idle)
}

func (s *sidecar) shedding(m memory.Stats) {
	s.log.Warn("memory is short: new requests are refused; raise the memory limit of carpool's container if this goes on",
		zap.Int64("used", m.Used), zap.Int64("limit", m.Limit))
}

func (s *sidecar) shed(m memory.Stats, refused uint64, lasted time.Duration) {
	s.log.Info("there is memory again: new requests are taken", zap.Int64("used", m.Used), zap.Int64("limit", m.Limit),
		zap.Uint64("refused", refused), zap.Duration("lasted", lasted))
}

// stale logs that a name lives on old addresses, or does so no longer.
func (s *sidecar) stale(n names.Note) {
	host, reason := zap.String("host", logs.Text(n.Host)), zap.Skip()
	if n.Err != nil {
		reason = zap.String("error", logs.Text(n.Err.Error()))
	}
	switch {
	case n.Stale:
		s.log.Warn("the name servers fail: the last addresses of a host are used on (CARPOOL_DNS_STALE)", host, reason)
	case n.Err != nil:
		s.log.Warn("the last addresses of a host are given up: it has no answer of a name server yet", host, zap.Duration("lasted", n.For), reason)
	default:
		s.log.Info("the name servers answer again for a host", host, zap.Duration("lasted", n.For))
	}
}

// drain serves on until nothing is open, DRAIN_DELAY at least and
// DRAIN_TIMEOUT at most. New connections are taken until the end: in a pod the
// app is still at work.
func (s *sidecar) drain() {
	begin := time.Now()
	s.admin.NotReady()
	s.proxy.Drain()
	s.log.Info("draining", zap.Duration("delay", s.cfg.DrainDelay), zap.Duration("timeout", s.cfg.DrainTimeout))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		passed := time.Since(begin)
		if passed >= s.cfg.DrainTimeout {
			break
		}
		if passed >= s.cfg.DrainDelay && !s.proxy.Busy() {
			break
		}
	}
	s.log.Info("stopped", zap.Duration("after", time.Since(begin)), zap.Bool("cut_off", s.proxy.Busy()))
}

// budget divides the descriptors that the process may open: a part for
// upstream connections, a part for clients, and some for itself, of which the
// admin listener has its connections, and tunnels the pipes through which bytes move.
func budget() (upstreams, clients, admins int) {
	const own = 2 * admin.DefaultConnections
	const _ = uint(own/8 - sock.SpliceDescriptors) // these are among them
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0, 0, admin.DefaultConnections
	}
	n := int(min(limit.Cur, 1<<20))
	admins = max(min(n/16, admin.DefaultConnections), 4)
	n -= own
	return max(n*2/5, 8), max(n*3/5, 8), admins
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		panic("bug: a listener's address is not IP and port: " + a.String())
	}
	return ap
}
