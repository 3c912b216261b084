package proxy_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// rules makes rules of lists with commas in them.
func rules(allowHosts, denyHosts, allowCIDRs, denyCIDRs string) policy.Rules {
	hosts := func(list string) policy.HostSet {
		return policy.NewHostSet(each(list, func(s string) policy.HostPattern {
			p, ok := policy.ParseHostPattern(s)
			if !ok {
				panic(s + " is no pattern")
			}
			return p
		}))
	}
	return policy.Rules{
		AllowHosts: hosts(allowHosts), DenyHosts: hosts(denyHosts),
		AllowCIDRs: each(allowCIDRs, netip.MustParsePrefix), DenyCIDRs: each(denyCIDRs, netip.MustParsePrefix),
	}
}

func each[T any](list string, parse func(string) T) (all []T) {
	for _, field := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		all = append(all, parse(field))
	}
	return all
}

// lookUps are names that remember which of them were asked for.
type lookUps struct {
	names
	mu    sync.Mutex
	asked []string
}

func (l *lookUps) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	l.mu.Lock()
	l.asked = append(l.asked, host)
	l.mu.Unlock()
	return l.names.LookupNetIP(ctx, network, host)
}

// forbids checks that a request for an authority is refused, in absolute-form and by
// CONNECT, by an answer that names a setting and nothing of the request.
func (r *rig) forbids(authority, kind, setting string) {
	r.t.Helper()
	for _, request := range []string{
		"GET http://" + authority + "/s3cret HTTP/1.1\r\nHost: " + authority + "\r\n\r\n", connectTo(authority),
	} {
		client := r.client()
		client.send(request)
		head, body := client.problem(403)
		if got := field(head, "Proxy-Status"); got != "carpool; error="+kind {
			r.t.Errorf("%s: Proxy-Status: %s", authority, got)
		}
		if !strings.Contains(body, setting) || strings.Contains(body, "s3cret") {
			r.t.Errorf("%s is told %q", authority, body)
		}
	}
}

// passes checks that a request for an authority arrives at o.
func (r *rig) passes(o *origin, authority string) {
	r.t.Helper()
	client := r.client()
	client.send("GET http://" + authority + "/ HTTP/1.1\r\nHost: " + authority + "\r\nConnection: close\r\n\r\n")
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	if head := client.head(); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		r.t.Errorf("%s is answered %q", authority, head)
	}
}

func (r *rig) refusals(rule string) proxy.RuleStats {
	all := r.proxy.Stats().Rules
	return all[slices.IndexFunc(all, func(s proxy.RuleStats) bool { return s.Rule == rule })]
}

var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

func TestS9ADeniedHostIsNeverLookedUp(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	look := &lookUps{names: names{"good.test": loopback, "s3cret.bad.test": loopback, "other.test": loopback}}
	r := start(t, func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("good.test,.bad.test", ".bad.test", "", "")})
		s.pool.Resolver = look
	})
	r.passes(o, "good.test"+o.port())
	for _, host := range []string{"s3cret.bad.test", "S3cret.BAD.test", "s3cret.bad.test."} {
		r.forbids(host+o.port(), "http_request_denied", ".bad.test of CARPOOL_DENY_HOSTS")
	}
	for _, host := range []string{"other.test", "s3cret.good.test", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		r.forbids(host+o.port(), "http_request_denied", "CARPOOL_ALLOW_HOSTS")
	}
	if slices.ContainsFunc(look.asked, func(name string) bool { return name != "good.test" }) {
		t.Errorf("looked up: %v", look.asked)
	}
	o.served(1)
	if r.refusals(policy.ReasonDenyHosts).Refused != 6 || r.refusals(policy.ReasonAllowHosts).Refused != 10 {
		t.Errorf("counted %+v", r.proxy.Stats().Rules)
	}
	r.logged(17)
	for i, want := range map[int]string{2: "http://s3cret.bad.test" + o.port(), 3: "s3cret.bad.test" + o.port()} {
		if rec := r.logged(i); rec.Origin != want || rec.Status != 403 || rec.Error != "http_request_denied" || !strings.Contains(rec.Detail, "CARPOOL_DENY_HOSTS") {
			t.Errorf("logged as %+v", rec)
		}
	}
	if n := r.proxy.Stats().Errors["http_request_denied"]; n != 16 {
		t.Errorf("%d answers are counted", n)
	}
}

