package admin

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// quit is for the main container of a Job, where the sidecar does not end by itself. Only the pod may ask: the port is
// open to the whole network.
func quit(w http.ResponseWriter, r *http.Request, quit func()) {
	if reason := whyNot(r, "/quitquitquit"); reason != "" {
		http.Error(w, reason, http.StatusForbidden)
		return
	}
	_, _ = io.WriteString(w, "draining\n")
	_ = http.NewResponseController(w).Flush() // the end may come at once
	quit()
}

// whyNot says why a request is not for those outside the pod, "" if it comes from inside. A browser that reaches 127.0.0.1, by a forwarded port
// say, lends its place to every page it shows: by a form or a script of another site, and by a name of that site's own
// that leads to 127.0.0.1.
func whyNot(r *http.Request, path string) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return "only from inside the pod, by way of 127.0.0.1"
	}
	if !isPlainHost(r.Host) {
		return "the Host has to be an IP address or localhost, as in http://127.0.0.1:9128" + path
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return "not on behalf of a page from elsewhere (Origin)"
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return "not on behalf of a page from elsewhere (Sec-Fetch-Site)"
	}
	return ""
}

// isPlainHost reports whether a Host, with or without a port, is an IP address or localhost.
func isPlainHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}
