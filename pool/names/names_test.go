package names_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/pool/names"
)

// notes gathers what a Names tells of old addresses.
type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) take(x names.Note) {
	n.mu.Lock()
	defer n.mu.Unlock()
	what := "ends"
	switch {
	case x.Stale:
		what = "begins"
	case x.Err != nil:
		what = "given up"
	}
	n.list = append(n.list, x.Host+" "+what)
}

func (n *notes) want(t *testing.T, want ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.list, want) {
		t.Errorf("told %q, want %q", n.list, want)
	}
}

// bubble runs a test whose clock is its own, with a scripted name server.
func bubble(t *testing.T, change func(*names.Config), test func(*testing.T, *script, *names.Names)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.sayAddrs(30*time.Second, "192.0.2.1")
		test(t, s, scripted(t, s, change))
	})
}

// pass lets time pass, in which the name is used each second.
func pass(d time.Duration, used ...*names.Name) {
	for ; d > 0; d -= time.Second {
		for _, n := range used {
			n.Use()
		}
		time.Sleep(min(d, time.Second))
	}
	synctest.Wait()
}

func TestAnAnswerIsAskedForAheadOfItsEndWhileInUse(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		n := ns.Name("name.test", nil)
		wait(t, n)
		s.asked()
		begin := time.Now()
		for s.asked() == 0 { // the first is asked for at any time before that
			pass(time.Second, n)
		}
		if d := time.Since(begin); d > 29*time.Second {
			t.Errorf("first asked for after %v", d)
		}
		pass(18*time.Second, n) // 0.64 of the TTL with the least jitter is 19.2 s
		if k := s.asked(); k != 0 {
			t.Errorf("asked %d times, long before its end", k)
		}
		pass(11*time.Second, n) // and 0.96 is 28.8 s
		if k := s.asked(); k != 1 {
			t.Errorf("asked %d times ahead of its end", k)
		}
		pass(10*time.Minute, n)
		if k := s.asked(); k < 600/36 || k > 600/19 {
			t.Errorf("asked %d times in ten minutes, for a TTL of 30 s", k)
		}
		if st := ns.Stats(); st.Names != 1 || st.Failed != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Names that begin together are not asked for together from then on.
func TestNamesThatBeginTogetherAreAskedForApart(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		all := make([]*names.Name, 200)
		for i := range all {
			all[i] = ns.Name(fmt.Sprintf("name-%d.test", i), nil)
			n := all[i]
			go n.Wait(t.Context())
		}
		pass(900*ms, all...)
		if k := s.asked(); k != len(all) {
			t.Fatalf("asked %d times", k)
		}
		// 19 s later all are asked for a second time at the earliest.
		var each []int
		for range 6 {
			pass(3*time.Second, all...)
			each = append(each, s.asked())
		}
		for _, k := range each { // of 200, 3 s of 18 to 28 s: about 26
			if k < 8 || k > 60 {
				t.Errorf("asked %v times in 3 s each", each)
			}
		}
	})
}

// The first answer is not asked for at once, and later ones not before it is time,
// whenever the first was.
func TestOnlyTheFirstAnswerIsAskedForEarly(t *testing.T) {
	for range 50 {
		bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
			n := ns.Name("name.test", nil)
			wait(t, n)
			pass(90*time.Second, n)
			s.mu.Lock()
			defer s.mu.Unlock()
			var times []time.Time
			for i, q := range s.queries {
				if strings.HasSuffix(q, " A") {
					times = append(times, s.times[i])
				}
			}
			for i := range times[1:] {
				least := time.Second
				if i > 0 {
					least = 19200 * ms
				}
				if d := times[i+1].Sub(times[i]); d < least || d > 28900*ms {
					t.Errorf("asked %v after the answer %d", d, i)
				}
			}
		})
	}
}

// No request waits for an answer that is being refreshed.
func TestNobodyWaitsWhileANameInUseIsLookedUpAgain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		n := ns.Name("name.test", nil)
		wait(t, n)
		s.say(func(_ netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
			a := answer(30*time.Second, kind, four)
			a.After = 200 * ms
			return a
		})
		for range 5 * 600 {
			start := time.Now()
			wait(t, n)
			if d := time.Since(start); d != 0 {
				t.Fatalf("waited %v", d)
			}
			time.Sleep(200 * ms)
		}
	})
}

