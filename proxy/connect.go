package proxy

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/elazarl/goproxy"
)

// decider is goproxy's part: its handlers decide what becomes of a CONNECT. What
// they leave to carpool they hijack, so goproxy copies no bytes and opens no
// connection. It is safe for concurrent use.
type decider struct{ goproxy *goproxy.ProxyHttpServer }

// fate is what is decided about a CONNECT.
type fate uint8

const (
	answered  fate = iota // goproxy has answered it
	looked                // it is opened, and looked into
	tunnelled             // it is a tunnel
)

// newDecider returns a decider that leaves every CONNECT to carpool. Those to
// certain ports are not looked into.
func newDecider(tunnelPorts []uint16) decider {
	g := goproxy.NewProxyHttpServer()
	g.Logger = silent{} // the session logs what went wrong
	g.Tr = &http.Transport{}
	g.ConnectDial = nil // would read HTTPS_PROXY
	decided := func(f fate) *goproxy.ConnectAction {
		return &goproxy.ConnectAction{
			Action: goproxy.ConnectHijack,
			Hijack: func(_ *http.Request, h net.Conn, _ *goproxy.ProxyCtx) { h.(*handover).fate = f },
		}
	}
	look, tunnel := decided(looked), decided(tunnelled)
	g.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		if _, port, ok := strings.Cut(host[strings.LastIndexByte(host, ']')+1:], ":"); ok {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil && slices.Contains(tunnelPorts, uint16(n)) {
				return tunnel, host
			}
		}
		return look, host
	})
	return decider{g}
}

// decide has a CONNECT to an authority, host:port, decided upon.
func (d decider) decide(authority string, client net.Conn) fate {
	h := &handover{Conn: client}
	d.goproxy.ServeHTTP(h, &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Host: authority}, Host: authority, Header: http.Header{},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	})
	return h.fate
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// handover is the ResponseWriter by which goproxy is given the client's connection,
// and that connection, on which the handler notes what becomes of it.
type handover struct {
	net.Conn
	fate fate
}

// Hijack implements http.Hijacker.
func (h *handover) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h, nil, nil }

// Header implements http.ResponseWriter. Nothing is answered by it: a CONNECT over
// HTTP/1 is answered on the connection.
func (h *handover) Header() http.Header { return http.Header{} }

// WriteHeader implements http.ResponseWriter.
func (h *handover) WriteHeader(int) {}
