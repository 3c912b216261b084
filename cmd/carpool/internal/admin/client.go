package admin

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Client returns a client for the admin listener of the carpool that has this ADMIN_LISTEN, in the same pod. The host of
// its URLs is localhost. A request takes no longer than timeout, and leaves no connection behind.
func Client(listen string, timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		// An address to listen on can be dialled: without a host, or with the unspecified one, it is this machine's.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, listen)
		},
	}}
}