func TestAnUnusedNameIsForgotten(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		n := ns.Name("name.test", nil)
		wait(t, n)
		pass(time.Minute)
		if k := s.asked(); k != 1 || n.Set() != nil {
			t.Errorf("asked %d times, has %v", k, n.Set())
		}
		if ns.Stats().Names != 1 {
			t.Error("forgotten although there is a handle")
		}
		n.Use() // by a request on an open connection
		pass(time.Second)
		if k := s.asked(); k != 1 {
			t.Errorf("its use asks %d times", k)
		}
		has(t, n, "192.0.2.1")
		n.Release()
		n.Release() // once too often
		if ns.Stats().Names != 1 {
			t.Error("forgotten at once")
		}
		again := ns.Name("name.test", nil)
		wait(t, again)
		if k := s.asked(); k != 0 {
			t.Errorf("asked again %d times", k)
		}
		again.Release()
		pass(2 * time.Minute)
		if k := ns.Stats().Names; k != 0 {
			t.Errorf("%d names are known", k)
		}
		wait(t, n) // whoever has it may use it
	})
}

// The least and the most time an answer stands, for TTLs that are out of bounds.
func TestTTLsAreClamped(t *testing.T) {
	for name, c := range map[string]struct {
		ttl         time.Duration
		least, most int // look-ups in ten minutes
	}{
		"0":      {0, 100, 600 * 10 / 32},
		"a day":  {24 * time.Hour, 2, 4},
		"minute": {time.Minute, 600 / 58, 600/38 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
				s.sayAddrs(c.ttl, "192.0.2.1")
				n := ns.Name("name.test", nil)
				wait(t, n)
				s.asked()
				pass(10*time.Minute, n)
				if k := s.asked(); k < c.least || k > c.most {
					t.Errorf("asked %d times, want %d to %d", k, c.least, c.most)
				}
			})
		})
	}
}

