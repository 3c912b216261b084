package pool_test

import (
	"reflect"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

// notSummed are the fields of pool.Stats of which a sum would mean nothing.
var notSummed = map[string]bool{"Handshake": true, "IdleLimit": true}

// A field that add forgets would be 0 in every total.
func TestSumsOfStatsLackNoField(t *testing.T) {
	one := pool.Stats{Closed: map[pool.Reason]uint64{pool.MaxAge: 1}}
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		setToOne(t, v.Type().Field(i).Name, v.Field(i))
	}
	var sum pool.Stats
	sum.Add(&one)
	sum.Add(&one)
	for i := range v.NumField() {
		name, got := v.Type().Field(i).Name, reflect.ValueOf(sum).Field(i)
		switch {
		case notSummed[name]:
			if !got.IsZero() {
				t.Errorf("%s is added up to %v", name, got)
			}
		case !isTwo(got):
			t.Errorf("%s is %v, want 2 throughout", name, got)
		}
	}
}

func setToOne(t *testing.T, name string, v reflect.Value) {
	switch {
	case v.CanInt():
		v.SetInt(1)
	case v.CanUint():
		v.SetUint(1)
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			setToOne(t, name, v.Index(i))
		}
	case v.Kind() != reflect.Map:
		t.Fatalf("%s is of a kind that this test does not know", name)
	}
}

func isTwo(v reflect.Value) bool {
	switch {
	case v.CanInt():
		return v.Int() == 2
	case v.CanUint():
		return v.Uint() == 2
	case v.Kind() == reflect.Map:
		for _, k := range v.MapKeys() {
			if !isTwo(v.MapIndex(k)) {
				return false
			}
		}
		return v.Len() == 1
	}
	for i := range v.Len() {
		if !isTwo(v.Index(i)) {
			return false
		}
	}
	return true
}
