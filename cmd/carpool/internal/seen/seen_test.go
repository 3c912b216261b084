package seen_test

import (
	"reflect"
	"strconv"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/seen"
	"github.com/carpoolproxy/carpool/pool"
)

func TestOriginsAreListedOnceAndInOrder(t *testing.T) {
	var o seen.Origins
	if l := o.List(); l.Origins == nil || len(l.Origins) != 0 || !l.Complete {
		t.Errorf("at first: %+v", l)
	}
	for _, k := range []pool.Key{{Host: "b", Port: 80}, {Host: "a", Port: 443, TLS: true}, {Host: "a", Port: 443}, {Host: "b", Port: 80}, {Host: "a", Port: 80}} {
		o.Note(k)
	}
	want := seen.List{Complete: true, Origins: []seen.Origin{{Host: "a", Port: 80}, {Host: "a", Port: 443}, {Host: "a", Port: 443, TLS: true}, {Host: "b", Port: 80}}}
	if got := o.List(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestAFloodOfOriginsIsBounded(t *testing.T) {
	var o seen.Origins
	for i := range 20000 {
		o.Note(pool.Key{Host: "h" + strconv.Itoa(i%5000), Port: 80})
	}
	if l := o.List(); len(l.Origins) != 1024 || l.Complete {
		t.Errorf("%d origins are remembered, complete: %v", len(l.Origins), l.Complete)
	}
}
