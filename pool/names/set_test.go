package names_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool/names"
)

func numbered(n ...byte) (list []netip.Addr) {
	for _, k := range n {
		list = append(list, netip.AddrFrom4([4]byte{192, 0, 2, k}))
	}
	return list
}

// X3: when an address goes, and when it comes.
func TestX3AddressesGoWhenTheyAreMissingForAWhile(t *testing.T) {
	t.Parallel()
	var m names.Memory
	now := time.Now()
	gen := m.Take(now, numbered(1, 2)...).Gen
	for _, step := range []struct {
		after   time.Duration
		answer  []netip.Addr
		want    []netip.Addr
		missing int
		change  bool
	}{
		{time.Second, numbered(2, 1), numbered(2, 1), 0, false},    // another order
		{time.Second, numbered(2, 3), numbered(2, 3, 1), 1, true},  // 3 is there at once, 1 stays
		{time.Second, numbered(2, 3), numbered(2, 3, 1), 1, false}, // missing twice, but for two seconds
		{time.Second, numbered(2, 3), numbered(2, 3, 1), 1, false},
		{2 * time.Second, numbered(2, 3), numbered(2, 3), 0, true}, // for five
		{time.Hour, numbered(3), numbered(3, 2), 1, false},         // for an hour, but once
		{time.Second, numbered(3), numbered(3), 0, true},
		{time.Second, numbered(3, 3, 3), numbered(3), 0, false},
	} {
		now = now.Add(step.after)
		s := m.Take(now, step.answer...)
		change := s.Gen != gen
		gen = s.Gen
		if !slices.Equal(s.Addrs, step.want) || s.Missing != step.missing || change != step.change {
			t.Errorf("%v gives %v, %d missing; want %v", step.answer, s.Addrs, s.Missing, step.want)
		}
	}
}

// X3: answers that name a few of many addresses each do not have them come and go
// for ever.
func TestX3RotatingAnswersDoNotThrash(t *testing.T) {
	t.Parallel()
	var m names.Memory
	now := time.Now()
	all := make([]netip.Addr, 60)
	for i := range all {
		all[i] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	random := rand.New(rand.NewPCG(1, 2))
	gen, changes, late := uint64(0), 0, 0
	const rounds = 2000
	for i := range rounds {
		some := random.Perm(len(all))[:8]
		answer := make([]netip.Addr, 0, 8)
		for _, k := range some {
			answer = append(answer, all[k])
		}
		now = now.Add(5 * time.Second)
		s := m.Take(now, answer...)
		if s.Gen != gen {
			if gen = s.Gen; i > 0 {
				changes++
			}
			if i > rounds/2 {
				late++
			}
		}
	}
	if !m.Rotates() || late > rounds/2/10 {
		t.Errorf("%d changes, %d of them in the second half", changes, late)
	}
	// Once that is over it is forgotten.
	for range 1000 {
		now = now.Add(5 * time.Second)
		m.Take(now, all[0])
	}
	if m.Rotates() {
		t.Error("still taken for one that rotates")
	}
}

// X3: servers that are restarted one by one, and come back at the addresses they
// had, are not taken for that: the last of them is left as soon as the first.
func TestX3ServersThatAreRestartedInTurnAreNoRotation(t *testing.T) {
	t.Parallel()
	for _, servers := range []byte{3, 5, 20} {
		var m names.Memory
		var all []byte
		for k := range servers {
			all = append(all, k)
		}
		now := time.Now()
		m.Take(now, numbered(all...)...)
		for range 3 {
			for k := range servers {
				others := numbered(slices.DeleteFunc(slices.Clone(all), func(n byte) bool { return n == k })...)
				for range 5 {
					now = now.Add(time.Second)
					m.Take(now, others...)
				}
				now = now.Add(time.Second)
				if s := m.Take(now, others...); s.Missing != 0 || m.Rotates() {
					t.Fatalf("%d servers: number %d is not left after 5 s", servers, k)
				}
				now = now.Add(time.Second)
				m.Take(now, numbered(all...)...)
			}
		}
	}
}

func TestSetsAreBounded(t *testing.T) {
	t.Parallel()
	var m names.Memory
	now := time.Now()
	for i := range 10 * names.MaxAddrs {
		s := m.Take(now, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		if len(s.Addrs) > names.MaxAddrs || m.Left() > names.MaxAddrs {
			t.Fatalf("%d addresses, %d have left", len(s.Addrs), m.Left())
		}
	}
}

// What only one family has answered says nothing of the other's addresses.
func TestAFamilyThatIsNotAnsweredKeepsItsAddresses(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *script, ns *names.Names) {
		s.sayAddrs(5*time.Second, "192.0.2.1", "2001:db8::1")
		n := ns.Name("name.test", nil)
		wait(t, n)
		s.onlyA(5*time.Second, "192.0.2.1")
		pass(time.Minute, n)
		has(t, n, "192.0.2.1", "2001:db8::1")
		s.sayAddrs(5*time.Second, "192.0.2.1")
		pass(time.Minute, n)
		has(t, n, "192.0.2.1")
	})
}
