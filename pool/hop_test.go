package pool_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// hopped is a pool with a next hop at u, which has done what connect does.
func hopped(t *testing.T, u *upstream, connect func(net.Conn, pool.Key) ([]byte, error), change ...func(*pool.Config)) *pool.Pool {
	t.Helper()
	return newPool(t, append([]func(*pool.Config){func(c *pool.Config) {
		c.Hop = &pool.Hop{Key: pool.Key{Host: u.addr.Addr().String(), Port: u.addr.Port(), Way: pool.ToHop}, Connect: connect}
	}}, change...)...)
}

func far(way pool.Way, tls bool) pool.Key {
	return pool.Key{TLS: tls, Host: "far.test", Port: 443, Way: way}
}

func TestC31TheWayIsPartOfWhatAnOriginIs(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	var asked []pool.Key
	p := hopped(t, u, func(_ net.Conn, to pool.Key) ([]byte, error) {
		asked = append(asked, to)
		return nil, nil
	})
	o := p.Origin(far(pool.ByHop, false).Lookup())
	if o == p.Origin(far(pool.Directly, false).Lookup()) || o.Key() != far(pool.ByHop, false) {
		t.Errorf("%v is not told from what is reached directly", o.Key())
	}
	l := acquire(t, o, pool.Ticket{})
	if l.Way() != pool.ByHop || l.Addr() != u.addr || len(asked) != 1 || asked[0] != o.Key() {
		t.Errorf("a connection to %v, asked for %v", l.Addr(), asked)
	}
	if x, err := o.Explain(context.Background(), true); err != nil || x.Addr != u.addr.Addr() || x.Hop != "next hop http://"+u.addr.String() {
		t.Errorf("explained as %+v, %v", x, err)
	}
	l.Release()
	if l = acquire(t, o, pool.Ticket{}); !l.Reused() || len(asked) != 1 {
		t.Errorf("asked again: %v", asked)
	}
	l.Discard(pool.NotKept)
	l = acquire(t, p.Origin(pool.Key{Host: u.addr.Addr().String(), Port: u.addr.Port(), Way: pool.ToHop}.Lookup()), pool.Ticket{})
	l.Failed() // which is said of others
	l.Overloaded(time.Minute)
	l.Release()
	for _, s := range p.Snapshot().Origins {
		for _, a := range s.Addrs {
			if a.Benched != "" {
				t.Errorf("%s is left alone: %+v", s.Origin, a)
			}
		}
	}
}

// C31: what came with the hop's word is read first, and makes an idle connection one
// that is no good.
func TestC31WhatCameEarlyIsReadFirst(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	p := hopped(t, u, func(net.Conn, pool.Key) ([]byte, error) { return []byte("early"), nil })
	o := p.Origin(far(pool.ByHop, false).Lookup())
	l := acquire(t, o, pool.Ticket{})
	peer := u.next()
	if _, err := peer.Write([]byte(" late")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("early late"))
	if _, err := io.ReadFull(reader{l}, got); err != nil || string(got) != "early late" {
		t.Errorf("%q, %v", got, err)
	}
	l.Discard(pool.Tunnelled)
	l = acquire(t, o, pool.Ticket{})
	l.Release()
	if next := acquire(t, o, pool.Ticket{}); next == l {
		t.Error("a connection was used again on which something waits")
	} else {
		next.Discard(pool.NotKept)
	}
	if n := p.Snapshot().Origins[0].Closed[pool.StrayBytes]; n != 1 {
		t.Errorf("%d are closed for stray bytes", n)
	}
}

// reader reads from a lease as net.Conn does.
type reader struct{ l *pool.Lease }

func (r reader) Read(p []byte) (int, error) { return r.l.Read(p) }

