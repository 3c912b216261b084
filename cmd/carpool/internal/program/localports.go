package program

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/outbound"
	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// localPort is a port of loopback that leads to one upstream (LOCAL_PORTS). It listens
// on loopback's address of IPv6 too, where there is one: to some clients localhost is
// that.
type localPort struct {
	config.LocalPort
	listeners []*sock.Listener
}

var loopbacks = [...]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// listenLocal opens the listeners of all local ports.
func (s *sidecar) listenLocal(ctx context.Context) error {
	for _, entry := range s.cfg.LocalPorts {
		s.local = append(s.local, localPort{LocalPort: entry})
		p := &s.local[len(s.local)-1]
		for _, addr := range loopbacks {
			setting := fmt.Sprintf("CARPOOL_LOCAL_PORTS=%d=%s", entry.Port, entry.Origin)
			err := s.insist(ctx, setting, func() error { return p.listen(ctx, addr) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// listen opens the listener on one of loopback's addresses.
func (p *localPort) listen(ctx context.Context, addr netip.Addr) error {
	l, err := sock.Listen(ctx, netip.AddrPortFrom(addr, p.Port).String())
	switch {
	case addr.Is6() && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)):
		return nil // there is no IPv6
	case err != nil:
		return err
	}
	p.listeners = append(p.listeners, l)
	return nil
}

// listensOn returns carpool's own addresses, the proxy's first.
func (s *sidecar) listensOn() []netip.AddrPort {
	own := []netip.AddrPort{addrPort(s.listener.Addr()), addrPort(s.admin.Addr())}
	for _, p := range s.local {
		for _, l := range p.listeners {
			own = append(own, addrPort(l.Addr()))
		}
	}
	return own
}

// warnOfPorts says so if a rule refuses where a local port leads.
func (s *sidecar) warnOfPorts(out *proxy.Egress) {
	for _, p := range s.local {
		if err := out.CheckOrigin(outbound.Originate(s.cfg).Key(pool.Key(p.Origin))); err != nil {
			s.log.Warn("CARPOOL_LOCAL_PORTS leads to an upstream that another setting refuses",
				zap.Uint16("port", p.Port), zap.String("origin", p.Origin.String()), zap.Error(err))
		}
	}
}

// serveLocal begins to serve on local ports.
func (s *sidecar) serveLocal() {
	for _, p := range s.local {
		lane := proxy.LaneTo(pool.Key(p.Origin))
		for _, l := range p.listeners {
			go func() { _ = s.proxy.Serve(l, lane) }() // ends with proxy.Close
		}
	}
}

// closeLocal closes what start has opened, if it got no further.
func (s *sidecar) closeLocal() {
	for _, p := range s.local {
		for _, l := range p.listeners {
			_ = l.Close()
		}
	}
}