// What a request is for is its target, whatever else names a host.
func TestS9TheHostThatIsJudgedIsTheOneThatIsAskedFor(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	r := start(t, func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("good.test", "", "", "")})
		s.pool.Resolver = names{"good.test": loopback, "bad.test": loopback}
	})
	for _, target := range []string{
		"http://good.test@bad.test" + o.port() + "/", "http://good.test:80@bad.test" + o.port() + "/", "http://bad.test" + o.port() + "/@good.test",
		"http://bad.test" + o.port() + "#@good.test", "http://bad.test" + o.port() + "?good.test", "https://bad.test/", "HTTP://BAD.TEST/",
	} {
		client := r.client()
		client.send("GET " + target + " HTTP/1.1\r\nHost: good.test" + o.port() + "\r\n\r\n")
		client.refused(403)
	}
	o.served(0)
	client := r.client()
	client.send("GET http://good.test" + o.port() + "/ HTTP/1.1\r\nHost: bad.test\r\nX-Forwarded-Host: bad.test\r\n\r\n")
	up := o.accept()
	if head := up.head(); field(head, "Host") != "good.test"+o.port() {
		t.Errorf("%q goes upstream", head)
	}
	up.send(ok)
	client.want(ok)
}

func TestS10AnAllowedNameOpensNoDeniedAddress(t *testing.T) {
	t.Parallel()
	denied, metadata := netip.MustParseAddr("127.9.9.9"), netip.MustParseAddr("169.254.169.254")
	ruled := func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules(".test,127.9.9.9", "", "127.0.0.0/8,169.254.169.254/32", "127.9.0.0/16,::1/128")})
	}
	t.Run("S10 the name leads to a denied address", func(t *testing.T) {
		t.Parallel()
		r := start(t, ruled, func(s *settings) {
			s.pool.Resolver = names{
				"a.test": {denied}, "b.test": {netip.MustParseAddr("::ffff:127.9.9.9")}, "c.test": {netip.MustParseAddr("64:ff9b::127.9.9.9")},
				"d.test": {netip.MustParseAddr("::")},
			}
		})
		for _, host := range []string{"a.test", "b.test", "c.test", "d.test", "127.9.9.9"} {
			r.forbids(host+":9", "destination_ip_prohibited", "CARPOOL_DENY_CIDRS")
		}
		if r.refusals(policy.ReasonDenyCIDRs).Refused != 10 {
			t.Errorf("counted %+v", r.proxy.Stats().Rules)
		}
	})
	t.Run("S10 mixed answers", func(t *testing.T) {
		t.Parallel()
		var seen asked
		o := newOrigin(t)
		r := start(t, ruled, func(s *settings) {
			s.pool.Resolver, s.pool.CheckAddr = names{"mixed.test": {denied, loopback[0]}}, seen.check(s.pool.CheckAddr)
		})
		r.passes(o, "mixed.test"+o.port())
		if len(seen.list) != 2 {
			t.Errorf("asked about %v, want both", seen.list)
		}
		if r.refusals(policy.ReasonDenyCIDRs).Refused != 1 {
			t.Errorf("counted %+v", r.proxy.Stats().Rules)
		}
	})
	t.Run("S10 rebinding", func(t *testing.T) {
		t.Parallel()
		o := newOrigin(t)
		r := start(t, ruled, func(s *settings) {
			s.pool.Resolver = &rebinding{answers: [][]netip.Addr{loopback, {denied}, {metadata}}}
		})
		r.passes(o, "rebind.test"+o.port()) // its connection closes
		for range 2 {                       // an allowed range opens no metadata service either
			client := r.client()
			client.send("GET http://rebind.test" + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			client.refused(403)
		}
		o.served(1)
	})
}

