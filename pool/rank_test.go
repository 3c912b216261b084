package pool_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

func addresses(n int) []netip.Addr {
	var list []netip.Addr
	for i := range n {
		list = append(list, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	return list
}

// A fleet of which each instance uses two addresses of sixty uses all of them.
func TestAFleetCoversAllAddresses(t *testing.T) {
	all := addresses(60)
	used := map[netip.Addr]int{}
	const instances = 600
	for i := range instances {
		for _, a := range pool.Rank(fmt.Sprint("app-5d8f7c9b6-", i), all)[:2] {
			used[a]++
		}
	}
	for _, a := range all {
		if n, fair := used[a], 2*instances/len(all); n < fair/3 || n > 2*fair {
			t.Errorf("%v is used by %d, a fair share is %d", a, n, fair)
		}
	}
}

// What comes or goes changes the order of nothing else.
func TestAnAddressThatGoesMovesNoOther(t *testing.T) {
	all := addresses(60)
	before := pool.Rank("a pod", all)
	if !slices.Equal(before, pool.Rank("a pod", before)) {
		t.Error("the order depends on the answer's")
	}
	gone := before[7]
	rest := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a == gone })
	if !slices.Equal(pool.Rank("a pod", rest), slices.Delete(slices.Clone(before), 7, 8)) {
		t.Error("others have moved")
	}
	if slices.Equal(before, pool.Rank("another pod", all)) {
		t.Error("all instances have one order")
	}
}
