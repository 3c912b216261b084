package nameserver

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Query is what a resolver has asked.
type Query struct {
	// Name is the full name in lower case, with its last dot.
	Name string
	Type dnsmessage.Type
	// TCP is whether it came by TCP.
	TCP bool
	// Before is how often this name was asked for this type before.
	Before int
}

// Reply is what becomes of a query. The server fills it in from its zone, and the
// function given to Do changes it.
type Reply struct {
	// Drop leaves the query without an answer.
	Drop bool
	// Wait holds the answer up until the channel is closed; nil is not at all.
	Wait <-chan struct{}
	// RCode is the answer's code; names that are not in the zone have NXDOMAIN.
	RCode dnsmessage.RCode
	// Addrs are the addresses; those of the other family are left out. Alias is the
	// name that the name stands for, "" for none.
	Addrs []netip.Addr
	Alias string
	// TTL is that of addresses, and of the SOA in an answer that has none.
	TTL time.Duration
	// Truncated has an answer by UDP say that the rest is to be had by TCP. Answers
	// too long for their packet say so by themselves.
	Truncated bool
	// WrongID and WrongName send an answer to another question first, as a forger
	// would: one with the address 192.0.2.66.
	WrongID, WrongName bool
	// Raw, if not nil, is sent instead, whatever it is.
	Raw []byte
}

// Forged is the address in answers that are forged.
var Forged = netip.MustParseAddr("192.0.2.66")

// record is what the zone holds of a name.
type record struct {
	addrs []netip.Addr
	alias string
	ttl   time.Duration
}

// Server is a name server. It is safe for concurrent use.
type Server struct {
	t    testing.TB
	addr netip.AddrPort

	mu      sync.Mutex
	zone    map[string]record
	change  func(Query, *Reply)
	asked   map[Query]int // by name, type and transport
	queries []Query
	up      *listeners // nil while it is dead
}

// New starts a server on a free port of 127.0.0.1. It ends with the test.
func New(t testing.TB) *Server { return At(t, "127.0.0.1:0") }

// At starts a server at an address. Port 0 is any free one.
func At(t testing.TB, address string) *Server {
	t.Helper()
	s := &Server{t: t, addr: netip.MustParseAddrPort(address), zone: map[string]record{}, asked: map[Query]int{}}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Addr returns where the server is.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// ResolvConf returns the path of a resolv.conf that names this server and holds
// these lines.
func (s *Server) ResolvConf(lines ...string) string { return ResolvConf(s.t, lines, s.addr) }

// ResolvConf returns the path of a resolv.conf that names these servers, in this
// order, in OpenBSD's notation: [address]:port.
func ResolvConf(t testing.TB, lines []string, servers ...netip.AddrPort) string {
	t.Helper()
	text := strings.Join(lines, "\n") + "\n"
	for _, a := range servers {
		text += "nameserver [" + a.Addr().String() + "]:" + a.String()[strings.LastIndexByte(a.String(), ':')+1:] + "\n"
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Set makes these a name's addresses, of both families; none is a name that has no
// addresses. The name ends in a dot.
func (s *Server) Set(name string, ttl time.Duration, addrs ...string) {
	r := record{ttl: ttl}
	for _, a := range addrs {
		r.addrs = append(r.addrs, netip.MustParseAddr(a))
	}
	s.put(name, r)
}

// Alias makes a name stand for another (CNAME).
func (s *Server) Alias(name, target string, ttl time.Duration) {
	s.put(name, record{alias: target, ttl: ttl})
}

func (s *Server) put(name string, r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.HasSuffix(name, ".") {
		s.t.Errorf("bug in the test: %q is no full name", name)
	}
	s.zone[strings.ToLower(name)] = r
}

// Remove makes a name unknown.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.zone, strings.ToLower(name))
}

// Do has a function change replies from now on; nil ends that. It is called one
// query at a time, and must not call the server.
func (s *Server) Do(change func(Query, *Reply)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = change
}

// Fail has the server answer everything with a code, such as SERVFAIL; success
// ends that.
func (s *Server) Fail(code dnsmessage.RCode) {
	if code == dnsmessage.RCodeSuccess {
		s.Do(nil)
		return
	}
	s.Do(func(_ Query, r *Reply) { r.RCode = code })
}

// Count returns how many queries there were for a name and a type; "" is any name.
func (s *Server) Count(name string, kind dnsmessage.Type) (n int) {
	for _, q := range s.Queries() {
		if q.Type == kind && (name == "" || q.Name == name) {
			n++
		}
	}
	return n
}

// Queries returns all queries, the first first.
func (s *Server) Queries() []Query {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries)
}

// Forget makes the server count from 0.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = nil
	clear(s.asked)
}

// listeners are the sockets of a server that is alive.
type listeners struct {
	udp  *net.UDPConn
	tcp  net.Listener
	end  context.CancelFunc
	work sync.WaitGroup
}

// Start brings the server to life, on the port that it had before.
func (s *Server) Start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up := &listeners{end: cancel}
	var lc net.ListenConfig
	for range 20 { // what is free for UDP may not be free for TCP
		udp, err := lc.ListenPacket(ctx, "udp", s.addr.String())
		if err != nil {
			s.t.Fatalf("the name server: %v", err)
		}
		up.udp = udp.(*net.UDPConn)
		at := up.udp.LocalAddr().(*net.UDPAddr).AddrPort()
		if up.tcp, err = lc.Listen(ctx, "tcp", at.String()); err == nil {
			s.addr = at
			break
		}
		_ = udp.Close()
		if s.addr.Port() != 0 {
			s.t.Fatalf("the name server: %v", err)
		}
	}
	up.work.Go(func() { s.serveUDP(ctx, up) })
	up.work.Go(func() { s.serveTCP(ctx, up) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = up
}

// Stop kills the server: its ports are closed. Start revives it.
func (s *Server) Stop() {
	s.mu.Lock()
	up := s.up
	s.up = nil
	s.mu.Unlock()
	if up == nil {
		return
	}
	up.end()
	_, _ = up.udp.Close(), up.tcp.Close()
	up.work.Wait()
}

func (s *Server) serveUDP(ctx context.Context, up *listeners) {
	for b := make([]byte, 1500); ; {
		n, from, err := up.udp.ReadFromUDPAddrPort(b)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		send := func(m []byte) { _, _ = up.udp.WriteToUDPAddrPort(m, from) }
		s.handle(ctx, up, b[:n], false, send)
	}
}

func (s *Server) serveTCP(ctx context.Context, up *listeners) {
	for {
		c, err := up.tcp.Accept()
		if err != nil {
			return
		}
		up.work.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			var mu sync.Mutex
			for {
				b, err := ReadTCP(c)
				if err != nil {
					return
				}
				s.handle(ctx, up, b, true, func(m []byte) {
					mu.Lock()
					defer mu.Unlock()
					_, _ = c.Write(append([]byte{byte(len(m) >> 8), byte(len(m))}, m...))
				})
			}
		})
	}
}