func TestOneQueryIsUnderWayForOneName(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		var done sync.WaitGroup
		for i := range 100 {
			done.Go(func() {
				n := ns.Name([]string{"name.test", "NAME.test"}[i%2], nil)
				defer n.Release()
				if _, err := n.Wait(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		if k := s.asked(); k != 1 {
			t.Errorf("asked %d times", k)
		}
	})
}

// A wait ends with its context, and takes nobody else with it.
func TestOneThatGivesUpDoesNotEndTheLookUp(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		s.say(func(_ netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
			a := answer(time.Minute, kind, four)
			a.After = 250 * ms
			return a
		})
		n := ns.Name("name.test", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		if _, err := n.Wait(ctx); class(err) != "time-out" {
			t.Errorf("got %v", err)
		}
		wait(t, n)
		if k := s.asked(); k != 1 {
			t.Errorf("asked %d times", k)
		}
	})
}

// X2: what is no answer leaves the last one in force, within a bound.
func TestX2OldAddressesServeWhileTheNameServersFail(t *testing.T) {
	for name, fail := range map[string]func(*script){
		"SERVFAIL": func(s *script) { s.sayCode(dnsmessage.RCodeServerFailure) },
		"refused":  func(s *script) { s.sayCode(dnsmessage.RCodeRefused) },
		"silence":  func(s *script) { s.silence() },
		"an error": func(s *script) {
			s.say(func(netip.AddrPort, string, dnsmessage.Type) names.Answer {
				return names.Answer{Err: fmt.Errorf("unreachable")}
			})
		},
	} {
		t.Run("X2 "+name, func(t *testing.T) {
			var told notes
			bubble(t, func(c *names.Config) { c.Note = told.take }, func(t *testing.T, s *script, ns *names.Names) {
				n := ns.Name("name.test", nil)
				wait(t, n)
				fail(s)
				pass(time.Minute, n)
				has(t, n, "192.0.2.1")
				wait(t, n)
				told.want(t, "name.test begins")
				if st := ns.Stats(); st.Stale != 1 || st.StaleNames != 1 || st.Failed == 0 {
					t.Errorf("%+v", st)
				}
				s.sayAddrs(30*time.Second, "192.0.2.2")
				pass(time.Minute, n)
				told.want(t, "name.test begins", "name.test ends")
				if st := ns.Stats(); st.StaleNames != 0 {
					t.Errorf("%+v", st)
				}
				has(t, n, "192.0.2.2")

				fail(s)
				pass(5*time.Minute+36*time.Second, n) // DNS_STALE behind the longest hold
				has(t, n)
				told.want(t, "name.test begins", "name.test ends", "name.test begins", "name.test given up")
				if _, err := n.Wait(t.Context()); err == nil || class(err) == "not found" {
					t.Errorf("got %v", err)
				}
				s.sayAddrs(30*time.Second, "192.0.2.3")
				wait(t, n)
				has(t, n, "192.0.2.3")
			})
		})
	}
}

// The bound on old addresses holds although a look-up is under way that does not
// end.
func TestX2TheBoundOnOldAddressesIsHard(t *testing.T) {
	bubble(t, func(c *names.Config) { c.Timeout, c.Stale = time.Hour, 20*time.Second }, func(t *testing.T, s *script, ns *names.Names) {
		n := ns.Name("name.test", nil)
		wait(t, n)
		s.say(func(netip.AddrPort, string, dnsmessage.Type) names.Answer {
			return names.Answer{After: time.Hour}
		})
		pass(36*time.Second+20*time.Second, n)
		has(t, n)
	})
}

func TestX2WithoutAStaleTimeNothingOldIsUsed(t *testing.T) {
	bubble(t, func(c *names.Config) { c.Stale = 0 }, func(t *testing.T, s *script, ns *names.Names) {
		n := ns.Name("name.test", nil)
		wait(t, n)
		s.sayCode(dnsmessage.RCodeServerFailure)
		pass(36*time.Second, n)
		has(t, n)
	})
}

// X2: one that failed is looked up again when it would be otherwise, and more
// rarely where that is often.
func TestX2FailedLookUpsBackOffPerName(t *testing.T) {
	for name, c := range map[string]struct{ ttl, least, most time.Duration }{
		"5 s":   {5 * time.Second, 8 * time.Second, 12 * time.Second}, // 10 s ± 20 %
		"30 s":  {30 * time.Second, 19 * time.Second, 29 * time.Second},
		"5 min": {5 * time.Minute, 29 * time.Second, 31 * time.Second},
	} {
		t.Run("X2 "+name, func(t *testing.T) {
			bubble(t, func(c *names.Config) { c.Stale = time.Hour }, func(t *testing.T, s *script, ns *names.Names) {
				s.sayAddrs(c.ttl, "192.0.2.1")
				n, other := ns.Name("name.test", nil), ns.Name("other.test", nil)
				wait(t, n)
				s.say(func(_ netip.AddrPort, name string, kind dnsmessage.Type) names.Answer {
					if name == "other.test." {
						return answer(time.Minute, kind, four)
					}
					return names.Answer{Code: dnsmessage.RCodeServerFailure}
				})
				pass(c.ttl+time.Minute, n)
				start := time.Now()
				wait(t, other) // is not slowed down
				if d := time.Since(start); d != ms {
					t.Errorf("another name took %v", d)
				}
				s.asked()
				pass(10*time.Minute, n)
				has(t, n, "192.0.2.1")
				const each = 6 // queries for A: two attempts at three servers
				if k := s.asked() / each; k < int(10*time.Minute/c.most) || k > int(10*time.Minute/c.least)+1 {
					t.Errorf("looked up %d times in ten minutes", k)
				}
			})
		})
	}
}

// X2: addresses are old from when they are past their time, whether or not there
// is a look-up then, and an answer is there when one would be otherwise.
func TestX2OldAddressesBeginAndEndInTime(t *testing.T) {
	for range 50 {
		var told notes
		bubble(t, func(c *names.Config) { c.Note = told.take }, func(t *testing.T, s *script, ns *names.Names) {
			n := ns.Name("name.test", nil)
			wait(t, n)
			left := ns.Explain(t.Context(), "name.test").Left
			s.sayCode(dnsmessage.RCodeServerFailure)
			begin := time.Now()
			pass(left-ms, n)
			told.want(t)
			if ns.Stats().Failed == 0 {
				t.Error("not asked for ahead of its end")
			}
			pass(left - time.Since(begin) + ms)
			told.want(t, "name.test begins")
			has(t, n, "192.0.2.1")
			s.sayAddrs(30*time.Second, "192.0.2.1")
			pass(29*time.Second, n)
			told.want(t, "name.test begins", "name.test ends")
			has(t, n, "192.0.2.1")
		})
	}
}

// Requests for a name that cannot be looked up do not each ask, but none waits
// for more than a second before it does.
func TestRequestsForAFailingNameShareLookUps(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		s.sayCode(dnsmessage.RCodeServerFailure)
		n := ns.Name("name.test", nil)
		begin := time.Now()
		for time.Since(begin) < time.Minute {
			start := time.Now()
			if _, err := n.Wait(t.Context()); class(err) != "failure" {
				t.Fatal(err)
			}
			if d := time.Since(start); d > 1100*ms {
				t.Fatalf("waited %v", d)
			}
		}
		if k := s.asked() / 6; k < 55 || k > 70 {
			t.Errorf("looked up %d times in a minute", k)
		}
		s.sayAddrs(time.Minute, "192.0.2.1")
		wait(t, n)
	})
}

