package record_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/e2e/internal/record"
)

var began = time.Unix(1000, 500e6)

func at(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }

func group() record.Group {
	var g record.Group
	for range 2 {
		l := record.NewLog(began)
		l.Note("GET", at(0), time.Millisecond, "a", "")
		l.Note("GET", at(1), time.Millisecond, "b", "")
		l.Note("POST", at(1.2), 3*time.Millisecond, "b", "")
		l.Note("POST", at(2), time.Second, "", "502 no")
		l.Note("GET", at(3), time.Millisecond, "a", "")
		l.Show(func(s *record.Seen) { g = append(g, *s) })
	}
	return g
}

func TestAWindowHasTheWholeSecondsInIt(t *testing.T) {
	w := group().Window(at(0.1), at(2.9))
	if w.Calls != 6 || w.Failed != 2 || w.Slowest != time.Second || len(w.Answers) != 1 || w.Answers["b"] != 4 {
		t.Errorf("%+v", w)
	}
	if share := w.Share("b"); share != 1 {
		t.Errorf("share %v", share)
	}
}

func TestAWindowBeforeOrAfterAllIsEmpty(t *testing.T) {
	for _, from := range []float64{-100, 100} {
		if w := group().Window(at(from), at(from+10)); w.Calls != 0 || len(w.Answers) != 0 || w.Share("a") != 0 {
			t.Errorf("from %v: %+v", from, w)
		}
	}
}

func TestFirstAndLastAreThoseOfAllClients(t *testing.T) {
	g := group()
	if first, last := g.First("a"), g.Last("a"); !first.Equal(at(0)) || !last.Equal(at(3)) {
		t.Errorf("%v, %v", first, last)
	}
	if first := g.First("c"); !first.IsZero() {
		t.Errorf("of a pod that answered nothing: %v", first)
	}
}

func TestFailuresAreCountedByMethodAndText(t *testing.T) {
	g := group()
	if calls, failed := g.Counts("POST"); calls != 4 || failed != 2 {
		t.Errorf("%d calls, %d failed", calls, failed)
	}
	if errs := g.Errors(); len(errs) != 1 || errs[0] != (record.Error{Text: "POST 502 no", Times: 2}) {
		t.Errorf("%v", errs)
	}
}
