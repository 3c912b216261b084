package proxy_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy"
)

// R4, R5: the host that is dialled is the one that others see in the target.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{
		"http://h/", "HTTPS://h:1?a=b", "http://u:p@h:80/a@b?c@d#e", "http://a@b@c/", "http://h#@x/", "http://h?@x/", "http://h/@x",
		"http://a\\@b/", "http://a@b\\c/", "http://[::1]@h/", "http://u@[::1]:80/", "http://@h", "http://u@", "http://#", "http://?",
		"http:///h", "http://h:80:90/", "http://u%40h/", "http://u@h;x", "http://\xff@h/", "http:h", "/h", "*", "ftp://u@h/",
	} {
		f.Add([]byte(target))
	}
	f.Fuzz(func(t *testing.T, target []byte) {
		authority, path, ok := proxy.ParseTarget(target)
		if !ok {
			return
		}
		if strings.ContainsAny(authority, "@/?#\\") || strings.Contains(path, "#") || path != "" && path[0] != '/' && path[0] != '?' {
			t.Errorf("%q is parted into %q and %q", target, authority, path)
		}
		u, err := url.Parse(string(target))
		if err != nil { // of much that is no URI
			return
		}
		unescaped, err := url.PathUnescape(authority) // a host may be in percent there; here policy.Host refuses it
		if err != nil || u.Host != authority && u.Host != unescaped {
			t.Errorf("%q has the host %q, for net/url it is %q", target, authority, u.Host)
		}
		before, query, _ := strings.Cut(path, "?")
		if before, err = url.PathUnescape(before); err != nil || before != u.Path || query != u.RawQuery {
			t.Errorf("%q has the path and query %q, for net/url they are %q and %q", target, path, u.Path, u.RawQuery)
		}
		// Without what was cut off it is the same.
		whole := "http://" + authority + path
		if a, p, ok := proxy.ParseTarget([]byte(whole)); !ok || a != authority || p != path {
			t.Errorf("%q is parted into %q and %q", whole, a, p)
		}
	})
}
