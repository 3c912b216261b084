package testkit

import (
	"net"
	"net/netip"
	"testing"
)

// Refused returns an address of loopback where connections are refused as long as the
// test runs. Its port is that of a connection which is open: it is given to no listener.
func Refused(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = l.Close()
	})
	return netip.MustParseAddrPort(c.LocalAddr().String())
}