// X1: that there is no such name is an answer.
func TestX1ANameThatDoesNotExistIsBelieved(t *testing.T) {
	for name, code := range map[string]dnsmessage.RCode{"X1 NXDOMAIN": dnsmessage.RCodeNameError, "X1 NODATA": dnsmessage.RCodeSuccess} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
				s.sayCode(code)
				n := ns.Name("name.test", nil)
				for range 10 { // one look-up serves them all
					if _, err := n.Wait(t.Context()); class(err) != "not found" {
						t.Fatal(err)
					}
				}
				if k := s.asked(); k != 1 {
					t.Errorf("asked %d times", k)
				}
				s.sayAddrs(time.Minute, "192.0.2.1")
				pass(6*time.Second, n) // 5 s + 20 %
				wait(t, n)
				if st := ns.Stats(); st.Failed != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// X3: a name that is said to be gone is kept for a moment: a name server that has
// just started says so of all names.
func TestX3AnEmptyAnswerKeepsTheAddressesForAMoment(t *testing.T) {
	for name, code := range map[string]dnsmessage.RCode{"X3 NXDOMAIN": dnsmessage.RCodeNameError, "X3 NODATA": dnsmessage.RCodeSuccess} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
				var told [][]netip.Addr
				n := ns.Name("name.test", func(s *names.Set) { told = append(told, s.Addrs) })
				wait(t, n)
				s.sayCode(code)
				for s.asked() == 0 {
					pass(time.Second, n)
				}
				has(t, n, "192.0.2.1")
				s.sayAddrs(time.Minute, "192.0.2.1")
				pass(7*time.Second, n)
				s.asked()
				has(t, n, "192.0.2.1") // it was a mistake

				s.sayCode(code)
				for s.asked() == 0 {
					pass(time.Second, n)
				}
				pass(7*time.Second, n)
				has(t, n)
				if _, err := n.Wait(t.Context()); class(err) != "not found" {
					t.Errorf("got %v", err)
				}
				if len(told) != 2 || len(told[0]) != 1 || len(told[1]) != 0 {
					t.Errorf("told %v", told)
				}
			})
		})
	}
}

// A connection that fails has the name looked up at once, and at most once a
// second.
func TestSuspicionAsksAgain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		s.sayAddrs(5*time.Minute, "192.0.2.1")
		n := ns.Name("name.test", nil)
		n.Suspect() // of nothing
		wait(t, n)
		pass(2 * time.Second)
		s.asked()
		s.sayAddrs(5*time.Minute, "192.0.2.2")
		n.Suspect()
		time.Sleep(10 * ms)
		has(t, n, "192.0.2.1", "192.0.2.2")
		if k := s.asked(); k != 1 {
			t.Errorf("asked %d times", k)
		}
		for range 100 { // for ten seconds
			n.Suspect()
			time.Sleep(100 * ms)
		}
		if k := s.asked(); k < 8 || k > 11 {
			t.Errorf("asked %d times in ten seconds", k)
		}
		address := ns.Name("192.0.2.9", nil)
		address.Suspect()
		has(t, address, "192.0.2.9")
	})
}

