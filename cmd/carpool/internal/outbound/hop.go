package outbound

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// maxCredentials bounds the file with the credentials.
const maxCredentials = 4 << 10

// Hop returns the proxy that NEXT_PROXY names, with these credentials; nil if there is none. seen is told as
// [proxy.NewHop] says.
func Hop(cfg config.Config, userinfo string, seen func(pool.Key)) *proxy.Hop {
	if cfg.NextProxy.Host == "" {
		return nil
	}
	h := proxy.NewHop(pool.Key(cfg.NextProxy), policy.NewDirect(cfg.NextNoProxy.Hosts, cfg.NextNoProxy.Ranges), seen)
	h.SetCredentials(userinfo)
	return h
}

// Credentials returns user:password for the next hop, "" if there are none. The error says nothing of what stands in the
// file.
func Credentials(cfg config.Config) (string, error) {
	file := cfg.NextProxyAuthFile
	if file == "" {
		return "", nil
	}
	fail := func(err error) (string, error) { return "", fmt.Errorf("CARPOOL_NEXT_PROXY_AUTH_FILE: %w", err) }
	switch st, err := os.Stat(file); { // to open a pipe might wait for ever
	case err != nil:
		return fail(err)
	case !st.Mode().IsRegular() || st.Size() > maxCredentials:
		return fail(fmt.Errorf("%s: want a file of at most %d bytes", file, maxCredentials))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	userinfo := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	user, _, found := strings.Cut(userinfo, ":")
	isControl := func(r rune) bool { return r < ' ' || r == 0x7f } // RFC 7617 section 2
	if !found || user == "" || strings.ContainsFunc(userinfo, isControl) {
		return fail(errors.New(file + ": want one line, user:password"))
	}
	return userinfo, nil
}
