package proxy

import (
	"encoding/base64"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Hop is the next proxy on the way out, where there has to be one. Plain HTTP is sent
// to it in absolute-form, on connections that requests to all hosts share. What is in
// TLS, tunnels and upgrades go through it, by connections that it is asked for with
// CONNECT. There is no way round it: what it does not do fails. Names that go there
// are resolved by it and not here, so that no address is seen of them; hosts and ports
// are judged all the same.
//
// It is safe for concurrent use.
type Hop struct {
	at     pool.Key
	host   []byte // of at
	direct policy.Direct
	asked  func(pool.Key)
	auth   atomic.Pointer[string] // a field line; "" without credentials

	failures [errorKinds]atomic.Uint64
}

// NewHop returns the Hop at a host and port, which is spoken to in TLS or not. direct is
// what is called without it. asked, if not nil, is told of the origins of requests that
// are sent to it: a pool does not know them. It may be called from any goroutine and
// must not wait. The Hop has no credentials.
func NewHop(at pool.Key, direct policy.Direct, asked func(pool.Key)) *Hop {
	at.Way = pool.ToHop
	if asked == nil {
		asked = func(pool.Key) {}
	}
	h := &Hop{at: at, host: []byte(at.Host), direct: direct, asked: asked}
	h.SetCredentials("")
	return h
}

// SetCredentials sets the user:password that the hop gets from now on, by the scheme
// Basic (RFC 7617); "" is none. Connections need not be closed for it: they have
// carried those of before, and carry the new ones with the next request.
func (h *Hop) SetCredentials(userinfo string) {
	line := ""
	if userinfo != "" {
		line = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(userinfo)) + "\r\n"
	}
	h.auth.Store(&line)
}

// Pool returns what a pool needs for connections by way of the hop. maxHead bounds
// the head of its answer to CONNECT.
func (h *Hop) Pool(maxHead int) *pool.Hop {
	return &pool.Hop{Key: h.at, Connect: func(c net.Conn, to pool.Key) ([]byte, error) { return h.connect(c, to, maxHead) }}
}

// Route returns what the connections lead to that requests to an origin are sent on. Of
// the hop's own address, it is the hop. A nil Hop leaves all as it is.
func (h *Hop) Route(k pool.Key) pool.Key {
	if h == nil {
		return k
	}
	addr, _ := netip.ParseAddr(k.Host) // a name is no address
	to := h.at
	to.Way = k.Way
	switch {
	case k == to:
		return h.at
	case !h.takes([]byte(k.Host), addr, k.Port):
	case k.TLS:
		k.Way = pool.ByHop
	default:
		return h.at
	}
	return k
}

// takes reports whether what goes to a host and port goes by the hop.
func (h *Hop) takes(name []byte, addr netip.Addr, port uint16) bool {
	return h != nil && !h.direct.Has(name, addr, port)
}

// relayTo is relay for the sake of an origin that requests are sent to.
func (h *Hop) relayTo(l pool.Lookup) pool.Lookup {
	h.asked(pool.Key{TLS: l.TLS, Host: string(l.Host), Port: l.Port})
	return h.relay()
}

// relay is what finds the hop itself.
func (h *Hop) relay() pool.Lookup {
	return pool.Lookup{TLS: h.at.TLS, Host: h.host, Port: h.at.Port, Way: pool.ToHop}
}

// authorization is the field by which the hop knows this proxy, as a line.
func (h *Hop) authorization() string { return *h.auth.Load() }

// plain reports whether a tunnel to an origin is one for plain HTTP, most likely, which
// needs no connection to the origin, and which hops refuse by default (Squid's
// SSL_ports).
func (h *Hop) plain(k pool.Key) bool { return k.Way == pool.ByHop && !k.TLS && k.Port == 80 }

// connect asks the hop for a connection to an origin (RFC 9110 section 9.3.6). What
// comes behind the answer is the origin's, whatever the answer says of its length. In
// TLS an origin does not speak first.
func (h *Hop) connect(c net.Conn, to pool.Key, maxHead int) (early []byte, err error) {
	authority := to.Authority()
	if _, err := io.WriteString(c, "CONNECT "+authority+" HTTP/1.1\r\nHost: "+authority+"\r\n"+h.authorization()+"\r\n"); err != nil {
		return nil, err
	}
	var answer http1.Response
	in := make([]byte, 0, 1<<10)
	for {
		n, err := answer.Parse(in, maxHead)
		switch {
		case err == nil && (answer.Status >= 200 || answer.Status == 101):
			return in[n:], said(&answer, in[n:], to)
		case err == nil:
			in, maxHead = in[n:], maxHead-n
			continue
		case err != http1.ErrIncomplete:
			return nil, &hopAnswer{problem: hopGarbled(err)}
		}
		if len(in) == cap(in) {
			in = append(in, 0)[:len(in)]
		}
		n, err = c.Read(in[len(in):cap(in)])
		if in = in[:len(in)+n]; n == 0 && err != nil {
			return nil, err
		}
	}
}

// said returns what the hop's answer to a CONNECT says, nil if it is yes.
func said(r *http1.Response, early []byte, to pool.Key) error {
	answered := " it answered CONNECT with " + strconv.Itoa(r.Status)
	a := &hopAnswer{received: r.Status}
	switch s := r.Status; {
	case s/100 == 2 && to.TLS && len(early) > 0:
		a.problem = problemHopSpeaks
	case s/100 == 2:
		return nil
	case s == 407, s == 401: // tinyproxy says this of a wrong password
		a.problem = problemHopCredentials
	case s == 403:
		a.problem = problem{403, kindHTTPRequestDenied, "the next hop does not let this host and port be reached (CARPOOL_NEXT_PROXY):" + answered}
	case s == 504:
		a.problem = problem{504, kindDestinationUnavailable, "the next hop could not connect to the upstream in time:" + answered}
	case s >= 500:
		a.problem = problem{502, kindDestinationUnavailable, "the next hop could not connect to the upstream:" + answered}
	default:
		a.problem = problem{502, kindDestinationUnavailable, "the next hop opens no connection to this host and port; is it a proxy (CARPOOL_NEXT_PROXY)?" + answered}
	}
	return a
}

// relayed reports whether the request goes to the next hop in absolute-form.
func (x *exchange) relayed() bool { return x.origin != nil && x.origin.Key().Way == pool.ToHop }

// asked reports whether the answer that has come asks for credentials of carpool's, not
// of the client's.
func (x *exchange) asked() bool { return x.resp.Status == 407 && x.relayed() }

// relays sees to what is special about a request that the hop is to relay. One that goes
// to another host than the one before does not take its pinned connection. An upgrade is
// not relayed but goes through the hop, for behind it there is no HTTP (RFC 6455
// section 4.1).
func (s *session) relays(x *exchange, t target, moves bool) {
	if moves {
		s.ticket.Leave()
	}
	if offersUpgrade(&x.req) {
		x.origin = s.route.through(t)
	}
}

// errors returns how often the hop could not be used, by error type of RFC 9209. Of a
// nil Hop there are none.
func (h *Hop) errors() map[string]uint64 {
	if h == nil {
		return nil
	}
	all := map[string]uint64{}
	for k := range errorKinds {
		if n := h.failures[k].Load(); n > 0 {
			all[k.String()] = n
		}
	}
	return all
}