// The full name that answered is asked first, so that an external name costs two
// queries rather than eight.
func TestTheFullNameThatAnsweredIsAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		var mu sync.Mutex
		exists, code := "api.example.com.", dnsmessage.RCodeNameError
		s.say(func(_ netip.AddrPort, name string, kind dnsmessage.Type) names.Answer {
			mu.Lock()
			defer mu.Unlock()
			if name == exists {
				return answer(30*time.Second, kind, four)
			}
			return names.Answer{Code: code}
		})
		now := func(name string, c dnsmessage.RCode) {
			mu.Lock()
			defer mu.Unlock()
			exists, code = name, c
		}
		ns := scripted(t, s, nil, "search shop.svc.cluster.local svc.cluster.local cluster.local", "options ndots:5")
		n := ns.Name("api.example.com", nil)
		wait(t, n)
		if k := s.asked(); k != 4 {
			t.Errorf("the first look-up asks for %d names", k)
		}
		n.Suspect()
		pass(2 * time.Second)
		if k, st := s.asked(), ns.Stats(); k != 1 || st.Spared != 6 || st.Queries != 10 {
			t.Errorf("the second asks for %d names: %+v", k, st)
		}

		// An earlier one that comes to be is found, some look-ups later.
		now("api.example.com.svc.cluster.local.", dnsmessage.RCodeServerFailure)
		n.Suspect()
		pass(2 * time.Second)
		if x := ns.Explain(t.Context(), "api.example.com"); x.Full != "api.example.com." || x.Err == nil || len(x.Addrs) != 1 {
			t.Errorf("a failure of the full name leads elsewhere: %+v", x)
		}
		now("api.example.com.svc.cluster.local.", dnsmessage.RCodeNameError)
		pass(29*time.Second, n) // by now that is known not to exist, which has the list walked at once
		if x := ns.Explain(t.Context(), "api.example.com"); x.Full != "api.example.com.svc.cluster.local." {
			t.Errorf("%+v", x)
		}
	})
}

// A name that comes to be further up in the search list is found although the
// other is still there.
func TestTheSearchListIsWalkedAgainNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		var mu sync.Mutex
		both := false
		s.say(func(_ netip.AddrPort, name string, kind dnsmessage.Type) names.Answer {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case name == "orders.b.test.", name == "orders.a.test." && both:
				return answer(30*time.Second, kind, four)
			}
			return names.Answer{Code: dnsmessage.RCodeNameError}
		})
		ns := scripted(t, s, nil, "search a.test b.test")
		n := ns.Name("orders", nil)
		wait(t, n)
		mu.Lock()
		both = true
		mu.Unlock()
		walked := 0
		for ns.Explain(t.Context(), "orders").Full != "orders.a.test." {
			n.Suspect()
			pass(2 * time.Second)
			if walked++; walked > 2*names.WalkEvery {
				t.Fatalf("not found in %d look-ups", walked)
			}
		}
		if walked < names.WalkEvery {
			t.Errorf("walked again after %d look-ups", walked)
		}
	})
}