// C33: what fails is told by its stage, and that it is the hop's.
func TestC33WhoseFaultADialErrorIs(t *testing.T) {
	t.Parallel()
	errNo := errors.New("no")
	u := newUpstream(t)
	wait := func(c net.Conn, _ pool.Key) ([]byte, error) {
		_, err := c.Read(make([]byte, 1))
		return nil, err
	}
	for name, c := range map[string]struct {
		connect func(net.Conn, pool.Key) ([]byte, error)
		change  func(*pool.Config)
		key     pool.Key
		stage   pool.Stage
		hop     bool
		is      error
	}{
		"C33 the hop says no": {func(net.Conn, pool.Key) ([]byte, error) { return nil, errNo }, func(*pool.Config) {}, far(pool.ByHop, false), pool.StageHop, true, errNo},
		"C33 the hop is silent": {wait, func(c *pool.Config) { c.DialTimeout = 50 * time.Millisecond }, far(pool.ByHop, true), pool.StageHop, true,
			context.DeadlineExceeded},
		"C33 the hop may not be dialled": {nil, func(c *pool.Config) { c.CheckAddr = func(netip.AddrPort) error { return errNo } },
			far(pool.ByHop, false), pool.StagePolicy, true, errNo},
		"C33 TLS behind the hop": {func(c net.Conn, _ pool.Key) ([]byte, error) {
			return nil, c.(interface{ CloseWrite() error }).CloseWrite()
		},
			func(c *pool.Config) { c.DialTimeout = 50 * time.Millisecond }, far(pool.ByHop, true), pool.StageTLS, false, nil},
		"C33 without a hop": {nil, func(c *pool.Config) { c.CheckAddr = func(netip.AddrPort) error { return errNo } },
			pool.Key{Host: "127.0.0.1", Port: 1}, pool.StagePolicy, false, errNo},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := hopped(t, u, c.connect, c.change)
			err := failure(t, p.Origin(c.key.Lookup()))
			if err.Stage != c.stage || err.Hop != c.hop || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%+v at %v, want one at %v", err, err.Stage, c.stage)
			}
		})
	}
}

// bundle is a connection whose writes leave together.
type bundle struct {
	net.Conn
	open bool
	kept []byte
}

func (b *bundle) Write(p []byte) (int, error) {
	if b.open {
		return b.Conn.Write(p)
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}

// Records within records of the hop's own come one by one, and each as a whole.
func TestC31RecordsInTheHopsRecordsComeWhole(t *testing.T) {
	t.Parallel()
	const records, size = 50, 200
	u, a := newUpstream(t), newAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{a.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"far.test"} })}}
	p := newPool(t, func(c *pool.Config) {
		c.RootCAs = a.roots()
		c.Hop = &pool.Hop{
			Key:     pool.Key{TLS: true, Host: u.addr.Addr().String(), Port: u.addr.Port(), Way: pool.ToHop},
			Connect: func(net.Conn, pool.Key) ([]byte, error) { return nil, nil },
		}
	})
	written := testkit.In(func() error {
		hop := &bundle{Conn: tls.Server(u.next(), server), open: true}
		end := tls.Server(hop, server)
		if err := end.HandshakeContext(t.Context()); err != nil {
			return err
		}
		hop.open = false
		for range records {
			_, _ = end.Write(bytes.Repeat([]byte("x"), size))
		}
		hop.open = true
		_, err := hop.Write(hop.kept) // in one record of the hop's
		return err
	})
	l := acquire(t, p.Origin(far(pool.ByHop, true).Lookup()), pool.Ticket{})
	if err := testkit.Await(t, "the server has written", written); err != nil {
		t.Fatal(err)
	}
	var b sock.Buffer
	for n, fills := 0, 0; n < records*size; n += b.Len() {
		b.Release()
		if err := l.Fill(&b); err != nil {
			t.Fatal(err)
		}
		if fills++; fills > 2*records {
			t.Fatalf("%d reads have brought %d bytes", fills, n)
		}
	}
	b.Release()
	l.Discard(pool.NotKept)
}
