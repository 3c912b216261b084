package names_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/pool/names"
)

// says is a name server of a script.
type says func(kind dnsmessage.Type) names.Answer

// X24: what is waited for, and for how long, with a clock that does not lie.
func TestX24HowLongALookUpWaits(t *testing.T) {
	silent := says(func(dnsmessage.Type) names.Answer { return names.Answer{After: names.Never} })
	answers := func(after time.Duration, a ...netip.Addr) says {
		return func(kind dnsmessage.Type) names.Answer {
			r := answer(time.Minute, kind, a...)
			r.After = after
			return r
		}
	}
	code := func(after time.Duration, c dnsmessage.RCode) says {
		return func(dnsmessage.Type) names.Answer { return names.Answer{After: after, Code: c} }
	}
	without := func(missing dnsmessage.Type, s says) says {
		return func(kind dnsmessage.Type) names.Answer {
			if kind == missing {
				return names.Answer{After: names.Never}
			}
			return s(kind)
		}
	}
	const nx, fail, refused = dnsmessage.RCodeNameError, dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused
	both := []netip.Addr{four, six}
	for name, c := range map[string]struct {
		servers []says
		addrs   []netip.Addr
		whole   bool
		class   string
		took    time.Duration
	}{
		"at once":                       {[]says{answers(2*ms, both...)}, both, true, "", 2 * ms},
		"slow":                          {[]says{answers(99*ms, both...)}, both, true, "", 99 * ms},
		"AAAA is never answered":        {[]says{without(dnsmessage.TypeAAAA, answers(5*ms, both...))}, []netip.Addr{four}, false, "", 55 * ms},
		"A is never answered":           {[]says{without(dnsmessage.TypeA, answers(5*ms, both...))}, []netip.Addr{six}, false, "", 55 * ms},
		"the first server is dead":      {[]says{silent, answers(5*ms, both...)}, both, true, "", 305 * ms},
		"dead, and no AAAA":             {[]says{silent, without(dnsmessage.TypeAAAA, answers(5*ms, both...))}, []netip.Addr{four}, false, "", 355 * ms},
		"two servers are dead":          {[]says{silent, silent, answers(5*ms, both...)}, both, true, "", 1005 * ms},
		"no such name":                  {[]says{code(2*ms, nx)}, nil, false, "not found", 2 * ms},
		"no such name, slowly":          {[]says{code(700*ms, nx), silent}, nil, false, "not found", 700 * ms},
		"no such name, AAAA unanswered": {[]says{without(dnsmessage.TypeAAAA, code(2*ms, nx))}, nil, false, "not found", 2 * ms},
		"a name without addresses":      {[]says{answers(2 * ms)}, nil, false, "not found", 2 * ms},
		"the servers fail":              {[]says{code(2*ms, fail)}, nil, false, "failure", 12 * ms},
		"the first fails":               {[]says{code(2*ms, fail), answers(2*ms, both...)}, both, true, "", 4 * ms},
		"the first refuses":             {[]says{code(2*ms, refused), answers(2*ms, both...)}, both, true, "", 4 * ms},
		"dead, and no such name":        {[]says{silent, code(5*ms, nx)}, nil, false, "not found", 5005 * ms},
		"the slow one knows the name":   {[]says{answers(900*ms, both...), code(5*ms, nx)}, both, true, "", 900 * ms},
		"nobody answers":                {[]says{silent}, nil, false, "time-out", 10 * time.Second},
	} {
		t.Run("X24 "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{}
				s.say(func(a netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
					for n := range c.servers {
						if a == server(byte(n)) {
							return c.servers[n](kind)
						}
					}
					return c.servers[len(c.servers)-1](kind)
				})
				n := scripted(t, s, nil).Name("name.test", nil)
				defer n.Release()
				start := time.Now()
				set, err := n.Wait(t.Context())
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if set == nil {
					set = &names.Set{}
				}
				if !slices.Equal(set.Addrs, c.addrs) || set.Whole() != c.whole || class(err) != c.class {
					t.Errorf("got %v, %v, %v", set.Addrs, set.Whole(), err)
				}
			})
		})
	}
}

// X24: a dead name server costs a look-up a third of a second, until it is known to
// be dead; and then one look-up now and then.
func TestX24ADeadNameServerIsAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		dead := func(a netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
			if a == server(0) {
				return names.Answer{After: names.Never}
			}
			return answer(time.Hour, kind, four)
		}
		s.say(dead)
		ns := scripted(t, s, nil)
		took := func() time.Duration {
			n := ns.Name(fmt.Sprint("n", ns.Stats().LookUps, ".test"), nil)
			defer n.Release()
			start := time.Now()
			wait(t, n)
			d := time.Since(start)
			synctest.Wait() // until it is noted who was silent
			return d
		}
		const slow, quick = 301 * ms, ms
		begin := time.Now()
		for time.Since(begin) < 5*time.Second {
			if d := took(); d != slow {
				t.Fatalf("a look-up took %v after %v", d, time.Since(begin))
			}
			time.Sleep(time.Second)
		}
		took() // finds it dead
		for _, want := range []time.Duration{quick, quick, quick} {
			if d := took(); d != want {
				t.Errorf("a look-up took %v, want %v", d, want)
			}
		}
		time.Sleep(names.DeadFor)
		for _, want := range []time.Duration{slow, quick, quick} {
			if d := took(); d != want {
				t.Errorf("later a look-up took %v, want %v", d, want)
			}
		}
		s.say(func(a netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
			if a != server(0) {
				return names.Answer{After: names.Never}
			}
			return answer(time.Hour, kind, four)
		})
		time.Sleep(names.DeadFor)
		for range 3 {
			if d := took(); d != quick {
				t.Errorf("when it is back a look-up took %v", d)
			}
		}
	})
}

// X24: with a dead first server the whole search list costs a third of a second,
// not that for each name in it.
func TestX24ADeadNameServerAndALongSearchList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.say(func(a netip.AddrPort, name string, kind dnsmessage.Type) names.Answer {
			switch {
			case a == server(0):
				return names.Answer{After: names.Never}
			case name == "api.example.com.":
				return answer(time.Hour, kind, four)
			}
			return names.Answer{After: ms, Code: dnsmessage.RCodeNameError}
		})
		ns := scripted(t, s, nil, "search a.test b.test c.test", "options ndots:5")
		start := time.Now()
		wait(t, ns.Name("api.example.com", nil))
		if d := time.Since(start); d != 304*ms {
			t.Errorf("took %v", d)
		}
	})
}