// 1,000 names are looked up at once: there is no queue.
func TestAThousandNamesAtOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		open := make(chan struct{})
		s.say(func(_ netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
			<-open
			return answer(time.Minute, kind, four)
		})
		var done sync.WaitGroup
		for i := range 1000 {
			done.Go(func() {
				if _, err := ns.Name(fmt.Sprint("n", i, ".test"), nil).Wait(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if k := s.asked(); k != 1000 {
			t.Errorf("%d of 1000 are asked for", k)
		}
		close(open)
		done.Wait()
	})
}

// What waits for its turn has a bound on time, too.
func TestLookUpsAtOnceAreBounded(t *testing.T) {
	bubble(t, func(c *names.Config) { c.AtOnce = 2 }, func(t *testing.T, s *script, ns *names.Names) {
		s.silence()
		start := time.Now()
		var done sync.WaitGroup
		for i := range 10 {
			done.Go(func() {
				if _, err := ns.Name(fmt.Sprint("n", i, ".test"), nil).Wait(t.Context()); class(err) != "time-out" {
					t.Errorf("got %v", err)
				}
			})
		}
		time.Sleep(ms)
		if k := s.asked(); k != 2 {
			t.Errorf("%d are asked for", k)
		}
		done.Wait()
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// X28: 20,000 names at 400 a second: what is kept is bounded, and so are timers.
func TestX28AFloodOfNamesKeepsNamesBounded(t *testing.T) {
	bubble(t, func(c *names.Config) { c.MaxNames = 500 }, func(t *testing.T, s *script, ns *names.Names) {
		held := ns.Name("held.test", nil)
		wait(t, held)
		for i := range 20_000 {
			n := ns.Name(fmt.Sprint("n", i, ".test"), nil)
			wait(t, n)
			n.Release()
			time.Sleep(time.Second/400 - ms)
			if k := ns.Stats().Names; k > 501 {
				t.Fatalf("%d names are known", k)
			}
		}
		if ns.Stats().Names != 501 {
			t.Errorf("%d names are known", ns.Stats().Names)
		}
		last := ns.Name("n19999.test", nil)
		s.asked()
		wait(t, last) // the newest is among them
		if k := s.asked(); k != 0 {
			t.Errorf("asked %d times", k)
		}
		last.Release()
		pass(2 * time.Minute)
		if k := ns.Stats().Names; k != 1 {
			t.Errorf("%d names are known after a while", k)
		}
	})
}

func TestLocalhostAndAddressesNeedNoServer(t *testing.T) {
	t.Parallel()
	ns := newNames(t, func(c *names.Config) { c.Resolver = never{t} })
	for host, want := range map[string]string{
		"localhost": "::1 127.0.0.1", "localhost.": "::1 127.0.0.1", "LocalHost": "::1 127.0.0.1", "LOCALHOST.": "::1 127.0.0.1",
		"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1",
	} {
		n := ns.Name(host, nil)
		n.Use()
		set, err := n.Wait(t.Context())
		if err != nil || strings.Trim(fmt.Sprint(set.Addrs), "[]") != want || n.Set() != set {
			t.Errorf("%s: %v, %v", host, set, err)
		}
		n.Release()
	}
	if k := ns.Stats().Names; k != 0 {
		t.Errorf("%d names are known", k)
	}
}

// never is a Resolver that is not to be asked.
type never struct{ t *testing.T }

func (n never) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.t.Errorf("%s is asked for", host)
	return nil, nil
}

// Each handle of a name is told of changes, in order, until it is released.
func TestHandlesAreToldOfChanges(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		var http, https []uint64
		a := ns.Name("name.test", func(s *names.Set) { http = append(http, s.Gen) })
		b := ns.Name("name.test", func(s *names.Set) { https = append(https, s.Gen) })
		wait(t, a)
		pass(2*time.Minute, a) // four answers alike
		s.sayAddrs(5*time.Second, "192.0.2.1", "192.0.2.2")
		pass(time.Minute, a)
		b.Release()
		s.sayAddrs(5*time.Second, "192.0.2.2", "192.0.2.1") // the order does not matter
		pass(time.Minute, a)
		s.sayAddrs(5*time.Second, "192.0.2.2")
		pass(time.Minute, a)
		if len(http) != 3 || !slices.IsSorted(http) || len(https) != 2 {
			t.Errorf("told %v and %v", http, https)
		}
	})
}

// A panic costs one look-up.
func TestPanicsAreContained(t *testing.T) {
	var caught []string
	var mu sync.Mutex
	bubble(t, func(c *names.Config) {
		c.Caught = func(where string, r any) error {
			mu.Lock()
			defer mu.Unlock()
			caught = append(caught, fmt.Sprint(where, ": ", r))
			return fmt.Errorf("%v", r)
		}
	}, func(t *testing.T, s *script, ns *names.Names) {
		s.say(func(netip.AddrPort, string, dnsmessage.Type) names.Answer { panic("in a query") })
		n := ns.Name("name.test", func(*names.Set) { panic("in a callback") })
		if _, err := n.Wait(t.Context()); err == nil || err.Error() != "in a query" {
			t.Errorf("got %v", err)
		}
		s.sayAddrs(time.Minute, "192.0.2.1")
		wait(t, n)
		time.Sleep(ms)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"a look-up: in a query", "a look-up: in a callback"}; !slices.Equal(slices.Compact(caught), want) {
			t.Errorf("caught %q", caught)
		}
	})
}

