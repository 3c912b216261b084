package proxy

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/url"

	"github.com/elazarl/goproxy"
)

// decider is goproxy's part: its handlers decide what becomes of a CONNECT. What
// they leave to carpool they hijack, so goproxy copies no bytes and opens no
// connection. It is safe for concurrent use.
type decider struct{ goproxy *goproxy.ProxyHttpServer }

// newDecider returns a decider that leaves every CONNECT to carpool.
func newDecider() decider {
	g := goproxy.NewProxyHttpServer()
	g.Logger = silent{} // the session logs what went wrong
	g.Tr = &http.Transport{}
	g.ConnectDial = nil // would read HTTPS_PROXY
	carry := &goproxy.ConnectAction{
		Action: goproxy.ConnectHijack,
		Hijack: func(r *http.Request, _ net.Conn, _ *goproxy.ProxyCtx) { r.Context().Value(carryKey{}).(func())() },
	}
	g.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return carry, host
	})
	return decider{g}
}

// decide has a CONNECT to an authority decided upon, and calls carry, before it
// returns, if carpool is to carry it itself.
func (d decider) decide(authority string, client net.Conn, carry func()) {
	r := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Host: authority}, Host: authority, Header: http.Header{},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	d.goproxy.ServeHTTP(&handover{client: client}, r.WithContext(context.WithValue(context.Background(), carryKey{}, carry)))
}

type carryKey struct{}

type silent struct{}

func (silent) Printf(string, ...any) {}

// handover is the ResponseWriter by which goproxy is given the client's
// connection.
type handover struct {
	http.ResponseWriter // nil: a CONNECT over HTTP/1 is answered on the connection
	client              net.Conn
}

// Hijack implements http.Hijacker.
func (h *handover) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.client, nil, nil }
