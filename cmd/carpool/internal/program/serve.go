package program

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/hot"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/seen"
	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/pool/names"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// sidecar is all of a running carpool.
type sidecar struct {
	cfg      config.Config
	log      *logs.Log
	pool     *pool.Pool
	proxy    *proxy.Proxy
	admin    *admin.Server
	listener *sock.Listener
	memory   *memory.Guard
	hot      *hot.Memory
	noReuse  policy.HostSet // of NO_REUSE_HOSTS
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
	roots, err := rootCAs(cfg.CAFile)
	if err := errors.Join(err, readable(cfg.ResolvConf), writePreload(cfg.PreloadDir)); err != nil {
		return nil, settingsError{err}
	}
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	guard := memory.NewGuard(memory.Config{
		Source: memory.Find("/"), SetGoLimit: setGoLimit, Relieve: s.relieve, Began: s.shedding, Ended: s.shed,
	})
	fault := func(what string, err error) { log.Error(what, zap.String("error", logs.Text(err.Error()))) }
	own := []netip.AddrPort{addrPort(s.listener.Addr()), addrPort(s.admin.Addr())}
	out := egress(cfg, own, log.Logger)
	s.noReuse = policy.NewHostSet(cfg.NoReuseHosts)
	h2c := policy.NewHostSet(cfg.H2C)
	var hosts seen.Origins
	upstreams, clients, admins := budget()
	if s.pool, err = pool.New(pool.Config{
		IdleTimeout: cfg.IdleTimeout, MaxAge: cfg.MaxConnAge, AgeJitter: cfg.MaxConnAgeJitter,
		Reuse: cfg.Balance == config.BalanceReuse, MaxRequests: cfg.MaxRequestsPerConn, MaxIdlePerHost: cfg.MaxIdlePerHost,
		MaxConnsPerHost: cfg.MaxConnsPerHost, MaxConns: upstreams,
		MaxPendingPerHost: cfg.MaxPendingPerHost, PendingTimeout: cfg.PendingTimeout,
		DNSTimeout: cfg.DNSTimeout, DNSMinTTL: max(cfg.DNSMinTTL, time.Second), DNSMaxTTL: cfg.DNSMaxTTL, DNSStale: cfg.DNSStale,
		ResolvConf: cfg.ResolvConf, DNSNote: s.stale,
		DialTimeout: cfg.DialTimeout, DeadTimeout: cfg.UpstreamDeadTimeout, RootCAs: roots,
		NoReuse: func(k pool.Key) bool { // asked for each new origin
			hosts.Note(k)
			_, named := s.noReuse.Match([]byte(k.Host), k.Port)
			return named
		},
		HTTP2: cfg.HTTP2 == config.HTTP2Auto, MaxHeader: int(cfg.MaxHeaderBytes),
		H2C: func(k pool.Key) bool {
			_, named := h2c.Match([]byte(k.Host), k.Port)
			return named
		},
		CheckAddr: out.CheckAddr, CheckWarm: out.CheckOrigin, Fault: fault,
		Identity: identity(),
	}); err != nil {
		return nil, err
	}
	if s.proxy, err = proxy.New(proxyConfig(cfg, s.pool, out, guard, clients, log.Logger, fault)); err != nil {
		return nil, err
	}
	s.memory = guard
	s.memory.Start()
	sock.Ration(guard.AdmitBuffer)
	s.admin.Serve(admin.Sources{
		Pool: s.pool, Proxy: s.proxy, Bypass: bypass.New(cfg.BypassPorts, s.pool.Ended), Memory: guard,
		Log: log, Errors: log.Logger, Seen: &hosts, MaxConns: admins, Room: s.pool.EvictIdle, ProxyPort: own[0].Port(), Quit: quit,
	})
	go func() { _ = s.proxy.Serve(s.listener, proxy.Lane{}) }() // ends with proxy.Close
	return s, nil
}

// identity tells this pod from others: in a pod the host name is the pod's name.
func identity() string {
	name, err := os.Hostname()
	if err != nil {
		return "" // as good as any other, if it is the only one
	}
	return name
}

func proxyConfig(cfg config.Config, upstreams *pool.Pool, out *proxy.Egress, guard *memory.Guard, clients int, log *zap.Logger, fault func(string, error)) proxy.Config {
	return proxy.Config{
		Upstreams: upstreams, Egress: out, ClientHeaderTimeout: cfg.ClientHeaderTimeout, ClientIdleTimeout: cfg.ClientIdleTimeout,
		ResponseHeaderTimeout: cfg.ResponseHeaderTimeout, BodyIdleTimeout: cfg.BodyIdleTimeout,
		TunnelHalfClosedTimeout: cfg.TunnelHalfClosedTimeout, TunnelIdleTimeout: cfg.TunnelIdleTimeout,
		MaxHeaderBytes: int(cfg.MaxHeaderBytes), MaxClients: clients, Via: cfg.Via,
		RetryIdempotencyKey: cfg.RetryIdempotencyKey, ConnectTunnelPorts: cfg.ConnectTunnelPorts,
		Admit: guard.AdmitRequest,
		Log:   accessLog(cfg, log), LogAll: cfg.AccessLog.All(), ServerTiming: cfg.AccessLog == config.AccessDebug,
		Fault: fault,
	}
}

// egress returns what decides where requests may go, for these listeners of
// carpool's own, of which the first is the proxy's.
func egress(cfg config.Config, own []netip.AddrPort, log *zap.Logger) *proxy.Egress {
	rules := policy.Rules{
		AllowHosts: policy.NewHostSet(cfg.AllowHosts), DenyHosts: policy.NewHostSet(cfg.DenyHosts),
		AllowCIDRs: cfg.AllowCIDRs, DenyCIDRs: cfg.DenyCIDRs,
		ConnectPorts: cfg.ConnectPorts, AllowMetadata: cfg.AllowMetadata,
	}
	if idle := rules.Idle(); len(idle) > 0 {
		log.Warn("CARPOOL_ALLOW_CIDRS opens nothing here, and limits nothing either: CARPOOL_ALLOW_HOSTS does",
			zap.String("ranges", config.CIDRs(idle).String()))
	}
	return proxy.NewEgress(proxy.EgressConfig{
		Listeners: own, OnLoopback: own[0].Addr().IsLoopback(), Rules: rules,
		Report: cfg.Policy == config.PolicyReport, Reported: reportLog(log),
	})
}

func (s *sidecar) close() {
	if s.hot != nil {
		s.hot.Close()
	}
	if s.proxy != nil {
		_ = s.proxy.Close()
	}
	if s.memory != nil { // no request asks it any more
		sock.Ration(nil)
		s.memory.Close()
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
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

// readable reports a resolv.conf that cannot be read.
func readable(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("CARPOOL_RESOLV_CONF: %w", err)
	}
	return f.Close()
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
// admin listener has its connections.
func budget() (upstreams, clients, admins int) {
	const own = 2 * admin.DefaultConnections
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0, 0, admin.DefaultConnections
	}
	n := int(min(limit.Cur, 1<<20))
	admins = max(min(n/16, admin.DefaultConnections), 4)
	n -= own
	return max(n*2/5, 8), max(n*3/5, 8), admins
}

// rootCAs returns the system's roots and those in a file, or nil, which means
// the system's, if there is no file.
func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("CARPOOL_CA_FILE: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CARPOOL_CA_FILE: %s holds no PEM certificate", file)
	}
	return roots, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		panic("bug: a listener's address is not IP and port: " + a.String())
	}
	return ap
}