func TestCloseEndsWhatWaits(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		known := ns.Name("known.test", nil)
		wait(t, known)
		s.silence()
		n := ns.Name("name.test", nil)
		done := make(chan error)
		go func() {
			_, err := n.Wait(t.Context())
			done <- err
		}()
		synctest.Wait()
		ns.Close()
		if err := <-done; err == nil {
			t.Error("an answer")
		}
		if _, err := ns.Name("other.test", nil).Wait(t.Context()); err == nil {
			t.Error("an answer after Close")
		}
		wait(t, known)
		ns.Close()
	})
}

// What a request does costs nothing.
func TestUseAndSetDoNotAllocate(t *testing.T) {
	ns := newNames(t, func(c *names.Config) { c.Resolver = fixed(addrs("127.0.0.1")) })
	n := ns.Name("name.test", nil)
	wait(t, n)
	if k := testing.AllocsPerRun(1000, func() {
		n.Use()
		if n.Set() == nil {
			t.Fatal("not known")
		}
		if _, err := n.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
	}); k != 0 {
		t.Errorf("%v allocations", k)
	}
}

// fixed is a Resolver that knows one answer.
type fixed []netip.Addr

func (f fixed) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return f, nil }

func BenchmarkSet(b *testing.B) {
	ns := newNames(b, func(c *names.Config) { c.Resolver = fixed(addrs("127.0.0.1")) })
	n := ns.Name("name.test", nil)
	wait(b, n)
	b.ReportAllocs()
	for b.Loop() {
		n.Use()
		if n.Set() == nil {
			b.Fatal("not known")
		}
	}
}

// A name that was not used for a while is looked up at its next use; while the name
// servers are silent that request does not wait for them to the end.
func TestX2AnOldNameIsNotWaitedForToTheEnd(t *testing.T) {
	var told notes
	bubble(t, func(c *names.Config) { c.Note = told.take }, func(t *testing.T, s *script, ns *names.Names) {
		n := ns.Name("name.test", nil)
		wait(t, n)
		pass(2 * time.Minute)
		has(t, n)
		s.silence()
		start := time.Now()
		wait(t, n)
		if d := time.Since(start); d != 1800*ms {
			t.Errorf("waited %v", d)
		}
		told.want(t, "name.test begins")
		pass(2 * time.Minute) // it sleeps again
		start = time.Now()
		wait(t, n)
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v though it is known that they are silent", d)
		}
		told.want(t, "name.test begins")
		s.sayAddrs(time.Minute, "192.0.2.1")
		pass(20*time.Second, n)
		told.want(t, "name.test begins", "name.test ends")
	})
}

// One that is forgotten while it lives on old addresses is not counted for ever.
func TestX2ForgottenNamesAreNotStale(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		n := ns.Name("name.test", nil)
		wait(t, n)
		s.sayCode(dnsmessage.RCodeServerFailure)
		pass(50*time.Second, n)
		n.Release()
		if st := ns.Stats(); st.StaleNames != 1 {
			t.Errorf("%+v", st)
		}
		pass(90 * time.Second) // one look-up after its last use, and those of 30 s
		if st := ns.Stats(); st.StaleNames != 0 || st.Names != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// What fails while a look-up is under way may do so because of what its answer
// says: it is asked once more.
func TestSuspicionDuringALookUpAsksOnceMore(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		s.onlyA(5*time.Minute, "192.0.2.1")
		n := ns.Name("name.test", nil)
		wait(t, n) // AAAA is waited for still
		s.asked()
		n.Suspect()
		n.Suspect()
		pass(10 * time.Second)
		if k := s.asked(); k != 1 {
			t.Errorf("asked %d times", k)
		}
	})
}