// What is open already is no way around a rule: not to a host that leads to the
// same address, and not on a client connection that was let in for another host.
func TestS11AConnectionThatIsOpenIsNoWayAroundARule(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	r := start(t, func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("good.test"+o.port(), "", "", "")})
		s.pool.Resolver = names{"good.test": loopback, "bad.test": loopback}
	})
	get := func(authority string) string { return "GET http://" + authority + "/ HTTP/1.1\r\nHost: x\r\n\r\n" }
	client := r.client()
	var up *wire
	for range 2 {
		client.send(get("good.test" + o.port()))
		if up == nil {
			up = o.accept()
		}
		up.head()
		up.send(ok)
		client.want(ok)
	}
	for _, authority := range []string{"bad.test" + o.port(), "good.test:1", o.addr} {
		next := r.client()
		next.send(get("good.test" + o.port()))
		up.head()
		up.send(ok)
		next.want(ok)
		next.send(get(authority))
		next.problem(403)
	}
	o.served(1)
}

func TestS12ReportLetsThroughWhatARuleRefuses(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	var mu sync.Mutex
	told := map[string]int{}
	r := start(t, func(s *settings) {
		c := proxy.EgressConfig{Rules: rules("good.test", "denied.test", "", "127.0.0.0/8"), Report: true, Reported: func(r proxy.Reported) {
			mu.Lock()
			defer mu.Unlock()
			told[r.Rule+" "+r.Target]++
			if !strings.Contains(r.Detail, "CARPOOL_") {
				t.Errorf("told of %+v", r)
			}
		}}
		c.Rules.ConnectPorts = []uint16{1}
		s.ruled(c)
		s.pool.Resolver = names{"good.test": loopback, "denied.test": loopback, "other.test": loopback}
	})
	client := r.client()
	for _, host := range []string{"good.test", "denied.test", "other.test"} {
		var up *wire
		for range 3 { // on one connection: for each request it is told
			client.send("GET http://" + host + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			if up == nil {
				up = o.accept()
			}
			up.head()
			up.send(ok)
			client.want(ok)
		}
	}
	client = r.client()
	client.send(connectTo("good.test"+o.port()) + "hi")
	o.accept().want("hi")
	client.want(established)
	want := map[string]int{
		"deny_hosts http://denied.test" + o.port(): 3, "allow_hosts http://other.test" + o.port(): 3,
		"connect_ports good.test" + o.port(): 1, "deny_cidrs " + o.addr: 4,
	}
	mu.Lock()
	defer mu.Unlock()
	for what, n := range want {
		if told[what] != n {
			t.Errorf("%s: told %d times, want %d", what, told[what], n)
		}
		rule, _, _ := strings.Cut(what, " ")
		if got := r.refusals(rule); got.Reported != uint64(n) || got.Refused != 0 {
			t.Errorf("counted %+v, want %d", got, n)
		}
	}
	if len(told) != len(want) {
		t.Errorf("told of %v", told)
	}
}

// What is built in does not depend on what is set.
func TestS12ReportLetsThroughNothingThatIsRefusedByDefault(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("good.test", "", "", "169.254.0.0/16"), Report: true})
	})
	for authority, status := range map[string]int{
		"169.254.169.254:80": 403, "169.254.1.1:80": 403, "[fd00:ec2::254]:80": 403, "224.0.0.1:80": 403, "[::ffff:169.254.169.254]:80": 403,
		r.addr: 508, "127.1:80": 400,
	} {
		client := r.client()
		client.send("GET http://" + authority + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		client.problem(status)
		client = r.client()
		client.send(connectTo(authority))
		client.refused(status)
	}
	if got := r.refusals(policy.ReasonMetadata); got.Refused != 6 || got.Reported != 0 {
		t.Errorf("counted %+v", got)
	}
}

// A request inside CONNECT is asked about like any other.
func TestS12RequestsInATunnelAreToldOfToo(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	var mu sync.Mutex
	told := map[string]int{}
	r := start(t, func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("", "127.0.0.1", "", ""), Report: true, Reported: func(r proxy.Reported) {
			mu.Lock()
			defer mu.Unlock()
			told[r.Rule+" "+r.Target]++
		}})
	})
	client := r.inside(o)
	up := o.getInside(client, nil)
	o.getInside(client, up)
	mu.Lock()
	defer mu.Unlock()
	for target, want := range map[string]int{o.addr: 1, "http://" + o.addr: 2} {
		if n := told["deny_hosts "+target]; n != want {
			t.Errorf("told %d times of %s, want %d: %v", n, target, want, told)
		}
	}
	if got := r.refusals("deny_hosts"); got.Reported != 3 || got.Refused != 0 {
		t.Errorf("counted %+v", got)
	}
}
